"""The instrumentor on a small TransferQueue in memory: identity, pickling, and what it covers."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from packaging.requirements import Requirement

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.observability import row_tags
from dataplane.observability.effects import trainer_version
from dataplane.observability.instrumentor import TransferQueueInstrumentor
from tests.instrument.conftest import Telemetry
from tests.instrument.fake_transfer_queue import fake_transfer_queue


@pytest.fixture
def tq(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(row_tags, "watching", False)  # an earlier test may have the real one watched
    with fake_transfer_queue() as package:
        yield package
        TransferQueueInstrumentor().uninstrument()
        row_tags.unwatch()


@pytest.fixture
def instrumented(tq: Any, telemetry: Telemetry) -> Any:
    TransferQueueInstrumentor().instrument(meter_provider=telemetry.meters, tracer_provider=telemetry.tracers)
    return tq


FUNCTIONS = ("kv_list", "kv_batch_put", "async_kv_batch_get", "save_checkpoint", "load_checkpoint")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_replacement_is_one_object_and_pickles_by_its_name(name: str, instrumented: Any) -> None:
    function = getattr(instrumented, name)
    assert function is getattr(instrumented.interface, name)
    assert hasattr(function, "__wrapped__")
    assert inspect.isfunction(function)
    for library in (pickle, cloudpickle):
        assert library.loads(library.dumps(function)) is function
        assert library.loads(library.dumps(functools.partial(function, partition_id="p"))).func is function


def test_a_class_that_calls_a_function_by_its_global_name_pickles(instrumented: Any) -> None:
    namespace: dict[str, Any] = {"kv_list": instrumented.kv_list, "__name__": "__main__"}
    exec("class Worker:\n    def work(self):\n        return kv_list('train')", namespace)
    namespace["Worker"].__module__ = "__main__"
    cls = pickle.loads(cloudpickle.dumps(namespace["Worker"]))
    assert cls().work() == {"train": {}}


@pytest.mark.parametrize("name", ["get_meta", "async_get_data"])
def test_a_method_pickles_by_its_name(name: str, instrumented: Any) -> None:
    method = getattr(instrumented.TransferQueueClient, name)
    for library in (pickle, cloudpickle):
        assert library.loads(library.dumps(method)) is method


def test_a_replacement_that_was_kept_calls_through_and_pickles_after_the_end(
    instrumented: Any, telemetry: Telemetry
) -> None:
    kept, kept_method = instrumented.kv_list, instrumented.TransferQueueClient.get_data
    TransferQueueInstrumentor().uninstrument()
    assert instrumented.kv_list is not kept
    assert not hasattr(instrumented.kv_list, "__wrapped__")
    assert not hasattr(instrumented.client.AsyncTransferQueueClient.async_kv_retrieve_meta, "__wrapped__")
    assert kept("train") == {"train": {}}
    assert cloudpickle.loads(cloudpickle.dumps(kept))("train") == {"train": {}}
    assert cloudpickle.loads(cloudpickle.dumps(kept_method)) is not None
    assert telemetry.spans == []
    TransferQueueInstrumentor().instrument(meter_provider=telemetry.meters, tracer_provider=telemetry.tracers)
    assert instrumented.kv_list is kept
    kept("train")
    assert len(telemetry.spans) == 1


def test_what_programs_call_is_covered_once_each(instrumented: Any, telemetry: Telemetry) -> None:
    client = instrumented.interface._TQ_CLIENT
    instrumented.kv_batch_put(["a", "b"], "train", None, [{"weight_version": 1}] * 2)
    client.kv_retrieve_meta(["a", "b"], "train")
    asyncio.run(client.async_kv_retrieve_meta(keys=["a"], partition_id="train"))
    client.kv_retrieve_keys([0, 1], "train")
    client.get_data(client.get_meta(["x"], 2, "train"))
    instrumented.kv_list("train")
    instrumented.save_checkpoint("/checkpoints/1")
    with pytest.raises(FileNotFoundError):
        instrumented.load_checkpoint("/checkpoints/2")
    client.clear_partition("train")
    seen = [(span.name, (span.attributes or {}).get("messaging.batch.message_count")) for span in telemetry.spans]
    assert seen == [
        ("put_samples train", 2),
        ("list_metadata train", 2),
        ("list_metadata train", 1),
        ("list_sample_ids train", 2),
        ("claim_meta train", 2),
        ("get_data train", 2),
        ("list_metadata train", 2),
        ("save_checkpoint", None),
        ("load_checkpoint", None),
        ("clear_samples train", 0),
    ]
    durations = telemetry.points("messaging.client.operation.duration")
    names = {dict(key)["messaging.operation.name"] for key in durations}
    assert {"save_checkpoint", "load_checkpoint"} <= names


def _lag(telemetry: Telemetry, operation: str) -> tuple[int, float] | None:
    point = telemetry.value("dataplane.client.consumed.lag", operation=operation, partition="train")
    return None if point is None else (point.count, point.sum)


def test_rows_that_another_process_put_tell_their_lag_and_producer_in_the_same_call(
    instrumented: Any, telemetry: Telemetry
) -> None:
    text = "00-" + "0" * 31 + "1-" + "0" * 15 + "2-01"
    rows = instrumented.interface._TQ_CLIENT.rows
    rows.update({"a": {"weight_version": 3, "traceparent": text}, "b": {"weight_version": 4, "traceparent": text}})
    trainer_version.published = 5
    instrumented.kv_batch_get(["a", "b"], "train")
    trainer_version.published = 6
    instrumented.kv_clear(["a", "b"], "train")
    for name in ("get_samples", "clear_samples"):
        assert _lag(telemetry, name) == (2, 2 + 1), name
        assert [link.context.span_id for link in telemetry.span(f"{name} train").links] == [2], name
    assert telemetry.points("dataplane.client.lineage.misses") == {}


def test_a_wrapped_foreign_client_reads_them_too(tq: Any, telemetry: Telemetry) -> None:
    class Foreign:
        def get_samples(self, sample_ids: list[str], partition_id: str, select_fields: list[str]) -> Any:
            return tq.kv_batch_get(sample_ids, partition_id, select_fields)

    tq.interface._TQ_CLIENT.rows.update({"a": {"weight_version": 3}})
    trainer_version.published = 5
    client: Any = telemetry.wrap(Foreign())
    client.get_samples(["a"], "train", ["x"])
    client.get_samples(["a", "unknown"], "train", ["x"])
    assert _lag(telemetry, "get_samples") == (2, 4)
    assert telemetry.value("dataplane.client.lineage.misses", operation="get_samples", partition="train") == 1


def test_one_call_that_both_see_is_one_span(instrumented: Any, telemetry: Telemetry) -> None:
    class Foreign:
        def get_samples(self, sample_ids: list[str], partition_id: str, select_fields: list[str]) -> Any:
            return instrumented.kv_batch_get(sample_ids, partition_id, select_fields)

    instrumented.interface._TQ_CLIENT.rows["a"] = {}
    client: Any = telemetry.wrap(Foreign())
    client.get_samples(["a"], "train", ["x"])
    assert [span.name for span in telemetry.spans] == ["get_samples train"]
    assert [point.count for point in telemetry.points("messaging.client.operation.duration").values()] == [1]


def test_spans_can_be_left_to_another_instrumentation(
    tq: Any, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_EXPORTER_SPANS", "false")
    TransferQueueInstrumentor().instrument(meter_provider=telemetry.meters, tracer_provider=telemetry.tracers)
    tq.kv_list("train")
    assert telemetry.spans == []
    assert [point.count for point in telemetry.points("messaging.client.operation.duration").values()] == [1]


@pytest.mark.parametrize(("value", "propagates"), [("true", True), ("1", True), ("false", False), ("perhaps", False)])
def test_a_variable_turns_propagation_on(
    value: str, propagates: bool, tq: Any, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_EXPORTER_PROPAGATE", value)
    TransferQueueInstrumentor().instrument(meter_provider=telemetry.meters, tracer_provider=telemetry.tracers)
    tq.kv_batch_put(["a"], "train", None, [{"weight_version": 1}])
    assert ("traceparent" in tq.interface._TQ_CLIENT.rows["a"]) is propagates


@pytest.mark.parametrize(("version", "fits"), [("0.1.9.dev0", True), ("0.1.12rc1", True), ("0.1.8", False)])
def test_pre_releases_are_instrumented(version: str, fits: bool) -> None:
    (dependency,) = TransferQueueInstrumentor().instrumentation_dependencies()
    assert Requirement(dependency).specifier.contains(version) is fits


def test_the_controllers_address_is_on_the_span(instrumented: Any, telemetry: Telemetry) -> None:
    info = SimpleNamespace(ip="[fd00::1]", ports={"request_handle_socket": 5555})
    instrumented.interface._TQ_CLIENT._controller = info
    instrumented.kv_list("train")
    telemetry.wrap(NoOpDataPlaneClient()).ping()  # it does not talk to that controller
    assert "server.address" not in (telemetry.span("ping").attributes or {})
    attributes = telemetry.span("list_metadata train").attributes or {}
    assert (attributes["server.address"], attributes["server.port"]) == ("fd00::1", 5555)
