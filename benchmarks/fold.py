"""What the exporter computes after a listing was read: flow, occupancy and the rendering of all metrics.

The reader lists the same partition again and again; a share of the groups has changed each time. Reading is not
counted. All figures are CPU time of the thread, medians.

    python -m benchmarks.fold
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import product

from opentelemetry.trace import NoOpTracer

from benchmarks.replay import Replay
from benchmarks.rows import Queue
from benchmarks.runner import Benchmark, Column, Report, exponent
from dataplane.adapters.wire import WireMetadataReader
from exporter.clock import SystemClock
from exporter.config import Config
from exporter.config.model import Metadata
from exporter.model.results import Ok
from exporter.model.state import State
from exporter.polling.sources.metadata import MetadataSource
from exporter.telemetry.render import render
from exporter.version import this_build
from tests.support.recording import RecordingRecorder

MAX_MS = 5.0
_GROUP = 16

_COLUMNS = (
    *(Column("keys", "keys", ",d"), Column("changed", "changed, %", "g")),
    *(Column("fold_ms", "flow and occupancy, ms", ".2f"), Column("render_ms", "snapshot and render, ms", ".2f")),
    Column("total_ms", "together, ms", ".2f"),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Measure each number of keys with each share of changed groups."""
    table = report.table("fold", "After a listing: flow, occupancy, rendering", _COLUMNS)
    for keys, changed in product(options.keys, options.changed):
        folds, renders = _measure(keys, changed / 100, options.polls)
        fold, rendering = statistics.median(folds) * 1e3, statistics.median(renders) * 1e3
        total = statistics.median(map(sum, zip(folds, renders, strict=True))) * 1e3
        table.row(keys=keys, changed=changed, fold_ms=fold, render_ms=rendering, total_ms=total)
        if (keys, changed) == (100_000, 3):
            report.bar("flow, occupancy and rendering at 100,000 keys, 3 % changed, ms", total, MAX_MS)
    for changed in options.changed if len(options.keys) > 1 else ():
        rows = [row for row in table.rows if row["changed"] == changed]
        sizes, costs = ([float(row[name] or 0) for row in rows] for name in ("keys", "total_ms"))
        table.note(f"Growth, {changed:g} % changed: time ~ keys^{exponent(sizes, costs):.2f}.")


def _measure(keys: int, changed: float, polls: int) -> tuple[list[float], list[float]]:
    # On a busy machine a listing may seem to block the controller for so long that the next ones are left out.
    config = Config(metadata=Metadata(max_controller_share=1.0, max_controller_stall=60.0))
    clock, build = SystemClock(), this_build()
    state = State(RecordingRecorder(), clock, max_partitions=100, max_versions=16)
    queue, folds, renders = Queue(keys, _GROUP, "recovery"), [], []
    with Replay() as replay:
        reader = WireMetadataReader(replay.address, timeout_s=60.0, max_reply_bytes=2**30, max_rows=2_000_000)
        source = MetadataSource(reader, config, tracer=NoOpTracer(), clock=clock)
        for number in range(polls + 2):
            queue.change(changed)
            replay.list("train", queue.rows())
            result = source.poll()
            assert isinstance(result, Ok), result
            assert result.value.listings, "the partition was left out"
            started = time.thread_time()
            source.fold(result, state)
            folded = time.thread_time()
            render(state.snapshot(), build)
            if number > 1:  # everything is new to the first, and the second is the first with known groups
                folds.append(folded - started)
                renders.append(time.thread_time() - folded)
        reader.close()
    return folds, renders


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--changed", type=float, nargs="+", default=[0, 3, 100], help="per cent of the groups")
    parser.add_argument("--polls", type=int, default=9, help="polls of each kind (default %(default)s)")


BENCHMARK = Benchmark("fold", __doc__, measure, "--keys 1000 10000 --changed 3 --polls 3", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
