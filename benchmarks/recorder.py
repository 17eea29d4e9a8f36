"""What the flight recorder costs: bytes per day, CPU time per snapshot, and resident memory at 10,000 keys.

The day is simulated: its snapshots go through the real recorder, on a clock of its own. For the memory two exporters
poll the same controller, a stand-in that lists 10,000 keys: one records, the other does not.

    python benchmarks/recorder.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from exporter.recording.archive import Archive
from exporter.recording.recorder import FlightRecorder
from tests.support.exporter_process import ExporterProcess
from tests.support.fake_router import FakeRouter, reply
from tests.support.simulated_run import SimulatedRun

KEYS = 10_000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--partitions", type=int, nargs="*", default=[1, 3, 20])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--watch", type=float, default=90.0, help="seconds for which the memory is watched; 0 skips it")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{'partitions':>10} {'size':>9} {'largest':>9} {'per snapshot':>13} {'per write':>10} {'read it all':>12}"
        )
        for partitions in options.partitions:
            print(_day(Path(folder) / f"{partitions}.tqr", partitions, options.hours), flush=True)
        if options.watch:
            _memory(Path(folder) / "memory.tqr", options.watch)
    return 0


def _day(path: Path, partitions: int, hours: float) -> str:
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
    costs = f"{noting / snapshots * 1e6:10.0f} µs {writing / snapshots * 2e6:7.0f} µs {reading * 1e3:9.0f} ms"
    return f"{partitions:>10} {path.stat().st_size / 1e6:6.1f} MB {largest / 1e6:6.1f} MB {costs}"


def _memory(path: Path, seconds: float) -> None:
    tags = {"group_id": "", "weight_version": 3, "committed": True, "expected_num_keys": 16, "created_at": 1.7e9}
    rows = {f"key-{index}": {**tags, "group_id": f"group-{index // 16}"} for index in range(KEYS)}
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
                time.sleep(10)
                recording.get("/api/v1/history")  # as the page does
            for name, exporter in (("without", without), ("recording", recording)):
                keys = exporter.scrape().value("dataplane_partition_keys", partition="train")
                memory = exporter.process.memory_info().rss / 1e6
                cpu = sum(exporter.process.cpu_times()[:2])
                print(
                    f"{name:>10}: {memory:.1f} MB resident, {cpu:.1f} s of CPU in {seconds:g} s, {keys or 0:.0f} keys"
                )
    finally:
        router.close()


if __name__ == "__main__":
    sys.exit(main())
