"""Shows text from outside on a terminal or in a log: no sign in it is obeyed, and it stays on its line.

Names of partitions, ids and error texts are chosen by others. Control characters in them could clear a screen, write
its clipboard or forge a line, and formatting characters reorder the text around them. The live page escapes the same
characters in the same way (``exporter/web/page/format.js``).
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Final

__all__ = ["visible", "visible_json", "visible_lines"]

HIDDEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: control, formatting, lone surrogates (no encoding has them), line and paragraph separators."""

# Most texts have none of them, and printable ones never do: categories are looked up only for the other characters.
_SUSPECT: Final = re.compile(r"[^\x20-\x7e]")


def visible(text: str) -> str:
    """Return *text* as one line in which every character shows. Control characters become pictures such as ``␛``."""
    return text if text.isprintable() else _SUSPECT.sub(_show, text)


def visible_lines(text: str) -> str:
    """Return a text of several lines, each of them visible."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """Return a JSON document with the same content, whose strings hide no character from a terminal.

    Its line breaks may only be those between values.
    """
    return text if text.isprintable() else _SUSPECT.sub(_escape, text)


def _show(match: re.Match[str]) -> str:
    sign = match[0]
    if unicodedata.category(sign) not in HIDDEN:
        return sign
    code = ord(sign)
    return chr(0x2400 + code) if code < 0x20 else f"\\u{code:04x}"


def _escape(match: re.Match[str]) -> str:
    sign = match[0]
    return sign if sign == "\n" or unicodedata.category(sign) not in HIDDEN else json.dumps(sign)[1:-1]
