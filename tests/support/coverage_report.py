"""``python -m tests.support.coverage_report``: the branch coverage of each package as a Markdown table."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import coverage

__all__ = ["render"]


def render(files: dict[str, dict[str, dict[str, int]]]) -> str:
    """Return the table for the ``files`` of coverage's JSON report.

    Lines and branches count alike: the share is covered ones of both over all of both.
    """
    covered: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name, report in files.items():
        parts = Path(name).parent.parts
        package = "/".join(parts[:2])
        summary = report["summary"]
        covered[package] += summary["covered_lines"] + summary["covered_branches"]
        total[package] += summary["num_statements"] + summary["num_branches"]
    lines = ["| package | lines and branches | covered |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {total[name]:,} | {covered[name] / total[name]:.1%} |" for name in sorted(total) if total[name]
    ]
    lines.append(f"| all | {total.total():,} | {covered.total() / total.total():.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table of the data that ``coverage combine`` left."""
    data = coverage.Coverage()
    data.load()
    with tempfile.NamedTemporaryFile() as file:
        data.json_report(outfile=file.name)
        sys.stdout.write(render(json.loads(Path(file.name).read_text("utf-8"))["files"]))


if __name__ == "__main__":
    main()
