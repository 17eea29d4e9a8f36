"""Writes the chart's README to standard output: ``readme.md`` plus a table of the values with their comments.

python helm/readme.py > helm/tq-exporter/README.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent
_MARK = "# -- "


def main() -> None:
    """Write the README."""
    text = (_FOLDER / "tq-exporter" / "values.yaml").read_text()
    rows = [f"| {' | '.join(cells)} |" for cells in describe(text)]
    table = "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])
    sys.stdout.write((_FOLDER / "readme.md").read_text().replace("{{values}}", table))


def describe(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of every value as Markdown, in the order of the file.

    A comment that starts with ``# --`` describes the key below it. A mapping is one row if it is empty, or if it has a
    description and none of its keys has one. Otherwise each of its keys is a row.
    """
    comments = dict(_comments(text.splitlines()))

    def walk(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
        for key, value in values.items():
            name = f"{prefix}{key}"
            inner = any(other.startswith(f"{name}.") for other in comments)
            if isinstance(value, dict) and value and (name not in comments or inner):
                if name in comments:
                    yield f"`{name}`", "", comments[name]
                yield from walk(f"{name}.", value)
            else:
                yield f"`{name}`", f"`{json.dumps(value)}`", comments.get(name, "")

    yield from walk("", yaml.safe_load(text))


def _comments(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the description of every key that has one."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in lines:
        bare = line.strip()
        if bare.startswith(_MARK):
            comment = [bare.removeprefix(_MARK)]
        elif bare.startswith("#") and comment:
            comment.append(bare.removeprefix("#").strip())
        elif match := re.match(r"( *)([A-Za-z]+):", line):
            indent = len(match[1])
            path = [*((depth, key) for depth, key in path if depth < indent), (indent, match[2])]
            if comment:
                yield ".".join(key for _, key in path), " ".join(comment)
            comment = []


if __name__ == "__main__":
    main()
