"""What the flight recorder costs: bytes per day, CPU time per snapshot, and resident memory at 10,000 keys.

The day is simulated: its snapshots go through the real recorder, on a clock of its own. For the memory two exporters
poll the same controller, a stand-in that lists 10,000 keys: one records, the other does not.

    python -m benchmarks.recorder
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.runner import Benchmark, Column, Report
from exporter.recording.archive import Archive
from exporter.recording.recorder import FlightRecorder
from tests.support.exporter_process import ExporterProcess
from tests.support.fake_router import FakeRouter, reply
from tests.support.simulated_run import SimulatedRun

_KEYS = 10_000
_MAX_MB_PER_DAY = 20.0
_MAX_RSS_MB = 60.0
_DAY = (
    *(Column("partitions", "partitions", "d"), Column("hours", "hours", "g"), Column("size_mb", "size, MB", ".1f")),
    *(Column("largest_mb", "largest, MB", ".1f"), Column("snapshot_us", "per snapshot, us", ".0f")),
    *(Column("write_us", "per write, us", ".0f"), Column("read_ms", "read it all, ms", ".0f")),
)
_MEMORY = (
    *(Column("what", "exporter", width=10), Column("keys", "keys", ",d"), Column("rss_mb", "RSS, MB", ".1f")),
    *(Column("seconds", "seconds", ".0f"), Column("cpu_s", "CPU, s", ".2f")),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Record simulated days, then watch the memory of an exporter that records and of one that does not."""
    with tempfile.TemporaryDirectory() as folder:
        days = report.table("recorder_day", "A recorded run, a snapshot every 5 s", _DAY)
        for partitions in options.partitions:
            figures = _day(Path(folder) / f"{partitions}.tqr", partitions, options.hours)
            days.row(partitions=partitions, hours=options.hours, **figures)
            if (partitions, options.hours) == (3, 24):
                report.bar("a recorded day at 3 partitions, MB", figures["size_mb"], _MAX_MB_PER_DAY)
        memory = report.table("recorder_memory", "Two exporters with the same controller", _MEMORY)
        for what, figures in _memory(Path(folder) / "memory.tqr", options.watch).items():
            memory.row(what=what, seconds=options.watch, **figures)
        report.bar(f"RSS at {_KEYS:,} keys with the recorder, MB", figures["rss_mb"], _MAX_RSS_MB)


def _day(path: Path, partitions: int, hours: float) -> dict[str, float]:
    run = SimulatedRun(partitions=partitions)
    recorder = FlightRecorder(path, 64 * 2**20, window=4.0, clock=run.clock)
    noting = writing = 0.0
    snapshots = largest = 0
    for snapshot in run.run(hours * 3600, 5.0):
        begun = time.process_time()
        recorder.observe(snapshot)
        noting += time.process_time() - begun
        snapshots += 1
        if snapshots % 2 == 0:  # as its thread does every ten seconds
            begun = time.process_time()
            recorder.flush()
            writing += time.process_time() - begun
            largest = max(largest, recorder.state.size_bytes or 0)
    recorder.stop(1.0)
    recorder.flush()
    begun = time.process_time()
    Archive(path).history()
    reading = time.process_time() - begun
    return {
        "size_mb": path.stat().st_size / 1e6,
        "largest_mb": largest / 1e6,
        "snapshot_us": noting / snapshots * 1e6,
        "write_us": writing / snapshots * 2e6,
        "read_ms": reading * 1e3,
    }


def _memory(path: Path, seconds: float) -> dict[str, dict[str, float]]:
    tags = {"group_id": "", "weight_version": 3, "committed": True, "expected_num_keys": 16, "created_at": 1.7e9}
    rows = {f"key-{index}": {**tags, "group_id": f"group-{index // 16}"} for index in range(_KEYS)}
    body = {"partition_info": {"train": rows}, "message": ""}

    def answer(request: dict[str, Any]) -> list[bytes]:
        if request["request_type"] == "KV_LIST":
            return reply("KV_LIST_RESPONSE", body)
        return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["train"]})

    router = FakeRouter(answer)
    try:
        with (
            ExporterProcess("--controller", router.address) as without,
            ExporterProcess("--controller", router.address, "--history-file", str(path)) as recording,
        ):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(min(seconds, 10))
                recording.get("/api/v1/history")  # as the page does
            return {name: _used(one) for name, one in (("without", without), ("recording", recording))}
    finally:
        router.close()


def _used(exporter: ExporterProcess) -> dict[str, float]:
    keys = exporter.scrape().value("dataplane_partition_keys", partition="train")
    memory = exporter.process.memory_info().rss / 1e6
    return {"keys": int(keys or 0), "rss_mb": memory, "cpu_s": sum(exporter.process.cpu_times()[:2])}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 3, 20])
    parser.add_argument("--hours", type=float, default=24.0, help="length of the run (default %(default)g)")
    parser.add_argument("--watch", type=float, default=90.0, help="seconds of the memory (default %(default)g)")


BENCHMARK = Benchmark("recorder", __doc__, measure, "--partitions 3 --hours 1 --watch 2", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
