"""``python -m dashboards.draw``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dashboards.draw import draw


def main() -> None:
    """Draw the dashboards."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.draw", description="Draw the dashboards.")
    parser.add_argument("folder", type=Path, help="where to write the pictures")
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--end", type=float, default=time.time(), metavar="SECONDS", help="since the epoch; now")
    parser.add_argument("--start", type=float, metavar="SECONDS", help="an hour before the end")
    parser.add_argument(
        "--set", action="append", default=[], metavar="VARIABLE=VALUE", help="choose a value, repeatedly for several"
    )
    options = parser.parse_args()
    chosen: dict[str, list[str]] = {}
    for setting in options.set:
        name, _, value = setting.partition("=")
        chosen.setdefault(name, []).append(value)
    start = options.end - 3600 if options.start is None else options.start
    for path in draw(options.folder, options.prometheus, start, options.end, chosen):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
