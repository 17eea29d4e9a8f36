"""What the span of a poll says, and which polls are notable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dataplane.errors import DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from tests.unit.test_poller import Fixture


class Traced(Fixture):
    """A poller whose spans are kept."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        super().__init__(tracer=provider.get_tracer("test"))

    def polls(self) -> dict[str, Mapping[str, object]]:
        """Return the attributes of the last poll of each source since the last call."""
        spans: tuple[ReadableSpan, ...] = self.exporter.get_finished_spans()
        self.exporter.clear()
        roots = [dict(span.attributes or {}) for span in spans if span.name == "tq_exporter.poll"]
        return {str(root.pop("tq_exporter.source")): root for root in roots}

    def notable(self) -> dict[str, object]:
        return {
            source: poll["tq_exporter.notable"]
            for source, poll in self.polls().items()
            if "tq_exporter.notable" in poll
        }


@pytest.fixture
def at() -> Iterator[Traced]:
    fixture = Traced()
    fixture.poller.start(loop=False)
    fixture.find()
    yield fixture
    assert fixture.poller.stop(10.0)


def settled(at: Traced) -> None:
    """Let everything be polled until nothing changes any more."""
    at.step(40.0)
    at.polls()


def test_a_poll_says_what_it_found_and_what_it_cost(at: Traced) -> None:
    at.reader.partitions = {"train": 3, "val": 1}
    settled(at)
    at.reader.partitions = {"train": 5, "val": 0}
    at.step(10.0)
    polls = at.polls()
    assert polls["metadata"] == {
        "tq_exporter.discovery": "found",
        "tq_exporter.partitions": 2,
        "tq_exporter.keys": 5,
        "tq_exporter.groups.changed": 3 + 2,  # two arrived and were complete at once, one departed
        "tq_exporter.controller_seconds": pytest.approx(0.002),
    }
    assert polls["ping"] == {"tq_exporter.discovery": "found", "tq_exporter.controller_seconds": 0.001}
    at.step(15.0)
    assert at.polls()["storage"] == {
        "tq_exporter.discovery": "found",
        "tq_exporter.storage_units": 1,
        "tq_exporter.keys": 7,
    }


def test_the_first_polls_are_notable_and_the_next_ones_are_not(at: Traced) -> None:
    at.step()
    assert at.notable().keys() == {"discovery", "ping", "metadata", "storage"}
    settled(at)
    at.step(60.0)
    assert at.notable() == {}


def test_a_failure_its_end_and_a_new_controller_are_notable(at: Traced) -> None:
    settled(at)
    at.reader.failure = DataPlaneUnavailable("gone")
    at.step(5.0)
    assert at.notable()["ping"] == "failed"
    at.reader.failure = None
    at.step(30.0)
    at.polls()
    at.step(60.0)
    assert at.notable() == {}
    at.find("actor-2")
    at.look()
    at.step(1.0)
    assert at.notable().keys() == {"discovery", "ping", "metadata", "storage"}


def test_the_first_polls_after_a_recovery_are_notable(at: Traced) -> None:
    settled(at)
    at.reader.failure = DataPlaneUnavailable("gone")
    at.step(5.0)
    at.reader.failure = None
    at.polls()
    seen: dict[str, object] = {}
    for _ in range(30):
        at.step(1.0)
        seen |= at.notable()
    assert (seen["ping"], seen["metadata"]) == ("changed", "changed")


def test_a_poll_that_failed_in_part_is_notable(at: Traced) -> None:
    at.reader.partitions = {"train": 3, "val": 1}
    settled(at)
    at.reader.list_failure["val"] = DataPlaneReadError("a pickle")
    at.storage.failure = DataPlaneTimeout("no answer")
    at.step(15.0)
    assert at.notable() == {"metadata": "failed", "storage": "failed"}


def test_a_slow_poll_is_notable(at: Traced) -> None:
    settled(at)
    ping = at.reader.ping

    def slowly(timeout_s: float | None = None) -> float:
        at.clock.advance(0.3)
        return ping(timeout_s)

    at.reader.ping = slowly  # type: ignore[method-assign]
    at.step(5.0)
    assert at.notable() == {"ping": "slow"}
