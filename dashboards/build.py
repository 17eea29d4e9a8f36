"""Builds the dashboards and writes their JSON: ``python -m dashboards.build [FOLDER]``, by default to ``grafana``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dashboards import clients, health, overview, staleness
from dashboards.boards import to_text

__all__ = ["render"]

_BOARDS = (overview, staleness, clients, health)


def render() -> dict[str, str]:
    """Return the name and text of every dashboard's file.

    Raises:
        QueryError: A query names a metric or label that does not exist, or merges runs.
    """
    texts = [to_text(module.build()) for module in _BOARDS]
    return {f"{json.loads(text)['uid']}.json": text for text in texts}


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("grafana")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
