"""One metadata poll against one public ``tq.kv_list`` of the same partitions, on a real TransferQueue.

A poll is request, reply, decoding and grouping. Between two polls a share of the groups changes: groups leave, new ones
arrive, tags are written anew. The steady poll and ``kv_list`` are measured in alternating pairs in one run, so that
other load on the machine affects both; the ratios are medians over the pairs. The first poll is one of a reader that
knows nothing yet, the median over several readers. *Reply* is the part of a poll from request to reply, in which
nothing of ours runs; *CPU* is what our thread computes.

    python -m benchmarks.poll
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from benchmarks.replay import Replay
from benchmarks.rows import SHAPES, Change, Queue
from benchmarks.runner import Benchmark, Column, Report, Table, exponent
from dataplane.adapters.wire import WireMetadataReader

if TYPE_CHECKING:
    from tests.support.cluster import TQCluster

_CHUNK = 10_000
_FIRSTS = 3

# The growth is fitted to polls of at least so many keys. Smaller ones have little but fixed costs, so that any growth
# would look less than it is.
_FITTED_FROM = 10_000

_KV_LIST = """
import time
started = time.perf_counter()
result = [0.0, 0]
for partition in partitions:
    result[1] += len(tq.kv_list(partition_id=partition)[partition])
result[0] = time.perf_counter() - started
"""


class Case(NamedTuple):
    """What is polled: all keys, rows of a group, partitions, shape of the tags, per cent of the groups that change."""

    keys: int
    group: int
    partitions: int
    tags: str
    changed: float


_KEYS = (1_000, 10_000, 100_000)
CASES = [
    *(Case(keys, 16, 1, tags, 3) for tags in SHAPES for keys in _KEYS),
    *(Case(100_000, 16, 1, tags, changed) for tags in SHAPES for changed in (0, 100)),
    *(Case(100_000, group, 1, "recovery", 3) for group in (8, 64, 512)),
    *(Case(100_000, 16, partitions, "recovery", 3) for partitions in (10, 50)),
    *(Case(1_000_000, 16, 1, tags, 3) for tags in SHAPES),
]

_COLUMNS = (
    *(Column("keys", "keys", ",d"), Column("group", "group", "d"), Column("partitions", "partitions", "d")),
    *(Column("tags", "tags"), Column("changed", "changed, %", "g")),
    *(Column("reply_ms", "reply, ms", ".1f"), Column("first_ms", "first, ms", ".1f")),
    *(
        Column("poll_ms", "poll, ms", ".1f"),
        Column("cpu_ms", "CPU, ms", ".1f"),
        Column("kv_list_ms", "kv_list, ms", ".1f"),
    ),
    *(Column("ratio", "poll/kv_list", ".2f"), Column("over_reply", "poll/reply", ".2f")),
    Column("first_ratio", "first/kv_list", ".2f"),
)


class Polled(NamedTuple):
    """Seconds of one poll: in all, until the replies, and of our thread's CPU."""

    took: float
    reply: float
    cpu: float


class Source(Protocol):
    """Where the rows are."""

    @property
    def address(self) -> str:
        """The request socket."""

    def apply(self, partition: str, queue: Queue, change: Change | None) -> None:
        """Write what has changed; None for the whole queue."""

    def kv_list(self, partitions: Sequence[str]) -> float | None:
        """Return the seconds of a public list of them all, None where there is none."""


class Real:
    """A real TransferQueue."""

    def __init__(self, cluster: TQCluster) -> None:
        self._cluster = cluster
        self.address = cluster.controller.address
        cluster.clear_all()

    def apply(self, partition: str, queue: Queue, change: Change | None) -> None:
        cleared, put = change or Change([], list(queue.rows()))
        if cleared:
            self._cluster.run("tq.kv_clear(keys=keys, partition_id=partition)", keys=cleared, partition=partition)
        for start in range(0, len(put), _CHUNK):
            chunk = put[start : start + _CHUNK]
            self._cluster.put(partition, [key for key, _ in chunk], tags=[tag for _, tag in chunk], fields=None)

    def kv_list(self, partitions: Sequence[str]) -> float | None:
        took: float
        took, _ = self._cluster.run(_KV_LIST, partitions=list(partitions))
        return took


