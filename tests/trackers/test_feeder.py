"""Feeding a tracker that is well, slow, broken or gone, with a toy in a real process."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter.clock import SystemClock
from exporter.model.snapshot import Snapshot
from exporter.trackers import feeder as module
from exporter.trackers.base import Order, Point
from exporter.trackers.feeder import Feeder, Trackers
from exporter.trackers.process import TrackerProcess
from tests.support.clock import StoppedClock
from tests.support.snapshots import empty_snapshot, rich_snapshot
from tests.support.waiting import wait_until
from tests.trackers import toy

POINT = Point(1.0, 3, {"tq/train/ready": 2.0}, {})


class Fed:
    """A feeder whose snapshot the test sets."""

    def __init__(self, process: TrackerProcess) -> None:
        self.process = process
        self.clock = StoppedClock()
        self.snapshot: Snapshot = rich_snapshot()
        self.counted: Counter[str] = Counter()
        self.feeder = Feeder("toy", process, lambda: self.snapshot, self._count, interval_s=30.0, clock=self.clock)

    def _count(self, tracker: str, outcome: str) -> None:
        assert tracker == "toy"
        self.counted[outcome] += 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "points"


@pytest.fixture
def fed(request: pytest.FixtureRequest, file: Path) -> Iterator[Fed]:
    fed = Fed(toy.process(file, getattr(request, "param", None)))
    yield fed
    fed.process.close(5.0)


def _lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_point_has_the_version_and_the_figures(fed: Fed, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fed.feeder.feed()
    fed.feeder.feed()
    fed.feeder.stop(5.0)
    first, _, last = _lines(file)
    assert first[0] == fed.snapshot.reference_version
    assert first[1]["tq/up"] == 1
    assert last == ["closed", None]
    assert fed.counted == {"ok": 2}
    assert [record.message for record in caplog.records] == ["toy gets the figures"]


@pytest.mark.parametrize("fed", ["raises"], indirect=True)
def test_a_failing_tracker_is_logged_once_and_counted_always(fed: Fed, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        fed.feeder.feed()
    assert fed.counted == {"failed": 3}
    assert [record.message for record in caplog.records] == [
        "toy gets no figures; polling continues: ValueError: not this one"
    ]


@pytest.mark.parametrize("fed", ["start"], indirect=True)
def test_a_tracker_that_cannot_start_is_tried_again_after_a_minute(fed: Fed, caplog: pytest.LogCaptureFixture) -> None:
    fed.feeder.feed()
    assert fed.process.pid is None
    fed.clock.advance(59)
    fed.feeder.feed()
    assert fed.counted == {"failed": 1, "dropped": 1}
    fed.clock.advance(2)
    fed.feeder.feed()
    assert fed.counted == {"failed": 2, "dropped": 1}
    assert [record.message for record in caplog.records] == [
        "toy gets no figures; polling continues: no such project; make it first"
    ]


@pytest.mark.parametrize("fed", ["dies"], indirect=True)
def test_a_tracker_that_ends_its_process_ends_no_other(fed: Fed, caplog: pytest.LogCaptureFixture) -> None:
    fed.feeder.feed()
    assert fed.counted == {"failed": 1}
    assert "its process has ended with 7" in caplog.text


@pytest.mark.parametrize("fed", ["hangs"], indirect=True)
def test_a_tracker_that_hangs_is_killed(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_TIMEOUT_S", 0.2)
    fed.feeder.feed()
    assert fed.counted == {"failed": 1}
    assert fed.process.pid is None


@pytest.mark.parametrize("fed", ["noise"], indirect=True)
def test_what_a_library_prints_is_no_answer(fed: Fed) -> None:
    fed.feeder.feed()
    assert fed.counted == {"ok": 1}


def test_an_end_that_hangs_leaves_no_process(file: Path) -> None:
    process = toy.process(file, "service")
    assert process.start(30.0).error is None
    pid = process.pid
    assert pid is not None
    ((_, service),) = _lines(file)
    assert not process.close(0.2)
    wait_until(lambda: not psutil.pid_exists(service), "the end of the service", 10.0)
    assert not psutil.pid_exists(pid)


def test_the_exporter_does_not_end_before_its_trackers(file: Path) -> None:
    made: list[TrackerProcess] = []

    def make(_order: Order) -> TrackerProcess:
        made.append(toy.process(file, "service"))
        return made[0]

    snapshot = replace(rich_snapshot(), ready=True)
    trackers = Trackers(
        [Order("toy", {})], lambda: snapshot, lambda *_: None, interval_s=1.0, clock=SystemClock(), process=make
    )
    trackers.start()
    wait_until(lambda: file.exists() and len(_lines(file)) > 1, "a point", 30.0)
    pids = [made[0].pid, _lines(file)[0][1]]
    trackers.stop(0.2)
    trackers.join()
    assert not [pid for pid in pids if pid is None or _runs(pid)]


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_the_process_ends_when_the_exporter_is_killed(file: Path, tmp_path: Path) -> None:
    """Its input ends then. The exporter here is a child that starts the toy and kills itself."""
    code = (
        "import os, pathlib, signal, sys; from tests.trackers import toy;"
        f"process = toy.process(pathlib.Path({str(file)!r})); process.start(30.0);"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(process.pid)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert os.spawnv(os.P_WAIT, os.sys.executable, [os.sys.executable, "-c", code]) == -signal.SIGKILL  # type: ignore[attr-defined]
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not psutil.pid_exists(pid), "the end of the tracker's process", 10.0)
    assert _lines(file) == [["closed", None]]


def test_a_stopped_process_does_not_hold_a_writer_up(file: Path) -> None:
    process = toy.process(file)
    assert process.start(30.0).error is None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    large = Point(1.0, 3, {f"tq/{number}/ready": 1.0 for number in range(20_000)}, {})
    outcome = process.log(large, 0.3)
    assert outcome.error == "it did not answer within 0.3 s; its process was killed"


def test_a_program_that_is_missing_is_one_line() -> None:
    process = TrackerProcess(Order("toy", {}), ("/does/not/exist",))
    assert process.start(1.0).error == "cannot start its process: No such file or directory"


def test_a_point_is_made_per_version_and_interval_and_only_of_new_snapshots(file: Path) -> None:
    """The thread itself: it looks twice a second, and an old snapshot is no news."""
    fed = Fed(toy.process(file))
    fed.snapshot = replace(empty_snapshot(), ready=False)
    logged = threading.Event()
    seen: list[int | None] = []

    def feed() -> None:
        seen.append(fed.snapshot.reference_version)
        logged.set()

    fed.feeder = Feeder("toy", fed.process, lambda: fed.snapshot, fed._count, interval_s=3600.0, clock=SystemClock())
    fed.feeder.feed = feed  # type: ignore[method-assign]
    fed.feeder.start()
    for version in (5, 6):
        fed.snapshot = replace(rich_snapshot(), ready=True, reference_version=version, taken_at=float(version))
        assert logged.wait(20.0)
        logged.clear()
    fed.feeder.stop(1.0)
    assert seen == [5, 6]
    assert not fed.counted
