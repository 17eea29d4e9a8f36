"""Renders the catalogue as a page for people: what every condition and every metric means, with an anchor for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from html import escape
from typing import Final

from exporter.catalogue.docs import INTRO, OUTRO, sections
from exporter.catalogue.metrics import prometheus_label, prometheus_name
from exporter.conditions import CONDITIONS

__all__ = ["render_page"]

_HEAD: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Metrics and conditions · TransferQueue</title>
<link rel="icon" href="../page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="../page/style.css">
<link rel="stylesheet" href="../page/media.css">
</head>
<body>
<header class="bar"><div class="brand"><img src="../page/icon.svg" alt="" width="26" height="26">
<a href="../">TransferQueue</a></div></header>
<main class="book">
<h1>Metrics and conditions</h1>
<nav aria-label="Parts of this page"><ul>
"""
_FOOT: Final = "</main>\n</body>\n</html>\n"


@cache
def render_page() -> bytes:
    """Return the page as HTML. It names no other host and has neither scripts nor styles of its own."""
    parts: list[tuple[str, str]] = [("Conditions", _conditions())]
    parts += [("Metrics", _markdown(INTRO.partition("# Metrics\n")[2]))]
    for title, metrics in sections():
        rows = (
            (
                prometheus_name(metric),
                f"<td>{metric.kind}{f', <code>{escape(metric.unit)}</code>' if metric.unit else ''}</td>"
                f"<td>{'<br>'.join(_label(*one) for one in metric.attributes.items())}</td>"
                f"<td>{_inline(metric.description)}</td>",
            )
            for metric in metrics
        )
        parts.append((title, _table(("metric", "kind", "labels", "meaning"), rows)))
    contents = "".join(f'<li><a href="#{_anchor(title)}">{escape(title)}</a></li>\n' for title, _ in parts)
    body = "".join(f'<h2 id="{_anchor(title)}">{escape(title)}</h2>\n{text}' for title, text in parts)
    return f"{_HEAD}{contents}</ul></nav>\n{body}{_markdown(OUTRO)}{_FOOT}".encode()


def _conditions() -> str:
    rows = (
        (
            rule.name,
            f"<td>{rule.severity}</td><td>{rule.stage.replace('_', ' ')}</td>"
            f"<td>{escape((rule.check.__doc__ or '').strip())}</td><td>{_inline(rule.remedy)}</td>",
        )
        for rule in CONDITIONS
    )
    intro = "<p>A condition is a fault that the exporter recognizes. The order is that of the page: causes first.</p>"
    return intro + _table(("condition", "severity", "stage", "holds while", "what to do first"), rows)


def _table(heads: Sequence[str], rows: Iterable[tuple[str, str]]) -> str:
    """Return a table: of each row its name, which is its anchor too, and its further cells as HTML."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f'<tr id="{name}"><th scope="row">{_code(name)}</th>{cells}</tr>\n' for name, cells in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>\n"


def _label(name: str, values: tuple[str, ...] | None) -> str:
    label = f"<code>{escape(prometheus_label(name))}</code>"
    return label if values is None else f"{label}: {escape(', '.join(values))}"


# The Markdown of our own introductions: paragraphs, headings, lists, tables, code, bold text and links within the page.


def _markdown(text: str) -> str:
    blocks = re.split(r"\n\s*\n", text.strip())
    return "".join(_block(block) for block in blocks)


def _block(block: str) -> str:
    for mark, render in _BLOCKS:
        if block.startswith(mark):
            return render(block)
    return f"<p>{_inline(block)}</p>\n"


def _heading(block: str) -> str:
    title = block.lstrip("# ")
    return f'<h2 id="{_anchor(title)}">{_inline(title)}</h2>\n'


def _list(block: str) -> str:
    return (
        "<ul>" + "".join(f"<li>{_inline(item)}</li>\n" for item in re.split(r"^- ", block, flags=re.M)[1:]) + "</ul>\n"
    )


def _grid(block: str) -> str:
    head, _, *rows = ([_inline(cell.strip()) for cell in line.strip("|").split("|")] for line in block.splitlines())
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table>\n"


_BLOCKS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (("#", _heading), ("- ", _list), ("|", _grid))


def _inline(text: str) -> str:
    said = escape(text, quote=False)
    said = re.sub(r"`([^`]+)`", lambda found: _code(found[1]), said)
    said = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", said)
    return re.sub(r"\[([^\]]+)\]\((#[\w-]+)\)", r'<a href="\2">\1</a>', said)


def _code(text: str) -> str:
    """Return code. A long name may go over two lines, between its words."""
    return f"<code>{text.replace('_', '_<wbr>')}</code>"


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")
