"""How much the exporter slows a training loop down, on a real TransferQueue.

A client puts a group, claims it, gets its data and pops it, at a fixed rate. It is an open loop: each cycle is due at
its scheduled time even if the last one is not done, and its latency counts from then. So a stall also counts for the
cycles that it delays.

Each round has several windows: two without the exporter, one with it (default settings, freshly started, after its
first polls), and at ``--control-keys`` one with a reader that polls back to back. The two without it show the noise:
the A/A spread of a figure is the largest difference between two halves of those windows, over 2,000 ways to split them.
Bar, at ``--bar-keys``: with the exporter, p99 and p99.9 are higher than without it by at most their A/A spread plus 5 %
(a p99.9 depends on a handful of cycles; without the 5 % every fourth comparison of equals would miss the bar). The
back-to-back reader is the control: it must miss the bar, otherwise the benchmark could not detect harm.

    python -m benchmarks.harm
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.runner import Benchmark, Column, Report, Table
from tests.support.exporter_process import ExporterProcess

if TYPE_CHECKING:
    from tests.support.cluster import TQCluster

GROUP_KEYS = 16
PARTITION, RESIDENT = "train", "resident"
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
BARRED = ("p99", "p99.9")
OFF = ("off 1", "off 2")
_DIVISIONS = 2000
_RESOLUTION = 0.05

_COLUMNS = (
    *(Column("keys", "keys", ",d"), Column("what", "beside it", width=12), Column("cycles", "cycles", ",d")),
    *(Column(name, f"{name}, ms", ".1f") for name in (*QUANTILES, "longest")),
    *(Column(f"{name} {of}", f"{name} {of}", ".1f") for name in BARRED for of in ("rise", "spread")),
    Column("share", "of the controller, %", ".3f"),
)

_POLL_BACK_TO_BACK = """
import sys
from dataplane.adapters.wire import WireMetadataReader
reader = WireMetadataReader(sys.argv[1], timeout_s=30.0)
while True:
    for partition in reader.list_partitions():
        reader.list_metadata(partition)
