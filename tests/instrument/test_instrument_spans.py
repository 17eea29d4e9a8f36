"""Spans: names, kinds and attributes as in the messaging conventions, and their parents."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from dataplane.errors import DataPlaneClearError
from dataplane.groups import DataPlaneGroupMeta
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import BATCH, CALLS, ScriptedClient

BASE = {"messaging.system": "transfer_queue", "messaging.destination.name": "train"}


@pytest.mark.parametrize(
    ("name", "kind", "operation_type"),
    [
        ("put_samples", SpanKind.PRODUCER, "send"),
        ("claim_meta", SpanKind.CLIENT, "receive"),
        ("get_data", SpanKind.CLIENT, "receive"),
        ("get_samples", SpanKind.CLIENT, "receive"),
        ("clear_samples", SpanKind.CLIENT, "settle"),
        ("pop", SpanKind.CLIENT, "settle"),
        ("evict", SpanKind.CLIENT, "settle"),
    ],
)
def test_a_call_that_moves_keys_is_a_messaging_span(
    name: str, kind: SpanKind, operation_type: str, telemetry: Telemetry
) -> None:
    client = telemetry.wrap(ScriptedClient(put_samples=BATCH, claim_meta=BATCH))
    getattr(client, name)(*CALLS[name])
    span = telemetry.span(f"{name} train")
    assert span.kind is kind
    assert dict(span.attributes or {}) == {
        **BASE,
        "messaging.operation.name": name,
        "messaging.operation.type": operation_type,
        "messaging.batch.message_count": 2,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_a_call_without_a_partition_is_named_after_its_operation(telemetry: Telemetry) -> None:
    telemetry.wrap(ScriptedClient()).ping()
    assert dict(telemetry.span("ping").attributes or {}) == {
        "messaging.system": "transfer_queue",
        "messaging.operation.name": "ping",
    }


def test_a_failure_has_the_error_type_and_the_exception(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(pop=DataPlaneClearError("storage unit 1 is gone")))
    with pytest.raises(DataPlaneClearError):
        client.pop(["a"], "train")
    span = telemetry.span("pop train")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "DataPlaneClearError"
    (event,) = span.events
    assert event.name == "exception"
    assert (event.attributes or {})["exception.message"] == "storage unit 1 is gone"


def test_the_span_is_inside_the_callers_and_around_the_clients(telemetry: Telemetry) -> None:
    tracer = telemetry.tracers.get_tracer("test")

    class Inner:
        def ping(self) -> float:
            with tracer.start_as_current_span("inside"):
                return 0.0

    with tracer.start_as_current_span("outside") as outside:
        telemetry.wrap(Inner()).ping()
        assert trace.get_current_span() is outside
    ping, inside = telemetry.span("ping"), telemetry.span("inside")
    assert ping.parent is not None
    assert ping.parent.span_id == telemetry.span("outside").context.span_id
    assert inside.parent is not None
    assert inside.parent.span_id == ping.context.span_id


def test_the_context_is_restored_after_a_failure(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(ping=ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        client.ping()
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_span_that_is_not_sampled_changes_no_metric() -> None:
    telemetry = Telemetry(ALWAYS_OFF)
    client = telemetry.wrap(ScriptedClient(put_samples=BATCH))
    client.put_samples(["a", "b"], "train")
    assert telemetry.spans == []
    assert telemetry.value("dataplane.client.keys", operation="put_samples", partition="train", direction="write") == 2


def test_a_listing_says_how_many_keys_it_has(telemetry: Telemetry) -> None:
    groups = [DataPlaneGroupMeta("train", "g", ["a", "b"], 1), DataPlaneGroupMeta("train", "h", ["c"], 1)]
    client: Any = telemetry.wrap(ScriptedClient(list_metadata=groups, list_sample_ids=["a", "b", "c"]))
    client.list_metadata("train")
    client.list_sample_ids("train")
    for name in ("list_metadata train", "list_sample_ids train"):
        assert (telemetry.span(name).attributes or {})["messaging.batch.message_count"] == 3


def test_spans_may_be_left_to_another_instrumentation(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry.wrap(ScriptedClient(), spans=False).ping()
    monkeypatch.setenv("TQ_EXPORTER_SPANS", "false")
    telemetry.wrap(ScriptedClient()).ping()
    assert telemetry.spans == []
    assert [point.count for point in telemetry.points("messaging.client.operation.duration").values()] == [2]
    telemetry.wrap(ScriptedClient(), spans=True).ping()
    assert len(telemetry.spans) == 1


def test_inside_of_an_instrumentation_that_covers_it_a_call_is_silent(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient())
    with suppress_instrumentation():
        client.ping()
    assert telemetry.spans == []
    assert telemetry.points("messaging.client.operation.duration") == {}
    assert client.snapshot()["ops"]["ping"]["count"] == 1
