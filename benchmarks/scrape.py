"""Cost of a scrape, which must depend neither on the size of the queue nor on the length of the run.

1. /metrics over HTTP, its snapshot made from 1,000 and from 100,000 keys in as many partitions with as many weight
   versions, in turns: the ratio of the p99s.
2. Over 10,000 weight versions the number of series per partition and the memory stay the same.

Exits with 1 when a bar is missed.

    python -m benchmarks.scrape
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from dataplane.groups import DataPlaneGroupMeta
from dataplane.partitions import ByName
from exporter.clock import SystemClock
from exporter.config import Config, Listen, Partition
from exporter.model.partitions import Partitions
from exporter.model.results import MetadataPoll, PartitionListing
from exporter.model.snapshot import Snapshot
from exporter.telemetry import Telemetry
from exporter.web import WebServer

PARTITIONS = 4
VERSIONS = 16
GROUP_KEYS = 16
MAX_P99_RATIO = 1.5
MAX_RSS_GROWTH_MB = 2.0
WARM_VERSIONS = 1000


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scrape", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, nargs=2, default=(1_000, 100_000), metavar=("FEW", "MANY"))
    parser.add_argument(
        "--scrapes", type=int, default=200, help="scrapes of each kind in a block (default %(default)s)"
    )
    parser.add_argument("--blocks", type=int, default=9, help="blocks, whose median counts (default %(default)s)")
    parser.add_argument("--versions", type=int, default=10_000, help="weight versions that go by (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    few, many = options.keys
    figures = {**measure_keys(few, many, options.scrapes, options.blocks), **measure_versions(options.versions)}
    met = {
        "p99_ratio": figures["p99_ratio"] <= MAX_P99_RATIO,
        "series_constant": bool(figures["series_constant"]),
        "rss_growth_mb": figures["rss_growth_mb"] <= MAX_RSS_GROWTH_MB,
    }
    if options.json:
        print(json.dumps({"figures": figures, "met": met}))
    else:
        for name, value in figures.items():
            bar = {"p99_ratio": f"at most {MAX_P99_RATIO}", "rss_growth_mb": f"at most {MAX_RSS_GROWTH_MB}"}.get(
                name, ""
            )
            print(f"{name:24} {value:12.4g}  {bar}")
        print(
            "missed: " + ", ".join(name for name, ok in met.items() if not ok) if not all(met.values()) else "all met"
        )
    return 0 if all(met.values()) else 1


def measure_keys(few: int, many: int, scrapes: int, blocks: int) -> dict[str, float]:
    """Scrape two exporters in turns, so that other load on the machine affects both.

    A single stall of the machine changes a p99, so the figures are medians over blocks.
    """
    sides = [_Served(_snapshot(_groups(keys, newest=VERSIONS - 1))) for keys in (few, many)]
    try:
        _scrape_in_turns(sides, 20)
        measured = [_scrape_in_turns(sides, scrapes) for _ in range(blocks)]
        sizes = [len(side.scrape()) for side in sides]
    finally:
        for side in sides:
            side.stop()
    figures: dict[str, float] = {}
    for index, name in enumerate(("few", "many")):
        figures[f"{name}_keys_p50_ms"] = statistics.median(_percentile(took[index], 0.50) for took in measured) * 1e3
        figures[f"{name}_keys_p99_ms"] = statistics.median(_percentile(took[index], 0.99) for took in measured) * 1e3
        figures[f"{name}_keys_bytes"] = sizes[index]
    for name, share in (("p50_ratio", 0.50), ("p99_ratio", 0.99)):
        ratios = (_percentile(many, share) / _percentile(few, share) for few, many in measured)
        figures[name] = statistics.median(ratios)
    return figures


def _scrape_in_turns(sides: Sequence[_Served], scrapes: int) -> list[list[float]]:
    took: list[list[float]] = [[] for _ in sides]
    for turn in range(scrapes):
        order = list(zip(sides, took, strict=True))
        for side, durations in order if turn % 2 else reversed(order):
            started = time.perf_counter()
            side.scrape()
            durations.append(time.perf_counter() - started)
    return took


def measure_versions(versions: int) -> dict[str, float]:
    """Step through weight versions. At each, the oldest groups leave, new ones arrive; render both outputs."""
    partitions = _partitions()
    current = [_snapshot({})]
    telemetry = Telemetry(Config(), lambda: current[0], environ={})
    series: set[int] = set()
    warm_mb = 0.0
    for version in range(VERSIONS + 4, VERSIONS + 4 + versions):
        current[0] = _snapshot(_groups(2_000, newest=version), partitions)
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
        "series_per_partition": max(series),
        "series_constant": float(len(series) == 1),
        "rss_mb": warm_mb + grown,
        "rss_growth_mb": grown,
    }


class _Served:
    def __init__(self, snapshot: Snapshot) -> None:
        self._telemetry = Telemetry(Config(), lambda: snapshot, environ={})
        self._web = WebServer(
            Listen("127.0.0.1", 0), scrape=self._telemetry.scrape, snapshot=lambda: snapshot, alive=lambda: True
        )
        host, port = self._web.listen()
        self._web.start()
        self._url = f"http://{host}:{port}/metrics"

    def scrape(self) -> bytes:
        with urllib.request.urlopen(self._url, timeout=30) as response:
            body: bytes = response.read()
            return body

    def stop(self) -> None:
        self._web.stop()
        self._telemetry.shutdown(1.0)


def _groups(keys: int, *, newest: int) -> dict[str, list[DataPlaneGroupMeta]]:
    """Return *keys* keys in groups, spread evenly over the partitions and the newest versions."""
    by_partition: dict[str, list[DataPlaneGroupMeta]] = {f"p{index}": [] for index in range(PARTITIONS)}
    names: Iterator[str] = iter([*by_partition] * (keys // GROUP_KEYS // PARTITIONS + 1))
    for index in range(keys // GROUP_KEYS):
        partition = next(names)
        version = newest - (index // PARTITIONS) % VERSIONS
        group_id = f"v{version}-{index}"
        members = [f"{group_id}_g{member}" for member in range(GROUP_KEYS)]
        group = DataPlaneGroupMeta(
            partition, group_id, members, version, created_at=1.7e9, committed=True, size_bytes=4096
        )
        by_partition[partition].append(group)
    return by_partition


def _partitions() -> Partitions:
    settings = ByName({f"p{index}": Partition() for index in range(PARTITIONS)})  # each with a label of its own
    return Partitions(SystemClock(), settings=settings, max_partitions=100, max_versions=VERSIONS)


def _snapshot(groups: dict[str, list[DataPlaneGroupMeta]], partitions: Partitions | None = None) -> Snapshot:
    partitions = partitions or _partitions()
    listings = tuple(PartitionListing(name, members, 0.0, "recovery", GROUP_KEYS) for name, members in groups.items())
    partitions.take_in(MetadataPoll(tuple(groups), listings, (), None, 0.0, None), keep_s=60.0)
    return Snapshot(
        1.7e9,
        1.7e9 - 60,
        "found",
        True,
        True,
        partitions=partitions.states(),
        statuses=partitions.statuses(),
        flows=partitions.flows(),
        role_flows=partitions.role_flows(),
    )


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def _rss_mb() -> float:
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell a process's memory")


if __name__ == "__main__":
    sys.exit(main())