"""


@dataclass
class Windows:
    """Measurements at one number of resident keys: latencies in seconds, by kind of window, one list per round."""

    keys: int
    latencies: dict[str, list[list[float]]] = field(default_factory=dict)
    busy_ratio: list[float] = field(default_factory=list)

    def figures(self, kinds: Sequence[str]) -> dict[str, float]:
        """Return quantiles and the longest latency, in ms, over all windows of *kinds*."""
        pooled = sorted(itertools.chain.from_iterable(w for kind in kinds for w in self.latencies[kind]))
        found = {name: quantile(pooled, share) * 1e3 for name, share in QUANTILES.items()}
        return {**found, "longest": pooled[-1] * 1e3}

    def spreads(self) -> dict[str, float]:
        """Return the A/A spread of each quantile in ms: how far halves of the windows without it differ."""
        windows = [window for kind in OFF for window in self.latencies[kind]]
        shuffled = random.Random(0)
        largest = dict.fromkeys(QUANTILES, 0.0)
        for _ in range(_DIVISIONS):
            shuffled.shuffle(windows)
            middle = len(windows) // 2
            one, other = (sorted(itertools.chain(*half)) for half in (windows[:middle], windows[middle:]))
            for name, share in QUANTILES.items():
                largest[name] = max(largest[name], abs(quantile(one, share) - quantile(other, share)) * 1e3)
        return largest

    def rise(self, name: str, kind: str) -> float:
        """Return how many ms a quantile is higher in windows of *kind* than without the exporter."""
        return self.figures([kind])[name] - self.figures(OFF)[name]

    def excess(self, kind: str) -> float:
        """Return the larger rise of p99 and p99.9, as a multiple of what it may be: above 1 misses the bar."""
        spreads, off = self.spreads(), self.figures(OFF)
        return max(self.rise(name, kind) / (spreads[name] + _RESOLUTION * off[name]) for name in BARRED)

    def within(self, kind: str) -> bool:
        """Return whether windows of *kind* meet the bar."""
        return self.excess(kind) <= 1.0


def measure(report: Report, options: argparse.Namespace) -> None:
    """Run the windows at each number of keys, and judge them."""
    title = (
        f"{options.rate:g} cycles/s of put, claim, get, pop, groups of {GROUP_KEYS}; windows of {options.window:g} s"
    )
    table = report.table("harm", title, _COLUMNS)
    cluster = report.cluster
    cluster.clear_all()
    loop = TrainingLoop(report.client, options.rate)
    for keys in options.keys:
        _fill(cluster, keys)
        loop.run(options.window / 5)  # warms up
        control = keys == options.control_keys
        rounds = options.rounds if control or keys == options.bar_keys else min(options.rounds, 2)
        windows = run_windows(cluster, loop, keys, rounds, options.window, control=control)
        _add_rows(table, windows)
        if keys == options.bar_keys:
            report.bar(f"rise of p99 and p99.9 at {keys:,} keys over the A/A spread", windows.excess("exporter"), 1.0)
        if control:
            report.bar("the same of the control, as 1/excess", 1 / max(windows.excess("back to back"), 1e-9), 1.0)
    _clear(cluster)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="resident keys")
    parser.add_argument("--bar-keys", type=int, default=10_000, help="where the bar holds (default %(default)s)")
    parser.add_argument("--control-keys", type=int, default=10_000, help="where the control runs (default %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="cycles a second (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds at --bar-keys, 2 elsewhere (default %(default)s)")
    parser.add_argument("--window", type=float, default=6.0, help="seconds of a window (default %(default)s)")


# One number of keys


def run_windows(
    cluster: TQCluster, loop: TrainingLoop, keys: int, rounds: int, window_s: float, *, control: bool
) -> Windows:
    """Run all windows. Their order rotates from round to round, so that no kind always follows the same other kind."""
    windows = Windows(keys)
    address = cluster.controller.address
    beside: dict[str, Callable[[], AbstractContextManager[Any]]] = dict.fromkeys(OFF, nullcontext)
    beside["exporter"] = lambda: _exporter(address, windows)
    if control:
        beside["back to back"] = lambda: _back_to_back(address)
    kinds = list(beside)
    windows.latencies = {kind: [] for kind in kinds}
    for number in range(rounds):
        turn = number % len(kinds)
        for kind in kinds[turn:] + kinds[:turn]:
            with beside[kind]():
                windows.latencies[kind].append(loop.run(window_s))
    return windows


@contextlib.contextmanager
def _exporter(address: str, windows: Windows) -> Iterator[None]:
    with ExporterProcess("--controller", address) as exporter:
        exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), "the first polls")
        yield
        ratio = exporter.scrape().value("tq_exporter_controller_busy_ratio")
        assert ratio is not None
        windows.busy_ratio.append(ratio)


@contextlib.contextmanager
def _back_to_back(address: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", _POLL_BACK_TO_BACK, address])
    try:
        time.sleep(1.0)  # until it has loaded
        yield
        assert process.poll() is None, "the back-to-back reader ended"
    finally:
        process.kill()
        process.wait()


# The training side


class TrainingLoop:
    """Puts, claims, gets and pops one group per cycle."""

    def __init__(self, client: Any, rate: float) -> None:
        import torch
        from tensordict import TensorDict

        self._client = client
        self._period_s = 1.0 / rate
        self._number = 0
        self._fields = TensorDict({"tokens": torch.zeros(GROUP_KEYS, 512, dtype=torch.int64)}, batch_size=[GROUP_KEYS])
        client.register_partition(PARTITION, ["tokens"], GROUP_KEYS, ["trainer"])

    def run(self, seconds: float) -> list[float]:
        """Run for *seconds*; return the latency of each cycle from its scheduled start, in seconds."""
        latencies: list[float] = []
        start = time.perf_counter() + self._period_s
        for number in range(round(seconds / self._period_s)):
            scheduled = start + number * self._period_s
            while (wait_s := scheduled - time.perf_counter()) > 0:
                time.sleep(wait_s)
            self._cycle()
            latencies.append(time.perf_counter() - scheduled)
        return latencies

    def _cycle(self) -> None:
        self._number += 1
        keys = [f"u{self._number}_g{row}" for row in range(GROUP_KEYS)]
        self._client.put_samples(keys, PARTITION, self._fields, [{"weight_version": self._number // 100}] * GROUP_KEYS)
        batch = self._client.claim_meta(PARTITION, "trainer", ["tokens"], GROUP_KEYS, timeout_s=30.0)
        assert sorted(batch.sample_ids) == sorted(keys)
        assert self._client.get_data(batch).batch_size == (GROUP_KEYS,)
        self._client.pop(batch.sample_ids, PARTITION)


def _clear(cluster: TQCluster) -> None:
    cluster.run(
        "tq.kv_clear(keys=list(tq.kv_list(partition_id=p)[p]), partition_id=p) if p in tq.kv_list() else 0", p=RESIDENT
    )


def _fill(cluster: TQCluster, keys: int) -> None:
    """Keep *keys* rows resident that have only tags, so that nobody claims them."""
    _clear(cluster)
    for start in range(0, keys, 10_000):
        names = [f"r{row // GROUP_KEYS}_g{row % GROUP_KEYS}" for row in range(start, min(start + 10_000, keys))]
        cluster.put(RESIDENT, names, tags=[{"weight_version": 1}] * len(names), fields=None)


# The report


def _add_rows(table: Table, windows: Windows) -> None:
    spreads = windows.spreads()
    for kind, rounds in windows.latencies.items():
        row: dict[str, float] = dict(windows.figures([kind]))
        if kind not in OFF:
            row |= {f"{name} rise": windows.rise(name, kind) for name in QUANTILES}
            row |= {f"{name} spread": spreads[name] for name in QUANTILES}
        if kind == "exporter":
            row["share"] = max(windows.busy_ratio) * 100
        table.row(keys=windows.keys, what=kind, cycles=sum(map(len, rounds)), **row)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which *share* of the ordered values lie."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


BENCHMARK = Benchmark(
    "harm", __doc__, measure, "--keys 1000 --bar-keys 1000 --control-keys 1000 --rounds 1 --window 1.5", _options
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
