"""Each source on its own: its results, its calls, its spans."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.adapters.wire.storage import StorageUnitMetrics
from dataplane.discovery.record import Endpoint, StorageUnitEndpoint
from dataplane.errors import DataPlaneReadError, DataPlaneUnavailable
from dataplane.groups import DataPlaneGroupMeta
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION
from exporter.config import Config
from exporter.model.results import Absent, Failed, Found, Ok
from exporter.model.snapshot import StorageState
from exporter.polling.sources.discovery import DiscoverySource, LookUp
from exporter.polling.sources.metadata import MetadataSource
from exporter.polling.sources.ping import PingSource
from exporter.polling.sources.storage import StorageSource
from tests.support.clock import StoppedClock

ENDPOINT = Endpoint("tcp://127.0.0.1:1")


class Tracing:
    """A real SDK tracer that keeps its spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer: Tracer = provider.get_tracer("test")

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.fixture
def client() -> NoOpDataPlaneClient:
    client = NoOpDataPlaneClient()
    client.put_samples(["a_g0", "a_g1"], "train", tags=[{"weight_version": 3}] * 2)
    client.put_samples(["b"], "val", tags=[{"weight_version": 4}])
    return client


def metadata_source(client: object, tracing: Tracing) -> MetadataSource:
    return MetadataSource(client, Config(), tracer=tracing.tracer, clock=StoppedClock())  # type: ignore[arg-type]


def test_ping_gives_the_round_trip_and_two_spans(client: NoOpDataPlaneClient, tracing: Tracing) -> None:
    source = PingSource(client, Config(), tracer=tracing.tracer, clock=StoppedClock())
    result = source.poll()
    assert isinstance(result, Ok)
    assert result.value >= 0.0
    call, poll = tracing.spans()["ping"], tracing.spans()["tq_exporter.poll"]
    assert call.parent is not None
    assert call.parent.span_id == poll.context.span_id
    assert call.kind is SpanKind.CLIENT
    assert call.attributes == {"messaging.system": "transfer_queue", "messaging.operation.name": "ping"}
    assert poll.attributes == {"tq_exporter.source": "ping"}
    assert poll.status.status_code is StatusCode.UNSET


def test_a_failed_ping_says_why_in_the_result_and_on_both_spans(client: NoOpDataPlaneClient, tracing: Tracing) -> None:
    client.close()
    result = PingSource(client, Config(), tracer=tracing.tracer, clock=StoppedClock()).poll()
    assert isinstance(result, Failed)
    assert (result.operation, result.error_type) == ("ping", "DataPlaneUnavailable")
    assert "closed" in result.detail
    for span in tracing.spans().values():
        assert span.attributes is not None
        assert span.attributes["error.type"] == "DataPlaneUnavailable"
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]


def test_metadata_lists_every_partition(client: NoOpDataPlaneClient, tracing: Tracing) -> None:
    result = metadata_source(client, tracing).poll()
    assert isinstance(result, Ok)
    assert result.value.partitions == ("train", "val")
    assert [(listing.partition, len(listing.groups)) for listing in result.value.listings] == [("train", 1), ("val", 1)]
    assert result.value.published_version is None
    assert {"list_partitions", "list_metadata train", "list_metadata val"} < set(tracing.spans())


def test_a_held_partition_is_named_but_not_listed(client: NoOpDataPlaneClient, tracing: Tracing) -> None:
    source = metadata_source(client, tracing)
    source._budget.charge("train", 9.0, source._clock.monotonic())
    result = source.poll()
    assert isinstance(result, Ok)
    assert result.value.partitions == ("train", "val")
    assert [listing.partition for listing in result.value.listings] == ["val"]
    assert result.value.held == ("train",)
    assert "list_metadata train" not in tracing.spans()


def test_the_published_version_is_read_and_its_partition_hidden(client: NoOpDataPlaneClient, tracing: Tracing) -> None:
    client.put_samples(
        [PUBLISHED_VERSION_KEY], RESERVED_PARTITION, tags=[{"weight_version": 41, "groups_per_step": 16}]
    )
    result = metadata_source(client, tracing).poll()
    assert isinstance(result, Ok)
    assert (result.value.published_version, result.value.groups_per_step) == (41, 16)
    assert result.value.partitions == ("train", "val")


