"""What the groups of the last listing take: memory that stays, and the CPU time of a question about them.

Groups of 8 keys, as NeMo RL writes them, with and without ``traceparent``. No other process is needed.

    python -m benchmarks.groups
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, Final

from benchmarks.runner import Benchmark, Column, Report
from dataplane.groups import Listing, group_rows
from exporter.groups import Query
from exporter.model.versions import VersionReference
from tests.groups.support import Listings

_GROUP_SIZE: Final = 8
_QUESTIONS: Final = {
    "oldest": Query(),
    "stalest": Query(sort="lag", limit=1000),
    "search": Query(search="f_g7"),
    "stuck": Query(condition="stuck"),
}
_COLUMNS = (
    *(Column("keys", "keys", ",d"), Column("traces", "traceparent", width=11), Column("kept_mb", "kept, MB", ".2f")),
    *(Column("oldest_ms", "oldest 50, ms", ".1f"), Column("stalest_ms", "stalest 1,000, ms", ".1f")),
    *(Column("search_ms", "search, ms", ".1f"), Column("stuck_ms", "stuck, ms", ".1f")),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Measure each number of keys, without and with ``traceparent``."""
    table = report.table("groups", "The groups of the last listing, and a question about them", _COLUMNS)
    for keys, traced in product(options.keys, (False, True)):
        seen = Listings()
        seen.reference = VersionReference(50, "published")
        seen.list({"train": _groups(keys, traced=traced)})
        listed = _groups(keys, traced=traced)
        tracemalloc.start()
        seen.list({"train": listed})
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        answer = seen.groups().answer
        times = {f"{name}_ms": _cpu_ms(partial(answer, query)) for name, query in _QUESTIONS.items()}
        table.row(keys=keys, traces="yes" if traced else "no", kept_mb=kept / 1e6, **times)


def _groups(keys: int, *, traced: bool) -> Listing:
    rows: dict[str, dict[str, Any]] = {}
    for number in range(keys // _GROUP_SIZE):
        tag: dict[str, Any] = {"weight_version": number % 50}
        if traced:
            tag["traceparent"] = f"00-{number + 1:032x}-{number + 1:016x}-01"
        rows.update((f"{number:032x}_g{index}", tag) for index in range(_GROUP_SIZE))
    return group_rows("train", rows)


def _cpu_ms(function: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        function()
        best = min(best, time.process_time() - started)
    return best * 1e3


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=int, nargs="+", default=[10_000, 100_000])


BENCHMARK = Benchmark("groups", __doc__, measure, "--keys 1000", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
