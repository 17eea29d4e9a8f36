"""Every call through the wrapper: unchanged for its caller, counted once, with the right outcome."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import DataPlaneBadRequest, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.interfaces import DataPlaneClient
from dataplane.metrics import CLIENT_OPERATIONS
from dataplane.observability import MetricsDataPlaneClient, log_event
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import BATCH, CALLS, EVENT_NAMES, ScriptedClient

RESULTS: dict[str, Any] = {
    "claim_meta": BATCH,
    "put_samples": BATCH,
    "list_metadata": [],
    "list_partitions": ["train"],
    "depth": 3,
    "ping": 0.001,
}


def test_every_operation_of_the_interface_is_covered() -> None:
    public = {name for name in vars(DataPlaneClient) if not name.startswith("_")}
    assert public == set(CALLS) == set(CLIENT_OPERATIONS)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_returns_what_the_client_returned_and_is_counted_once(name: str, telemetry: Telemetry) -> None:
    inner = ScriptedClient(**RESULTS)
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(inner, events.append)

    result = getattr(client, name)(*CALLS[name])

    assert result is RESULTS.get(name)
    assert inner.calls == [(name, CALLS[name], {})]
    event = EVENT_NAMES.get(name, name)
    assert [(e["op"], e["status"], e["error_type"]) for e in events] == [(event, "ok", None)]
    assert client.snapshot()["ops"][event]["count"] == 1
    assert sum(client.snapshot()["ops"][event]["duration"]["counts"]) == 1
    durations = telemetry.points("messaging.client.operation.duration")
    assert [(dict(key)["messaging.operation.name"], point.count) for key, point in durations.items()] == [(name, 1)]
    assert telemetry.points("dataplane.client.errors") == {}
    assert len(telemetry.spans) == 1


@pytest.mark.parametrize("name", CALLS)
def test_a_failure_reaches_the_caller_as_it_is_and_is_counted_once_as_an_error(name: str, telemetry: Telemetry) -> None:
    failure = DataPlaneUnavailable("gone", operation=name)
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(ScriptedClient(**{name: failure}), events.append)

    with pytest.raises(DataPlaneUnavailable) as caught:
        getattr(client, name)(*CALLS[name])

    assert caught.value is failure
    assert failure.__context__ is None
    assert [(e["status"], e["error_type"]) for e in events] == [("error", "DataPlaneUnavailable")]
    errors = telemetry.points("dataplane.client.errors")
    assert [(dict(key)["operation"], dict(key)["error.type"], n) for key, n in errors.items()] == [
        (name, "DataPlaneUnavailable", 1)
    ]
    (duration,) = telemetry.points("messaging.client.operation.duration")
    assert dict(duration)["error.type"] == "DataPlaneUnavailable"
    assert telemetry.points("dataplane.client.keys") == {}
    snapshot = client.snapshot()
    assert snapshot["total_ops"] == snapshot["total_errors"] == 1
    assert snapshot["errors_by_type"] == {"DataPlaneUnavailable": 1}
    assert snapshot["total_keys"] == 0


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("failing", [True, False])
def test_a_call_inside_a_call_is_told_by_the_outer_one_alone(name: str, failing: bool, telemetry: Telemetry) -> None:
    outcomes = {name: DataPlaneUnavailable("gone")} if failing else RESULTS
    inner = telemetry.wrap(ScriptedClient(**outcomes))
    outer = telemetry.wrap(inner)
    with pytest.raises(DataPlaneUnavailable) if failing else contextlib.nullcontext():
        getattr(outer, name)(*CALLS[name])
    (duration,) = telemetry.points("messaging.client.operation.duration").values()
    assert duration.count == 1
    assert sum(telemetry.points("dataplane.client.errors").values()) == failing
    assert len(telemetry.spans) == 1
    for client in (outer, inner):  # a snapshot is of one client
        assert (client.snapshot()["total_ops"], client.snapshot()["total_errors"]) == (1, failing)


def test_a_timeout_has_a_status_of_its_own(telemetry: Telemetry) -> None:
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(ScriptedClient(ping=DataPlaneTimeout("silent")), events.append)
    with pytest.raises(DataPlaneTimeout):
        client.ping()
    assert (events[0]["status"], events[0]["error_type"]) == ("timeout", "DataPlaneTimeout")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_passes_and_is_counted_as_other(interrupt: BaseException, telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(ping=interrupt))
    with pytest.raises(type(interrupt)) as caught:
        client.ping()
    assert caught.value is interrupt
    assert telemetry.value("dataplane.client.errors", operation="ping", error__type="_OTHER") == 1


def test_counters_and_durations_add_up_over_calls(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(put_samples=BATCH, pop=DataPlaneBadRequest("no")))
    for _ in range(3):
        client.put_samples(["a", "b"], "train")
    for _ in range(2):
        with pytest.raises(DataPlaneBadRequest):
            client.pop(["a"], "train")
    error = {"operation": "pop", "partition": "train", "error__type": "DataPlaneBadRequest"}
    assert telemetry.value("dataplane.client.errors", **error) == 2
    assert telemetry.value("dataplane.client.keys", operation="put_samples", partition="train", direction="write") == 6
    snapshot = client.snapshot()
    assert (snapshot["total_ops"], snapshot["total_errors"], snapshot["total_keys"]) == (5, 2, 6)
    assert snapshot["ops"]["put"]["count"] == 3
    times = {"wall_ms": 0, "max_ms": 0, "step_max_ms": 0, "duration": 0, "fit": 0}
    assert snapshot["ops"]["pop"] | times == {
        "count": 2,
        "errors": {"DataPlaneBadRequest": 2},
        "cancelled": 0,
        "keys": 0,
        "bytes": 0,
        **times,
    }


def test_arguments_reach_the_client_as_they_were_given(telemetry: Telemetry) -> None:
    inner = ScriptedClient(put_samples=BATCH)
    client = telemetry.wrap(inner)
    keys, tags = ["a", "b"], [{"weight_version": 1}, {"weight_version": 1}]
    client.put_samples(partition_id="train", sample_ids=keys, tags=tags)
    ((_, args, kwargs),) = inner.calls
    assert args == ()
    assert kwargs["sample_ids"] is keys
    assert kwargs["tags"] is tags
    assert set(kwargs) == {"sample_ids", "partition_id", "tags"}


def test_a_wrapped_client_is_a_client(noop: NoOpDataPlaneClient) -> None:
    client = MetricsDataPlaneClient(noop)
    assert isinstance(client, DataPlaneClient)
    assert MetricsDataPlaneClient.ping.__doc__ == DataPlaneClient.ping.__doc__
    assert MetricsDataPlaneClient.ping(client) > 0.0


def test_an_event_is_plain_data(telemetry: Telemetry) -> None:
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(ScriptedClient(put_samples=BATCH), events.append)
    client.put_samples(["a", "b"], "train")
    (event,) = events
    assert event.pop("wall_ms") >= 0.0
    assert event == {
        "op": "put",
        "partition_id": "train",
        "n_keys": 2,
        "n_bytes": 0,
        "status": "ok",
        "error_type": None,
    }
    assert pickle.loads(pickle.dumps(event)) == event


def test_log_event_writes_a_line_per_call(caplog: pytest.LogCaptureFixture) -> None:
    client = MetricsDataPlaneClient(ScriptedClient(pop=DataPlaneUnavailable("gone")), log_event)
    with caplog.at_level("DEBUG", logger="dataplane.observability"):
        client.ping()
        with pytest.raises(DataPlaneUnavailable):
            client.pop(["a"], "train")
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING"]
    assert "op=pop" in caplog.text
    assert "error_type=DataPlaneUnavailable" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_a_duration_is_the_time_between_begin_and_end(
    fails: bool, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([1_000_000, 3_500_000])
    monkeypatch.setattr("dataplane.observability.recorder.perf_counter_ns", lambda: next(clock))
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(ScriptedClient(ping=DataPlaneTimeout("silent") if fails else 0.001), events.append)
    with contextlib.suppress(DataPlaneTimeout):
        client.ping()
    assert events[0]["wall_ms"] == 2.5
    (point,) = telemetry.points("messaging.client.operation.duration").values()
    assert point.sum == pytest.approx(0.0025)