def test_an_unreadable_reserved_partition_hides_no_other(client: NoOpDataPlaneClient, tracing: Tracing) -> None:
    client.put_samples([PUBLISHED_VERSION_KEY], RESERVED_PARTITION, tags=[{"weight_version": 41}])
    list_metadata = client.list_metadata

    def pick(partition_id: str) -> list[DataPlaneGroupMeta]:
        if partition_id == RESERVED_PARTITION:
            raise DataPlaneReadError("a pickle")
        return list_metadata(partition_id)

    client.list_metadata = pick  # type: ignore[method-assign]
    result = metadata_source(client, tracing).poll()
    assert isinstance(result, Ok)
    assert result.value.published_version is None
    assert [listing.partition for listing in result.value.listings] == ["train", "val"]
    assert [failure.partition for failure in result.value.failures] == [RESERVED_PARTITION]


def test_an_unreadable_partition_is_a_failure_beside_the_others(tracing: Tracing) -> None:
    class Picky(NoOpDataPlaneClient):
        def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
            if partition_id == "odd":
                raise DataPlaneReadError("a pickle", operation="list_metadata", partition_id=partition_id)
            return super().list_metadata(partition_id)

    client = Picky()
    for partition in ("odd", "train"):
        client.put_samples(["a"], partition, tags=[{}])
    result = metadata_source(client, tracing).poll()
    assert isinstance(result, Ok)
    assert [listing.partition for listing in result.value.listings] == ["train"]
    assert [(f.partition, f.error_type) for f in result.value.failures] == [("odd", "DataPlaneReadError")]
    assert tracing.spans()["list_metadata odd"].status.status_code is StatusCode.ERROR


def test_a_closed_client_fails_the_whole_round(client: NoOpDataPlaneClient, tracing: Tracing) -> None:
    client.close()
    result = metadata_source(client, tracing).poll()
    assert isinstance(result, Failed)
    assert (result.operation, result.error_type) == ("list_partitions", "DataPlaneUnavailable")


def test_storage_units_fail_one_by_one(tracing: Tracing) -> None:
    class Unit:
        def __init__(self, keys: int | None) -> None:
            self.keys = keys

        def read(self) -> StorageUnitMetrics:
            if self.keys is None:
                raise DataPlaneUnavailable("refused", operation="storage_metrics")
            return StorageUnitMetrics(None, self.keys, 5)

        def close(self) -> None: ...

    units = [(StorageUnitEndpoint(index, f"u{index}", "tcp://127.0.0.1:1"), Unit(keys)) for index, keys in
             enumerate((7, None))]  # fmt: skip
    result = StorageSource(units, Config(), tracer=tracing.tracer, clock=StoppedClock()).poll()
    assert isinstance(result, Ok)
    assert result.value.units == (
        StorageState(0, "u0", None, 7, 5),
        StorageState(1, "u1", error_type="DataPlaneUnavailable", detail="storage unit 1: refused"),
    )


def test_a_storage_unit_that_hangs_does_not_keep_the_others_waiting(tracing: Tracing) -> None:
    answered = threading.Event()

    class Unit:
        def __init__(self, waits: bool) -> None:
            self.waits = waits

        def read(self) -> StorageUnitMetrics:
            if self.waits:
                assert answered.wait(10)
            else:
                answered.set()
            return StorageUnitMetrics(None, 1, None)

        def close(self) -> None: ...

    units = [(StorageUnitEndpoint(index, "u", "tcp://127.0.0.1:1"), Unit(index == 0)) for index in range(2)]
    result = StorageSource(units, Config(), tracer=tracing.tracer, clock=StoppedClock()).poll()
    assert isinstance(result, Ok)
    assert [unit.index for unit in result.value.units] == [0, 1]


def test_discovery_hands_over_what_was_there_before(tracing: Tracing) -> None:
    asked: list[Endpoint | None] = []
    target: Any = object()

    class Lookup:
        recheck_s = None

        def look(self, previous: Endpoint | None) -> Found | Absent:
            asked.append(previous)
            return Found(ENDPOINT)

    def gone(previous: Endpoint | None) -> Absent:
        asked.append(previous)
        return Absent(ended=True, detail="over")

    lookup: Any = Lookup()
    source = DiscoverySource(lookup, lambda _endpoint: target, tracer=tracing.tracer, clock=StoppedClock())
    assert source.poll() == Ok(LookUp(Found(ENDPOINT), target), 0.0)
    lookup.look = gone
    assert source.poll() == Ok(LookUp(Absent(ended=True, detail="over")), 0.0)
    assert asked == [None, ENDPOINT]


def test_a_defect_is_a_failure_of_type_other(tracing: Tracing, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(NoOpDataPlaneClient):
        def list_partitions(self) -> list[str]:
            raise ZeroDivisionError("oops")

    result = metadata_source(Broken(), tracing).poll()
    assert result == Failed("list_partitions", "_OTHER", "ZeroDivisionError: oops", 0.0)
    assert "Traceback" in caplog.text
