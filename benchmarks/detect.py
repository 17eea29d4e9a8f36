"""How long it takes until a fault or a change shows in ``/metrics``, and how that compares with the poll interval.

The controller is a process that answers with rows that it was given. Each fault comes at a random moment between two
polls. A perfect poller would show a change after half an interval in the middle, and after one interval at worst; a
silent controller cannot be distinguished from a slow one before its deadline, so that is added. When alerts
fire is another matter: see docs/dashboards.md.

    python -m benchmarks.detect
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.replay import Replay
from benchmarks.rows import Queue
from benchmarks.runner import Benchmark, Column, Report
from dataplane.discovery.record import Endpoint, encode_endpoint
from tests.support.exporter_process import ExporterProcess, Exposition
from tests.support.fake_router import CONTROLLER_ID

_COLUMNS = (
    *(
        Column("what", "what", width=18),
        Column("shows", "shows in", width=24),
        Column("floor_s", "at most expected, s", ".1f"),
    ),
    *(Column("median_s", "median, s", ".2f"), Column("longest_s", "longest, s", ".2f")),
    Column("ratio", "longest/expected", ".2f"),
)
_KEYS = 1_600


class Watched:
    """An exporter, and the controller that its discovery file names at present."""

    def __init__(self, folder: Path, interval_s: float) -> None:
        self._file = folder / "endpoint.json"
        self._number = 0
        self._queue = Queue(_KEYS, 16, "recovery")
        self.controller = self._start()
        every = f"{interval_s * 1000:.0f}ms"
        flags = ("--ping-interval", every, "--metadata-interval", every, "--discovery-file", str(self._file))
        self.exporter = ExporterProcess(*flags, env={"TQ_EXPORTER_PING_TIMEOUT": every})
        self.wait(lambda seen: seen.value("dataplane_partition_keys", partition="train") == _KEYS)

    def close(self) -> None:
        """Stop both."""
        self.exporter.close()
        self.controller.kill()

    def wait(self, shown: Callable[[Exposition], bool]) -> float:
        """Return after how many seconds it is shown."""
        started = time.monotonic()
        self.exporter.wait_for(shown, "what was done to the controller", 120.0)
        return time.monotonic() - started

    def add_keys(self) -> float:
        """Put one more partition."""
        self._number += 1
        name = f"new_{chr(96 + self._number)}"
        self.controller.list(name, self._queue.rows())
        return self.wait(lambda seen: bool(seen.samples("dataplane_partition_keys", partition=name)))

    def freeze(self) -> float:
        """Stop the controller, and let it continue once that was seen."""
        os.kill(self.controller.pid, signal.SIGSTOP)
        took = self.wait(lambda seen: seen.value("dataplane_up") == 0)
        os.kill(self.controller.pid, signal.SIGCONT)
        self.wait(lambda seen: seen.value("dataplane_up") == 1)
        return took

    def kill(self) -> float:
        """Kill the controller."""
        self.controller.kill()
        return self.wait(lambda seen: seen.value("dataplane_up") == 0)

    def replace(self) -> float:
        """Let a new controller take the place of the one that was killed."""
        self.controller = self._start()
        return self.wait(lambda seen: seen.value("dataplane_up") == 1)

    def _start(self) -> Replay:
        self._number += 1
        replay = Replay()
        replay.list("train", self._queue.rows())
        endpoint = Endpoint(replay.address, controller_id=CONTROLLER_ID, actor_id=f"{self._number:08x}")
        partial = self._file.with_suffix(".part")
        partial.write_bytes(encode_endpoint(endpoint))
        os.replace(partial, self._file)
        return replay


def measure(report: Report, options: argparse.Namespace) -> None:
    """Provoke each fault several times."""
    interval_s = options.interval
    title = f"Time until /metrics shows it; intervals and ping timeout {interval_s:g} s"
    table = report.table("detect", title, _COLUMNS)
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(Path(folder), interval_s)
        try:
            for what, shows, act, deadlines in (
                ("a new partition", "dataplane_partition_keys", watched.add_keys, 0),
                ("controller frozen", "dataplane_up 0", watched.freeze, 1),
                ("controller killed", "dataplane_up 0", watched.kill, 0),
                ("a new controller", "dataplane_up 1", watched.replace, 0),
            ):
                took = []
                for number in range(options.times):
                    if act == watched.kill and number:
                        watched.replace()
                    if act == watched.replace and number:
                        watched.kill()
                    time.sleep(chance.uniform(0.0, interval_s))
                    took.append(act())
                floor_s = interval_s * (1 + deadlines)
                table.row(
                    what=what,
                    shows=shows,
                    floor_s=floor_s,
                    median_s=statistics.median(took),
                    longest_s=max(took),
                    ratio=max(took) / floor_s,
                )
        finally:
            watched.close()


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--interval", type=float, default=2.0, help="both intervals in seconds (default %(default)s)")
    parser.add_argument("--times", type=int, default=4, help="how often each is done (default %(default)s)")


BENCHMARK = Benchmark("detect", __doc__, measure, "--interval 0.5 --times 1", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
