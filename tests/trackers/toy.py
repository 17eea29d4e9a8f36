"""A tracker for tests: it appends each point to a file, and its settings say how it misbehaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from exporter.trackers.base import Order, Point, Tracker, TrackerError
from exporter.trackers.process import TrackerProcess

__all__ = ["process"]

_MAIN = "from tests.trackers import toy; toy.main()"


class ToyTracker(Tracker):
    """Writes ``step`` and ``scalars`` of each point as a line."""

    def __init__(self, file: str, fault: str | None = None) -> None:
        self._file = Path(file)
        self._fault = fault

    def start(self) -> None:
        if self._fault == "start":
            raise TrackerError("no such project; make it first")
        if self._fault == "noise":
            print("a library prints")
        if self._fault == "service":  # as wandb: a process in a session of its own, and an end that hangs
            service = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            self._write("service", service.pid)

    def log(self, point: Point) -> None:
        if self._fault == "raises":
            raise ValueError("not\nthis one")
        if self._fault == "dies":
            os._exit(7)
        if self._fault == "hangs":
            time.sleep(600)
        self._write(point.step, dict(point.scalars))

    def close(self) -> None:
        if self._fault == "service":
            time.sleep(600)
        self._write("closed", None)

    def _write(self, *what: object) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(what) + "\n")


def process(file: Path, fault: str | None = None) -> TrackerProcess:
    """Return a toy's process, not started yet."""
    return TrackerProcess(Order("toy", {"file": str(file), "fault": fault}), (sys.executable, "-c", _MAIN))


def main() -> None:
    from exporter.trackers import child

    child.main(lambda order: ToyTracker(**order.settings))  # type: ignore[arg-type]
