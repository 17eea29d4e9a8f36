"""Docstrings name other objects as Sphinx does; the reference shows those names as code."""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

_ROLE: Final = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([^`]+)`")
_LITERAL: Final = re.compile(r"``([^`]+)``")


class PlainDocstrings(griffe.Extension):
    """Turns the roles and literals of reStructuredText into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of *obj*."""
        if obj.docstring is not None:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _LITERAL.sub(r"`\1`", text)
