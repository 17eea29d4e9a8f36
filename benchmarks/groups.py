"""What the groups of the last listing take: memory that stays, and the CPU time of a question about them.

Groups of 8 keys, as NeMo RL writes them, with and without ``traceparent``. No other process is needed.

    python -m benchmarks.groups [KEYS ...]
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataplane.groups import Listing, group_rows
from exporter.groups import Query
from exporter.model.versions import VersionReference
from tests.groups.support import Listings

_GROUP_SIZE: Final = 8
_QUESTIONS: Final = {
    "oldest": Query(),
    "stalest 1,000": Query(sort="lag", limit=1000),
    "search": Query(search="f_g7"),
    "stuck": Query(condition="stuck"),
}


def main(arguments: list[str] | None = None) -> int:
    for keys in map(int, (sys.argv[1:] if arguments is None else arguments) or (10_000, 100_000)):
        for traced in (False, True):
            seen = Listings()
            seen.reference = VersionReference(50, "published")
            seen.list({"train": _groups(keys, traced=traced)})
            listed = _groups(keys, traced=traced)
            tracemalloc.start()
            seen.list({"train": listed})
            kept = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            answer = seen.groups().answer
            times = ", ".join(f"{name} {_cpu_ms(partial(answer, query)):.1f} ms" for name, query in _QUESTIONS.items())
            print(f"{keys:>8} keys, {'with' if traced else 'no'} traces: {kept / 1e6:.2f} MB kept; {times}", flush=True)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
