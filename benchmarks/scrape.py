"""Cost of a scrape, which must depend neither on the size of the queue nor on the length of the run.

1. /metrics over HTTP, its snapshot made from queues of several sizes in as many partitions with as many weight
   versions, in turns: quantiles, and their ratio to those of the smallest queue. The floor is the server's /healthz.
2. /metrics by the number of partitions.
3. Over thousands of weight versions the number of series per partition and the memory stay the same.

    python -m benchmarks.scrape
"""

from __future__ import annotations

import argparse
import gc
import gzip
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.runner import Benchmark, Column, Report, Table, exponent
from benchmarks.snapshots import PARTITIONS, VERSIONS, filled, groups_of, partitions_of, snapshot_of
from exporter.config import Config, Listen
from exporter.model.snapshot import Snapshot
from exporter.telemetry import Telemetry
from exporter.web import WebServer

MAX_P99_RATIO = 1.5
MAX_RSS_GROWTH_MB = 2.0
WARM_VERSIONS = 1000


_SIZES = (
    *(Column("keys", "keys", ",d"), Column("bytes", "bytes", ",d"), Column("p50_ms", "p50, ms", ".2f")),
    *(Column("p99_ms", "p99, ms", ".2f"), Column("p50_ratio", "p50/smallest", ".2f")),
    *(Column("p99_ratio", "p99/smallest", ".2f"), Column("floor", "p50/healthz", ".1f")),
)
_PARTITIONS = (
    *(Column("partitions", "partitions", "d"), Column("lines", "samples", ",d"), Column("bytes", "bytes", ",d")),
    *(Column("gzip", "gzip, bytes", ",d"), Column("text_ms", "text, CPU ms", ".1f")),
    *(Column("open_ms", "OpenMetrics, CPU ms", ".1f"), Column("sample_us", "text, us/sample", ".1f")),
)
_VERSIONS = (
    *(Column("versions", "versions", ",d"), Column("series", "series per partition", "d")),
    *(Column("constant", "constant"), Column("rss_mb", "RSS, MB", ".1f"), Column("growth_mb", "growth, MB", ".2f")),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Measure by keys, by partitions, and over weight versions."""
    table = report.table("scrape", f"A scrape by keys, {PARTITIONS} partitions", _SIZES)
    for row in measure_keys(options.keys, options.scrapes, options.blocks):
        table.row(**row)
    sizes, costs = ([float(row[name] or 0) for row in table.rows] for name in ("keys", "p50_ms"))
    table.note(f"Growth: p50 ~ keys^{exponent(sizes, costs):.2f}, fitted to {len(sizes)} sizes.")
    report.bar(
        f"p99 at {options.keys[-1]:,} keys / p99 at {options.keys[0]:,}", _last(table, "p99_ratio"), MAX_P99_RATIO
    )
    table = report.table("scrape_partitions", "Making one scrape, by partitions", _PARTITIONS)
    for partitions in options.partitions:
        table.row(**measure_partitions(partitions, options.scrapes))
    table = report.table("scrape_versions", "Scrapes over weight versions that come and go", _VERSIONS)
    table.row(**measure_versions(options.versions))
    report.bar("growth of the memory over weight versions, MB", _last(table, "growth_mb"), MAX_RSS_GROWTH_MB)


def _last(table: Table, key: str) -> float:
    return float(table.rows[-1][key] or 0)


def measure_keys(sizes: Sequence[int], scrapes: int, blocks: int) -> Iterator[dict[str, float]]:
    """Scrape several exporters in turns, so that other load on the machine affects all.

    A single stall of the machine changes a p99, so the figures are medians over blocks.
    """
    sides = [_Served(snapshot_of(groups_of(keys, newest=VERSIONS - 1))) for keys in sizes]
    try:
        calls = [side.scrape for side in sides] + [sides[0].health]
        _in_turns(calls, 20)
        measured = [_in_turns(calls, scrapes) for _ in range(blocks)]
        lengths = [len(side.scrape()) for side in sides]
    finally:
        for side in sides:
            side.stop()

    for index, keys in enumerate(sizes):
        row: dict[str, float] = {"keys": keys, "bytes": lengths[index]}
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            figures = [[_percentile(durations, share) for durations in took] for took in measured]
            row[f"{name}_ms"] = statistics.median(block[index] for block in figures) * 1e3
            row[f"{name}_ratio"] = statistics.median(block[index] / block[0] for block in figures)
            if name == "p50":
                row["floor"] = statistics.median(block[index] / block[-1] for block in figures)
        yield row


def _in_turns(calls: Sequence[Callable[[], object]], times: int) -> list[list[float]]:
    took: list[list[float]] = [[] for _ in calls]
    for turn in range(times):
        order = list(zip(calls, took, strict=True))
        for call, durations in order if turn % 2 else reversed(order):
            started = time.perf_counter()
            call()
            durations.append(time.perf_counter() - started)
    return took


def measure_partitions(partitions: int, scrapes: int) -> dict[str, float]:
    """Return the size of a scrape, and the CPU time that it takes to make one."""
    snapshot = filled(partitions)
    telemetry = Telemetry(Config(), lambda: snapshot, environ={})
    times: dict[str | None, list[float]] = {None: [], "application/openmetrics-text; version=1.0.0": []}
    for _ in range(max(scrapes // 10, 2)):
        for accept, took in times.items():
            started = time.thread_time()
            telemetry.scrape(accept)
            took.append(time.thread_time() - started)
    body, _ = telemetry.scrape(None)
    telemetry.shutdown(1.0)
    text_s, open_s = map(statistics.median, times.values())
    samples = sum(not line.startswith(b"#") for line in body.splitlines())
    return {
        "partitions": partitions,
        "lines": samples,
        "bytes": len(body),
        "gzip": len(gzip.compress(body, 6)),
        "text_ms": text_s * 1e3,
        "open_ms": open_s * 1e3,
        "sample_us": text_s / samples * 1e6,
    }


def measure_versions(versions: int) -> dict[str, float | str]:
    """Step through weight versions. At each, the oldest groups leave, new ones arrive; render both outputs."""
    partitions = partitions_of()
    current = [snapshot_of({})]
    telemetry = Telemetry(Config(), lambda: current[0], environ={})
    series: set[int] = set()
    warm_mb = 0.0
    for version in range(VERSIONS + 4, VERSIONS + 4 + versions):
        current[0] = snapshot_of(groups_of(2_000, newest=version), partitions)
        telemetry.recorder.poll("metadata", "ok")
        body, _ = telemetry.scrape(None)
        lines = body.decode().splitlines()
        series.add(sum('partition="p0"' in line for line in lines))
        if version - VERSIONS - 4 == min(WARM_VERSIONS, versions // 10):
            warm_mb = _rss_mb()
    grown = _rss_mb() - warm_mb
    telemetry.shutdown(1.0)
    return {
        "versions": versions,
        "series": max(series),
        "constant": "yes" if len(series) == 1 else "NO",
        "rss_mb": warm_mb + grown,
        "growth_mb": grown,
    }


class _Served:
    def __init__(self, snapshot: Snapshot) -> None:
        self._telemetry = Telemetry(Config(), lambda: snapshot, environ={})
        self._web = WebServer(
            Listen("127.0.0.1", 0), scrape=self._telemetry.scrape, snapshot=lambda: snapshot, alive=lambda: True
        )
        host, port = self._web.listen()
        self._web.start()
        self._url = f"http://{host}:{port}"

    def scrape(self) -> bytes:
        """Return ``/metrics``."""
        return self._get("/metrics")

    def health(self) -> bytes:
        """Return ``/healthz``."""
        return self._get("/healthz")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url + path, timeout=30) as response:
            body: bytes = response.read()
            return body

    def stop(self) -> None:
        self._web.stop()
        self._telemetry.shutdown(1.0)


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def _rss_mb() -> float:
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell a process's memory")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="sizes of the queue")
    parser.add_argument(
        "--scrapes", type=int, default=100, help="scrapes of each kind in a block (default %(default)s)"
    )
    parser.add_argument("--blocks", type=int, default=9, help="blocks, whose median counts (default %(default)s)")
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--versions", type=int, default=5_000, help="weight versions that go by (default %(default)s)")


BENCHMARK = Benchmark(
    "scrape",
    __doc__,
    measure,
    "--keys 1000 100000 --scrapes 20 --blocks 1 --partitions 1 10 --versions 50",
    _options,
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
