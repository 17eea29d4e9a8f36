"""Writes the measured parts of the docs and their plots from benchmarks/results.

A part stands between two markers and is never written by hand::

    <!-- table poll -->        a table of a result, with its notes
    <!-- machine poll -->      when, where and with which command that benchmark ran
    <!-- plot poll -->         the plot of a table, if it was measured
    <!-- bars -->              all figures that have a target
    <!-- end -->

``python -m benchmarks.performance --check`` changes nothing, and exits with 1 if a page differs from the results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.runner import NAMES, RESULTS, Column

_ROOT = Path(__file__).parents[1]
PAGES = tuple(
    _ROOT / "docs" / f"{name}.md" for name in ("performance", "scale", "recorder", "tracking", "instrument", "deploy")
)
IMAGES = _ROOT / "docs/images"
PLOTS = {
    "poll": "Time of a poll and of kv_list by keys, and their ratio by the share of changed groups",
    "memory": "Resident memory of the exporter by keys",
    "scrape": "Time of a scrape by keys",
    "harm": "Latency of a training cycle without and with the exporter",
    "fleet": "Memory of Prometheus and of VictoriaMetrics by series",
}
"""What each plot shows, by table: see :mod:`benchmarks.plots`."""

Result = dict[str, Any]

_PART = re.compile(r"(<!-- (table|machine|plot|bars) ?([a-z_]*) -->\n).*?(<!-- end -->)", re.DOTALL)


def results(folder: Path = RESULTS) -> dict[str, Result]:
    """Return every result, by benchmark."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def fill(page: str, found: Mapping[str, Result]) -> str:
    """Return *page* with all of its measured parts written anew.

    Where a benchmark has no result, its part ``machine`` says so and its tables are empty.

    Raises:
        KeyError: The page names a table or a benchmark that there is not.
    """
    tables = {table["name"]: table for result in found.values() for table in result["tables"]}

    def part(match: re.Match[str]) -> str:
        kind, name = match[2], match[3]
        if kind == "bars":
            text = _bars(found)
        elif kind == "plot":
            text = f"![{PLOTS[name]}](images/performance-{name}.svg)" if name in tables else ""
        elif name not in (tables if kind == "table" else found) and not found.keys() >= set(NAMES):
            text = f"**Not measured yet:** `make bench BENCHMARKS={name}`." if kind == "machine" else ""
        else:
            text = markdown(tables[name]) if kind == "table" else _machine(found[name])
        return f"{match[1]}{text}\n{match[4]}" if text else f"{match[1]}{match[4]}"

    return _PART.sub(part, page)


def markdown(table: Mapping[str, Any]) -> str:
    """Return a table and its notes. A column without any figure is left out."""
    columns = [Column(**column) for column in table["columns"]]
    columns = [c for c in columns if any(row.get(c.key) is not None for row in table["rows"])]
    lines = ["| " + " | ".join(c.title for c in columns) + " |"]
    lines.append("|" + "|".join("---:" if c.format else "---" for c in columns) + "|")
    lines += ["| " + " | ".join(c.text(row.get(c.key)) for c in columns) + " |" for row in table["rows"]]
    return "\n".join([*lines, "", *table["notes"]]).rstrip()


def _machine(result: Result) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    busy = max(machine["load"], machine["load_after"]) > machine["cores"]
    warning = " **Other programs disturbed this run:** use only its ratios." if busy else ""
    return (
        f"`{result['command']}`, {machine['date']}, {result['seconds']} s, commit {machine['commit']}. "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}; {versions}. "
        f"Load average {machine['load']} before, {machine['load_after']} after.{warning}"
    )


def _bars(found: Mapping[str, Result]) -> str:
    lines = ["| what | measured | target | |", "|---|---:|---:|---|"]
    bars = [bar for result in found.values() for bar in result["bars"]]
    lines += [f"| {b['what']} | {b['value']:.3g} | at most {b['at_most']:.3g} | {_met(b['met'])} |" for b in bars]
    return "\n".join(lines)


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


def main(argv: list[str] | None = None) -> int:
    """Write pages and plots, or compare the pages."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.performance", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is out of date")
    options = parser.parse_args(argv)
    found, stale = results(), []
    for page in PAGES:
        old = page.read_text()
        new = fill(old, found)
        if new == old:
            continue
        stale.append(page.name)
        if not options.check:
            page.write_text(new)
    if options.check:
        for name in stale:
            print(f"docs/{name} is out of date: run make performance", file=sys.stderr)
        return 1 if stale else 0
    from benchmarks.plots import draw

    draw(found, IMAGES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
