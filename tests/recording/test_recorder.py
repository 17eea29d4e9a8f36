"""The recorder: it goes on after a restart, and whatever the disk does, nobody who records waits for it."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from exporter.model.samples import PLANE_STATES
from exporter.recording import recorder as module
from exporter.recording.archive import UNRECORDED, Archive
from exporter.recording.recorder import MAX_EVENTS, MAX_FRAMES
from exporter.recording.store import Store
from tests.recording.support import close, kill, record, recorder_of
from tests.support.exporter_process import ExporterProcess
from tests.support.simulated_run import SimulatedRun
from tests.support.small_disk import small_disk
from tests.support.waiting import wait_until


def history(path: Path, begin: float | None = None, end: float | None = None) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(Archive(path).history(begin, end))
    return decoded


def test_a_run_is_recorded_with_its_events(tmp_path: Path) -> None:
    run, path = SimulatedRun(), tmp_path / "run.tqr"
    recorder = recorder_of(path, run)
    began = run.clock.time()
    record(recorder, run, 200)
    run.starved = True
    record(recorder, run, 100)
    run.starved, run.outage = False, True
    record(recorder, run, 60)
    run.outage = False
    record(recorder, run, 60)
    run.version = 1
    record(recorder, run, 20)
    recorder.record_departures([{"group_id": "g7", "at": began + 50, "state": "failed", "lag": 9, "why": None}])
    close(recorder)
    seen = history(path)
    assert [one["state"] for one in seen["spans"]] == ["found", "degraded", "silent", "found"]
    assert [round(one["from"] - began) for one in seen["spans"]] == [0, 200, 300, 360]
    told = {(one["kind"], one["name"]): one for one in seen["events"]}
    starved = told["condition", "DataPlaneTrainerStarved"]
    assert (starved["at"] - began, starved["until"] - began) == (200, 300)
    assert starved["detail"]["evidence"] == {"ready": 0, "quiet_seconds": 700.0}
    assert starved["detail"]["groups"] == ["g17"]
    failed = told["incident", "ping"]
    assert (failed["count"], failed["severity"], failed["detail"]["reason"]) == (
        12,
        "DataPlaneTimeout",
        "no answer in 4 s",
    )
    assert told["version", "1"]["detail"] == {"before": 4}  # it stepped back
    assert told["departure", "g7"]["detail"] == {"lag": 9}
    assert told["controller", "TQ_CONTROLLER_1"]["detail"]["versions"] == {"transfer_queue": "0.1.11"}
    assert told["exporter", "0.1.0"]["detail"] == {
        "version": "0.1.0",
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "run": "grpo-7b",
    }
    assert not any(one["cut"] for one in seen["events"])


def test_a_restart_continues_the_run_and_the_gap_is_unknown(tmp_path: Path) -> None:
    run, path = SimulatedRun(), tmp_path / "run.tqr"
    recorder = recorder_of(path, run)
    record(recorder, run, 100)
    kill(recorder)
    run.clock.advance(300)
    again = recorder_of(path, run, version="0.2.0")
    record(again, run, 100)
    close(again)
    seen = history(path)
    at = seen["state"].index(UNRECORDED)
    assert 0 < at < len(seen["at"]) - 1
    assert all(seen["trained"][name][at] is None for name in seen["trained"])
    assert seen["ping"][at] is None
    assert seen["total"]["ready"][at - 1] is not None
    assert seen["total"]["ready"][at + 1] is not None
    first, second = seen["spans"]
    assert second["from"] - first["to"] > 290
    lives = [(one["name"], one["cut"]) for one in seen["events"] if one["kind"] == "exporter"]
    assert lives == [("0.1.0", True), ("0.2.0", False)]
    assert again.state.since == seen["from"]


def test_points_are_bounded_and_an_old_time_can_be_looked_at_closely(tmp_path: Path) -> None:
    run, path = SimulatedRun(), tmp_path / "run.tqr"
    recorder = recorder_of(path, run)
    for snapshot in run.run(12_000, 10.0):
        recorder.observe(snapshot)
        if len(recorder._frames) > 300:
            recorder.flush()
    close(recorder)
    seen = history(path)
    assert 300 <= len(seen["at"]) <= 601
    assert seen["interval"] == 20
    middle = (seen["from"] + seen["to"]) / 2
    close_up = history(path, middle, middle + 600)
    assert (close_up["interval"], len(close_up["at"])) == (10, 61)
    assert history(path, 0, 1000)["at"] == []


def test_a_full_disk_costs_nothing_but_what_it_cannot_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = SimulatedRun()
    with small_disk(tmp_path / "disk", 2**20) as disk:
        recorder = recorder_of(disk.path / "run.tqr", run)
        record(recorder, run, 60)
        disk.fill()
        run.starved = True
        record(recorder, run, 3600)
        assert recorder.state.up is False
        assert "full" in recorder.state.detail or "disk" in recorder.state.detail
        warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
        assert len(warnings) == 1, [one.getMessage() for one in warnings]
        run.starved = False
        disk.free()
        record(recorder, run, 60)
        assert recorder.state.detail == ""
        assert "again" in caplog.text
        close(recorder)
        archive = Archive(disk.path / "run.tqr")
        assert [one.name for one in archive.events(0, 1e11, "condition")] == ["DataPlaneTrainerStarved"]
        missing = recorder.state.dropped
        assert len(archive.frames(0, 1e11)) == (60 + 3600 + 60) // 10 - missing
        assert missing <= 12


@pytest.mark.parametrize("where", ["__init__", "write", "tidy", "size"])
def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    whole = getattr(Store, where)
    original: Any = whole.fget if isinstance(whole, property) else whole

    def hang(*given: Any) -> Any:
        hangs.set()
        assert goes_on.wait(60)
        return original(*given)

    monkeypatch.setattr(Store, where, property(hang) if isinstance(whole, property) else hang)
    run = SimulatedRun()
    recorder = recorder_of(tmp_path / "run.tqr", run)
    recorder.observe(run.snapshot())
    recorder.start()
    try:
        assert hangs.wait(60)
        for snapshot in run.run(5000, 5.0):  # it would hang here
            seen = recorder.observe(snapshot)
        recorder.record_departures({"group_id": str(index)} for index in range(2 * MAX_EVENTS))
        assert len(recorder._frames) == MAX_FRAMES
        assert len(recorder._events) == MAX_EVENTS
        assert recorder.state.dropped > MAX_EVENTS
        assert seen.recorder is not None
        recorder.stop(0.05)
    finally:
        goes_on.set()
    wait_until(lambda: not recorder._thread.is_alive(), "the recorder ends")
    assert len(Archive(tmp_path / "run.tqr").frames(0, 1e11)) >= MAX_FRAMES


def test_a_damaged_file_is_said_once_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.tqr"
    path.write_bytes(b"SQLite format 3\0" + os.urandom(9000))
    before = path.read_bytes()
    run = SimulatedRun()
    recorder = recorder_of(path, run)
    recorder.observe(run.snapshot())
    assert recorder.flush() is None  # not tried again
    assert recorder.state.up is False
    assert len(caplog.records) == 1
    assert str(path) in caplog.text
    for snapshot in run.run(5000, 5.0):
        recorder.observe(snapshot)
    assert not recorder._frames
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", ["encode_snapshot", "reduce"])
def test_a_bug_of_ours_ends_the_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(module, where, lambda *given: 1 // 0)
    run = SimulatedRun()
    recorder = recorder_of(tmp_path / "run.tqr", run)
    recorder.observe(run.snapshot())
    recorder.flush()
    assert "ZeroDivisionError" in recorder.state.detail
    seen = recorder.observe(run.snapshot())
    assert seen.recorder is not None
    assert seen.recorder.up is not True
    assert caplog.text.count("failed unexpectedly") == 1
    close(recorder)


def test_a_file_that_is_removed_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, path = SimulatedRun(), tmp_path / "run.tqr"
    recorder = recorder_of(path, run)
    run.starved = True
    record(recorder, run, 50)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    record(recorder, run, 50)
    assert "is gone or was replaced" in caplog.text
    close(recorder)
    seen = history(path)
    assert 4 <= len(seen["at"]) <= 5
    assert {one["kind"] for one in seen["events"]} >= {"condition", "exporter", "controller"}  # what lasted is there


def test_the_states_of_a_recording_are_those_of_the_exporter() -> None:
    # A frame has the index: a new state goes to the end.
    assert PLANE_STATES == ("never_found", "starting", "unreachable", "found", "lost", "ended", "silent")


def test_a_killed_exporter_leaves_a_file_that_the_next_one_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "run.tqr"
    arguments = ("--controller", "tcp://127.0.0.1:1", "--history-file", str(path), "--ping-interval", "1s")
    first = ExporterProcess(*arguments)
    try:
        wait_until(lambda: first.scrape().value("tq_exporter_recorder_up") == 1, "the first exporter records")
        assert (first.scrape().value("tq_exporter_recorder_size_bytes") or 0) > 0
        second = ExporterProcess(*arguments)
        try:
            pid = first.process.pid
            refused = f"is being written by process {pid} on "
            wait_until(lambda: refused in second.log, "the second exporter is refused")
            wait_until(lambda: second.scrape().value("tq_exporter_recorder_up") == 0, "it says so")
            assert second.log.count("recording failed and will be retried") == 1
            first.process.send_signal(signal.SIGKILL)
            wait_until(lambda: second.scrape().value("tq_exporter_recorder_up") == 1, "the second takes over")
            status, body = second.get("/api/v1/history")
            assert status == 200
            lives = [one for one in json.loads(body)["events"] if one["kind"] == "exporter"]
            assert (lives[0]["detail"]["pid"], lives[0]["cut"]) == (pid, True)
            assert second.stop() == 0
            assert "the run: watched for" in second.log
        finally:
            second.close()
    finally:
        first.close()
    assert len(Archive(path).summaries()) >= 1
