"""Questions about the configured tasks: exactly those, within the controller's budget, and beside the listings."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer

from dataplane.adapters.wire.protocol import Consumption
from dataplane.discovery.record import Endpoint
from dataplane.errors import DataPlaneError, DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.groups import DataPlaneGroupMeta
from exporter.config import Config, Partition
from exporter.model.results import Failed
from exporter.model.snapshot import Snapshot
from exporter.model.state import State
from exporter.model.tasks import PartitionSamples, TaskState
from exporter.polling.readers import Readers
from exporter.polling.sources import build_sources
from exporter.polling.sources.metadata import MetadataSource
from exporter.polling.tq_endpoint import TqMetricsReader
from tests.support.clock import StoppedClock
from tests.support.recording import RecordingRecorder


class Reader:
    """A controller with two partitions; a question about one can be made to fail or to take long."""

    def __init__(self) -> None:
        self.controller_seconds = 0.0
        self.cost = 0.001
        self.asked: list[tuple[str, str]] = []
        self.found: Consumption | None = Consumption(4, 1)
        self.failure: DataPlaneError | None = None

    def ping(self, timeout_s: float | None = None) -> float:
        return 0.0

    def list_partitions(self) -> list[str]:
        return ["a", "b"]

    def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
        self.controller_seconds += 0.001
        return [DataPlaneGroupMeta(partition_id, "g", ["k"], 1, committed=True)]

    def consumption(self, partition_id: str, task: str) -> Consumption | None:
        self.asked.append((partition_id, task))
        self.controller_seconds += self.cost
        if self.failure is not None:
            raise self.failure
        return self.found


class Fixture:
    def __init__(self, reader: Any, **tasks: tuple[str, ...]) -> None:
        self.clock = StoppedClock()
        self.recorder = RecordingRecorder()
        self.state = State(self.recorder, self.clock, max_partitions=100, max_versions=16)
        self.source = MetadataSource(reader, Config(), tracer=NoOpTracer(), clock=self.clock, tasks=tasks)

    def round(self) -> Snapshot:
        following = self.source.fold(self.source.poll(), self.state)
        self.state.health.schedule("metadata", following.interval_s)
        return self.state.snapshot()


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_only_configured_tasks_are_asked_for(reader: Reader) -> None:
    seen = Fixture(reader, a=("train", "ref"), gone=("x",)).round()
    assert reader.asked == [("a", "train"), ("a", "ref")]
    assert seen.samples == (PartitionSamples("a", 4, "ref", 3),)
    assert seen.tasks == (TaskState("a", "ref", 0.25), TaskState("a", "train", 0.25))
    assert len(seen.partitions) == 2


def test_nothing_is_asked_unless_it_is_configured(reader: Reader) -> None:
    assert Fixture(reader).round().samples == ()
    assert reader.asked == []


def test_a_share_of_nothing_is_unknown(reader: Reader) -> None:
    reader.found = Consumption(0, 0)
    seen = Fixture(reader, a=("train",)).round()
    assert seen.samples == (PartitionSamples("a", 0),)
    assert seen.tasks == (TaskState("a", "train", None),)


def test_a_partition_that_has_gone_meanwhile_has_no_samples(reader: Reader) -> None:
    reader.found = None
    assert Fixture(reader, a=("train",)).round().samples == ()


def test_a_question_that_fails_is_counted_and_hides_no_listing(reader: Reader) -> None:
    reader.failure = DataPlaneReadError("a pickle", operation="get_consumption")
    fixture = Fixture(reader, a=("train",))
    seen = fixture.round()
    assert [one.partition for one in seen.partitions] == ["a", "b"]
    assert seen.samples == ()
    assert fixture.recorder.errors == {("get_consumption", "DataPlaneReadError"): 1}
    assert "tasks of partition 'a': a pickle" in seen.incidents[0].detail


def test_a_question_that_is_not_answered_ends_the_round(reader: Reader) -> None:
    reader.failure = DataPlaneTimeout("silent", operation="get_consumption")
    seen = Fixture(reader, a=("train", "ref"), b=("train",)).round()
    assert [one.partition for one in seen.partitions] == ["a"]
    assert reader.asked == [("a", "train")]


def test_a_controller_that_is_gone_fails_the_round(reader: Reader) -> None:
    reader.failure = DataPlaneUnavailable("refused", operation="get_consumption")
    result = Fixture(reader, a=("train",)).source.poll()
    assert isinstance(result, Failed)
    assert (result.operation, result.error_type) == ("get_consumption", "DataPlaneUnavailable")


def test_the_answers_count_against_the_budget(reader: Reader) -> None:
    reader.cost, reader.found = 0.2, Consumption(100_000, 1)
    fixture = Fixture(reader, a=("train",))
    fixture.round()
    following = fixture.source.fold(fixture.source.poll(), fixture.state)
    assert following.interval_s == pytest.approx(0.202 / 0.01)


def test_a_question_that_stalls_the_controller_is_asked_rarely_and_its_answer_kept(reader: Reader) -> None:
    reader.cost, reader.found = 0.361, Consumption(100_000, 25_000)
    fixture = Fixture(reader, a=("train",))
    following = fixture.source.fold(fixture.source.poll(), fixture.state)
    assert following.interval_s == 10.0  # the listings do not wait
    fixture.state.health.schedule("metadata", following.interval_s)
    fixture.round()
    assert len(reader.asked) == 1
    fixture.clock.advance(290.0)
    assert fixture.round().samples == (PartitionSamples("a", 100_000, "train", 75_000),)
    assert len(reader.asked) == 1
    fixture.clock.advance(11.0)
    fixture.round()
    assert len(reader.asked) == 2


def test_answers_do_not_outlive_three_intervals(reader: Reader) -> None:
    fixture = Fixture(reader, a=("train",))
    assert fixture.round().samples
    fixture.clock.advance(31.0)
    assert fixture.state.snapshot().samples == ()


def test_a_reader_that_cannot_ask_is_not_asked() -> None:
    class Public:
        list_partitions = Reader.list_partitions
        list_metadata = Reader.list_metadata
        controller_seconds = 0.0

    assert len(Fixture(Public(), a=("train",)).round().partitions) == 2


@pytest.mark.parametrize("on", [False, True])
def test_where_transferqueues_metrics_are_on_nothing_is_asked(reader: Reader, on: bool) -> None:
    own = TqMetricsReader("127.0.0.1:1", timeout_s=1.0) if on else None
    readers = Readers(reader, reader, tq_metrics=own)  # type: ignore[arg-type]
    config = Config(partitions={"a": Partition(tasks=("train",))})
    sources = {one.name: one for one in build_sources(readers, config, tracer=NoOpTracer(), clock=StoppedClock())}
    assert ("tq_metrics" in sources) == on
    sources["metadata"].poll()
    assert reader.asked == ([] if on else [("a", "train")])


def test_metrics_that_appear_later_are_another_target() -> None:
    from exporter.polling.sources.target import Target

    before = Endpoint("tcp://127.0.0.1:1", "c")
    target = Target(before, None, ())  # type: ignore[arg-type]
    assert target.is_at(before)
    assert not target.is_at(Endpoint("tcp://127.0.0.1:1", "c", metrics_endpoint="127.0.0.1:2"))
