"""What the training side writes while the controller starts, with answers of a scripted Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer

from dataplane.discovery import publish
from dataplane.discovery.record import Endpoint, Starting, decode_record
from dataplane.errors import DataPlaneNotReady, DataPlaneUnavailable
from exporter.clock import Clock
from exporter.config import Config
from exporter.discovery.file import FileDiscovery
from exporter.polling.poller import Poller
from tests.support.clock import StoppedClock
from tests.support.recording import RecordingRecorder
from tests.support.waiting import wait_until

SERVER = SimpleNamespace(id="TQ_CONTROLLER_a", to_addr=lambda socket: "tcp://10.0.0.1:5555")


class Conf(dict[str, Any]):
    """The controller's configuration."""

    backend = type("Backend", (dict,), {"storage_backend": "SimpleStorage"})()


class Ray:
    """A Ray whose controller behaves as told: each attribute is what the next question to it gives."""

    def __init__(self) -> None:
        self.found: object = SimpleNamespace(_actor_id=SimpleNamespace(hex=lambda: "ab"))
        self.answer: object = (SERVER, None)
        self.pending = False
        self.asked = 0

    def find_controller(self) -> object:
        return _give(self.found)

    def ask_controller(self, handle: object, timeout_s: float) -> object:
        self.asked += 1
        return _give(self.answer)

    def check_started(self, actor_id: str) -> None:
        if self.pending:
            raise DataPlaneNotReady("no CPU is free")


def _give(answer: object) -> object:
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    ray = Ray()
    for name in ("find_controller", "ask_controller", "check_started"):
        monkeypatch.setattr(publish, name, getattr(ray, name))
    monkeypatch.setattr("dataplane.discovery.record.metadata.version", lambda name: "1")
    return ray


@pytest.fixture
def publisher(ray: Ray, tmp_path: Path) -> Iterator[publish.EndpointPublisher]:
    with publish.publish_endpoint(tmp_path / "endpoint.json", interval_s=0.01, run="blue") as publisher:
        yield publisher


def written(path: Path, wanted: Callable[[Endpoint | Starting], bool]) -> Endpoint | Starting:
    """Return the record once it exists and meets the condition."""
    wait_until(lambda: path.exists() and wanted(decode_record(path.read_bytes())), "the record")
    return decode_record(path.read_bytes())


def test_a_controller_without_a_configuration_is_starting_then_found(
    ray: Ray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "endpoint.json"
    # Begun here: what its thread says between a fixture's end and the test's beginning is in no record of caplog.
    with publish.publish_endpoint(path, interval_s=0.01, run="blue"):
        record = written(path, lambda record: isinstance(record, Starting))
        assert isinstance(record, Starting)
        assert "has no configuration yet" in record.starting
        assert record.run == "blue"
        assert time.time() - (record.written_at or 0) < 60
        asked = ray.asked
        wait_until(lambda: ray.asked > asked + 3, "three more questions")
        ray.answer = (SERVER, Conf())
        record = written(path, lambda record: isinstance(record, Endpoint))
        assert isinstance(record, Endpoint)
        assert (record.address, record.run) == ("tcp://10.0.0.1:5555", "blue")
        wait_until(lambda: "is current again" in caplog.text, "the log line")
    assert sum("is not current" in record.getMessage() for record in caplog.records) == 1


def test_an_actor_that_waits_for_a_cpu_is_starting(ray: Ray, publisher: publish.EndpointPublisher) -> None:
    ray.answer = TimeoutError("no answer")
    ray.pending = True
    record = written(publisher.path, lambda record: isinstance(record, Starting))
    wait_until(lambda: decode_record(publisher.path.read_bytes()) != record, "another record")
    record = decode_record(publisher.path.read_bytes())
    assert isinstance(record, Starting)
    assert record.starting == "no CPU is free"


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (ValueError("no such actor"), None),
        (DataPlaneUnavailable("Ray is not connected"), None),
        (None, TimeoutError("a controller that hangs")),
    ],
)
def test_what_is_no_start_leaves_the_file_as_it_is(ray: Ray, tmp_path: Path, found: object, answer: object) -> None:
    ray.found, ray.answer = found or ray.found, answer
    theirs = tmp_path / "theirs.json"
    theirs.write_text("{}")
    with (
        publish.publish_endpoint(tmp_path / "none.json", interval_s=0.01),
        publish.publish_endpoint(theirs, interval_s=0.01),
    ):
        time.sleep(0.1)
        assert not (tmp_path / "none.json").exists()
        assert theirs.read_text() == "{}"


def test_the_record_of_a_start_is_removed_at_a_clean_end(ray: Ray, tmp_path: Path) -> None:
    with publish.publish_endpoint(tmp_path / "endpoint.json", interval_s=0.01) as publisher:
        written(publisher.path, lambda record: isinstance(record, Starting))
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_with_nothing_but_the_file_says_starting(publisher: publish.EndpointPublisher) -> None:
    written(publisher.path, lambda record: isinstance(record, Starting))
    clock: Clock = StoppedClock()
    poller = Poller(
        Config(),
        discovery=FileDiscovery(publisher.path),
        bind=lambda endpoint: pytest.fail("nothing to connect to"),
        recorder=RecordingRecorder(),
        tracer=NoOpTracer(),
        clock=clock,
    )
    snapshot = poller.poll_once()
    assert snapshot.discovery == "starting"
    assert [source.detail for source in snapshot.sources if source.source == "discovery"] != [""]
