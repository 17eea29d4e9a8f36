"""The recording over HTTP: any time of it, checked parameters, and a disk that hangs holds up nothing else."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.config import Listen
from exporter.model.recording import RecordingError
from exporter.model.snapshot import Snapshot
from exporter.recording.archive import Archive
from exporter.recording.player import Player
from exporter.web import WebServer, recorded
from exporter.web.recorded import Recorded, Replay
from tests.recording.support import close, record, recorder_of
from tests.support.simulated_run import SimulatedRun

Get = Callable[[str], tuple[int, str]]
BEGAN = 1_700_000_000


@contextmanager
def served(recording: Recorded | None = None, replay: Replay | None = None) -> Iterator[Get]:
    web = WebServer(
        Listen("127.0.0.1", 0),
        scrape=lambda accept, names: (b"up 1\n", "text/plain"),
        snapshot=lambda: Snapshot(0.0, 0.0, ready=True),
        alive=lambda: True,
        recorded=recording,
        replay=replay,
    )
    host, port = web.listen()
    web.start()

    def get(path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(host, port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    try:
        yield get
    finally:
        web.stop()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    run = SimulatedRun()
    path = tmp_path_factory.mktemp("recording") / "run.tqr"
    recorder = recorder_of(path, run)
    record(recorder, run, 400)
    run.starved = True
    record(recorder, run, 100)
    close(recorder)
    return Archive(path)


def test_any_time_can_be_asked_for(archive: Archive) -> None:
    with served(archive) as get:
        status, body = get(f"/api/v1/history?from={BEGAN + 100}&to={BEGAN + 200}")
        assert status == 200
        seen = json.loads(body)
        assert (seen["from"], seen["to"], len(seen["at"])) == (BEGAN + 100, BEGAN + 200, 11)
        assert len(json.loads(get("/api/v1/history")[1])["at"]) == 50


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=yesterday", "from must be a time in seconds since the epoch, such as 1700000000\n"),
        ("to=nan", "to must be a time"),
        ("to=-5", "to must be a time"),
        ("from=1e300", "from must be a time"),
        ("from=5&to=5", "from must be before to\n"),
    ],
)
def test_a_wrong_time_is_refused(archive: Archive, query: str, says: str) -> None:
    with served(archive) as get:
        status, body = get(f"/api/v1/history?{query}")
    assert status == 400
    assert body.startswith(says)


def test_without_a_recording_it_says_how_to_get_one() -> None:
    with served() as get:
        assert get("/api/v1/history") == (404, "this exporter keeps no recording; set history.file\n")


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with served(Archive(tmp_path / "none.tqr")) as get:
        status, body = get("/api/v1/history")
    assert status == 503
    assert "does not exist" in body


def test_a_disk_that_hangs_holds_up_no_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "ANSWER_S", 0.2)
    goes_on = threading.Event()
    asked = []

    class Hanging:
        def history(self, begin: float | None = None, end: float | None = None) -> bytes:
            asked.append(begin)
            goes_on.wait(60)
            raise RecordingError("it is back")

    with served(Hanging()) as get:
        for _ in range(6):  # more than there are answers at once
            assert get("/api/v1/history") == (503, "the recording does not answer\n")
        assert get("/metrics") == (200, "up 1\n")
        assert get("/api/v1/snapshot")[0] == 200
        assert len(asked) == 1  # one thread hangs, not one per request
        goes_on.set()


def test_a_replay_shows_the_run_as_it_was(archive: Archive) -> None:
    with served(replay=Player(archive)) as get:
        now = json.loads(get("/api/v1/snapshot")[1])
        assert now["recording"] == {"file": "run.tqr", "from": BEGAN, "to": BEGAN + 500, "at": BEGAN + 500}
        then = json.loads(get(f"/api/v1/snapshot?at={BEGAN + 200}")[1])
        assert BEGAN + 100 <= then["taken_at"] <= BEGAN + 200
        assert then["recording"]["at"] == BEGAN + 200
        conditions = json.loads(get("/api/v1/conditions")[1])
        assert (conditions["severity"], conditions["degraded"]) == ("critical", True)
        assert json.loads(get(f"/api/v1/conditions?at={BEGAN + 200}")[1])["severity"] == "ok"
        recent = json.loads(get(f"/api/v1/history/recent?at={BEGAN + 400}")[1])
        assert (recent["from"], recent["to"]) == (BEGAN + 100, BEGAN + 400)
        assert get("/")[0] == get("/docs/metrics")[0] == get("/healthz")[0] == 200
        for of_now in ("/metrics", "/sd"):
            assert get(of_now)[0] == 404