class Replayed:
    """Reply bytes without a controller."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self.address = replay.address

    def apply(self, partition: str, queue: Queue, change: Change | None) -> None:
        self._replay.list(partition, queue.rows())

    def kv_list(self, partitions: Sequence[str]) -> float | None:
        return None


def measure_case(source: Source, case: Case, pairs: int) -> dict[str, float | None]:
    """Return a row's figures: medians, and the quartiles of the ratio."""
    queues = {
        f"bench{number}": Queue(case.keys // case.partitions, case.group, case.tags, seed=number)
        for number in range(case.partitions)
    }
    for partition, queue in queues.items():
        source.apply(partition, queue, None)

    def polled() -> Polled:
        busy, cpu, started = reader.controller_seconds, time.thread_time(), time.perf_counter()
        found = [len(reader.list_metadata(partition)) for partition in queues]
        took = Polled(time.perf_counter() - started, reader.controller_seconds - busy, time.thread_time() - cpu)
        assert found == [len(queue) for queue in queues.values()]
        return took

    firsts, lists = [], []
    for _ in range(_FIRSTS):
        reader = WireMetadataReader(source.address, timeout_s=60.0, max_reply_bytes=2**30, max_rows=2_000_000)
        reader.ping()
        firsts.append(polled().took)
        lists.append(source.kv_list(list(queues)))
        if len(firsts) < _FIRSTS:
            reader.close()
    steady, public = [], []
    # The second one finds the controller's memory in the CPU cache, so the order alternates too.
    for poll_first in itertools.islice(itertools.cycle((True, False)), pairs):
        for partition, queue in queues.items():
            if case.changed:
                source.apply(partition, queue, queue.change(case.changed / 100))
        calls: list[Callable[[], None]] = [
            lambda: steady.append(polled()),
            lambda: public.append(source.kv_list(list(queues))),
        ]
        for call in calls if poll_first else reversed(calls):
            call()
    reader.close()
    return _figures(firsts, [took for took in lists if took], steady, [took for took in public if took])


def _figures(
    firsts: list[float], lists: list[float], steady: list[Polled], public: list[float]
) -> dict[str, float | None]:
    took, reply, cpu = (statistics.median(column) for column in zip(*steady, strict=True))
    ratios = [poll.took / listed for poll, listed in zip(steady, public, strict=False)]
    return {
        "reply_ms": reply * 1e3,
        "first_ms": statistics.median(firsts) * 1e3,
        "poll_ms": took * 1e3,
        "cpu_ms": cpu * 1e3,
        "kv_list_ms": statistics.median(public) * 1e3 if public else None,
        "ratio": statistics.median(ratios) if ratios else None,
        "ratio_low": min(ratios, default=None),
        "ratio_high": max(ratios, default=None),
        "over_reply": statistics.median(poll.took / poll.reply for poll in steady),
        "first_ratio": statistics.median(firsts) / statistics.median(lists) if lists else None,
    }


def measure(report: Report, options: argparse.Namespace) -> None:
    """Measure each case, and how a poll grows with the keys."""
    cases = options.cases or CASES
    table = report.table("poll", "A metadata poll compared with the public kv_list", _COLUMNS)
    for case in cases:
        pairs = max(options.pairs // 3, 2) if case.keys > 100_000 or case.changed == 100 else options.pairs
        if options.replayed:
            with Replay() as replay:
                figures = measure_case(Replayed(replay), case, pairs)
        else:
            figures = measure_case(Real(report.cluster), case, pairs)
        table.row(**case._asdict(), **figures, pairs=pairs)
    if any(row["kv_list_ms"] is None for row in table.rows):
        table.note("Rows without kv_list: replies from a process that has them ready, without a controller's work.")
    state_growth(report, table)
    for row in table.rows:
        if row["changed"] == 3 and row["group"] == 16 and row["partitions"] == 1 and isinstance(row["ratio"], float):
            bar = {10_000: 0.35, 100_000: 0.3}.get(int(row["keys"] or 0))
            if bar:
                report.bar(f"poll/kv_list, {row['keys']:,} keys, {row['tags']}", row["ratio"], bar)
            if row["keys"] == 100_000 and isinstance(row["over_reply"], float):
                report.bar(f"poll/reply, {row['keys']:,} keys, {row['tags']}", row["over_reply"], 1.15)


def state_growth(report: Report, table: Table) -> None:
    """State how a steady poll grows with the keys. The reply's growth is the controller's; the rest is ours."""
    for tags in SHAPES:
        alike = [r for r in table.rows if (r["tags"], r["group"], r["partitions"], r["changed"]) == (tags, 16, 1, 3)]
        points = [tuple(float(row[name] or 0) for name in ("keys", "poll_ms", "reply_ms")) for row in alike]
        points = [point for point in points if point[0] >= _FITTED_FROM]
        if len(points) < 2:
            continue
        keys, polls, replies = zip(*points, strict=True)
        added = [poll - reply for poll, reply in zip(polls, replies, strict=True)]
        poll, reply, own = (exponent(keys, costs) for costs in (polls, replies, added))
        table.note(
            f"Growth, {tags}: a steady poll ~ keys^{poll:.2f}, its reply alone ~ keys^{reply:.2f}, what the exporter "
            f"adds ~ keys^{own:.2f}; fitted to {len(keys)} sizes from {min(keys):,.0f} to {max(keys):,.0f} keys."
        )
        report.bar(f"exponent with which what a poll adds to its reply grows with the keys, {tags}", own, 1.1)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=11, help="pairs of a case, a third for large ones (%(default)s)")
    parser.add_argument("--replayed", action="store_true", help="no TransferQueue: replies that are ready, no kv_list")
    parser.add_argument(
        "--case",
        dest="cases",
        action="append",
        type=_case,
        metavar="KEYS:GROUP:PARTITIONS:TAGS:CHANGED",
        help=f"for example 10000:16:1:verl:3; tags are {', '.join(SHAPES)}; repeatable (default: {len(CASES)} cases)",
    )


def _case(text: str) -> Case:
    keys, group, partitions, tags, changed = text.split(":")
    if tags not in SHAPES:
        raise argparse.ArgumentTypeError(f"tags must be one of {', '.join(SHAPES)}, not {tags!r}")
    return Case(int(keys), int(group), int(partitions), tags, float(changed))


_QUICK = (
    "--pairs 3 --case 1000:16:1:nemo-rl:3 --case 1000:16:1:recovery:3 --case 10000:16:1:recovery:3 "
    "--case 1000:16:1:verl:3 --case 1000:8:10:recovery:100"
)
BENCHMARK = Benchmark("poll", __doc__, measure, _QUICK, _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
