"""What a scrape costs, and that it costs the same whatever the queue holds and however long the run lasts.

1. /metrics over HTTP, its snapshot made from 1,000 and from 100,000 keys in as many partitions with as many weight
   versions, in turns: the ratio of the p99s.
2. 10,000 weight versions go by: the number of series per partition stays the same, and so does the memory.

Exits with 1 when a bar is missed.

    python -m benchmarks.scrape
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from dataplane.groups import DataPlaneGroupMeta
from exporter.config import Config, Listen
from exporter.flow import FlowTracker
from exporter.occupancy import summarise
from exporter.snapshot import Snapshot
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
    parser.add_argument("--scrapes", type=int, default=1_000, help="scrapes of each kind (default %(default)s)")
    parser.add_argument("--versions", type=int, default=10_000, help="weight versions that go by (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures = {**measure_keys(*options.keys, options.scrapes), **measure_versions(options.versions)}
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


def measure_keys(few: int, many: int, scrapes: int) -> dict[str, float]:
    """Scrape two exporters in turns, so that whatever else the machine does falls on both."""
    names = ("few", "many")
    snapshots = [_snapshot(_groups(keys, newest=VERSIONS - 1)) for keys in (few, many)]
    sides = [_Served(snapshot) for snapshot in snapshots]
    took: dict[str, list[float]] = {name: [] for name in names}
    try:
        for round_ in range(scrapes + 20):
            for name, side in zip(names, sides, strict=True):
                started = time.perf_counter()
                side.scrape()
                if round_ >= 20:
                    took[name].append(time.perf_counter() - started)
        sizes = [len(side.scrape()) for side in sides]
    finally:
        for side in sides:
            side.stop()
    figures: dict[str, float] = {}
    for name, size in zip(names, sizes, strict=True):
        figures[f"{name}_keys_p50_ms"] = _percentile(took[name], 0.50) * 1e3
        figures[f"{name}_keys_p99_ms"] = _percentile(took[name], 0.99) * 1e3
        figures[f"{name}_keys_bytes"] = size
    figures["p50_ratio"] = figures["many_keys_p50_ms"] / figures["few_keys_p50_ms"]
    figures["p99_ratio"] = figures["many_keys_p99_ms"] / figures["few_keys_p99_ms"]
    return figures


def measure_versions(versions: int) -> dict[str, float]:
    """Let weight versions go by: with each, the oldest groups leave, new ones come, and both outputs are rendered."""
    flow = FlowTracker(max_partitions=100)
    current = [_snapshot({})]
    telemetry = Telemetry(Config(), lambda: current[0], environ={})
    series: set[int] = set()
    warm_mb = 0.0
    for version in range(VERSIONS + 4, VERSIONS + 4 + versions):
        current[0] = _snapshot(_groups(2_000, newest=version), flow)
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
        host, port = self._web.start()
        self._url = f"http://{host}:{port}/metrics"

    def scrape(self) -> bytes:
        with urllib.request.urlopen(self._url, timeout=30) as response:
            return response.read()

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


def _snapshot(groups: dict[str, list[DataPlaneGroupMeta]], flow: FlowTracker | None = None) -> Snapshot:
    flow = flow or FlowTracker(max_partitions=100)
    flow.begin_poll(groups, None, time=1.7e9, now=0.0)
    states = []
    for partition, members in groups.items():
        flow.observe(partition, members, time=1.7e9)
        states.append(
            summarise(
                partition,
                members,
                listed_at=1.7e9,
                reference=flow.reference(partition),
                first_seen=flow.first_seen(partition),
                max_versions=VERSIONS,
            )
        )
    flow.end_poll()
    return Snapshot(1.7e9, 1.7e9 - 60, "found", True, True, partitions=tuple(states), flows=flow.flows())


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
