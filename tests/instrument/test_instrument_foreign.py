"""Foreign clients: a subset of the methods, their own exceptions, coroutines, nested wrappers."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from opentelemetry import trace

from dataplane.errors import DataPlaneReadError, DataPlaneUnavailable
from dataplane.observability import MetricsDataPlaneClient
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import BATCH, ScriptedClient


class Partial:
    """A framework's client: two of our methods, one with an extra parameter, and one method of its own."""

    limit = 5
    _secret = "kept"

    def put_samples(self, sample_ids: list[str], partition_id: str, *, priority: int = 0) -> int:
        return priority

    def ping(self) -> str:
        return "pong"

    def warm_up(self) -> str:
        return "warm"


def test_it_works_for_the_methods_it_has(telemetry: Telemetry) -> None:
    client: Any = telemetry.wrap(Partial())
    assert client.put_samples(["a"], "train", priority=3) == 3
    assert client.ping() == "pong"
    assert client.warm_up() == "warm"
    assert client.limit == 5
    assert client._secret == "kept"
    assert client.snapshot()["total_ops"] == 2


@pytest.mark.parametrize("name", ["pop", "list_metadata", "no_such_thing"])
def test_a_missing_method_is_missing_as_before(name: str, telemetry: Telemetry) -> None:
    client = telemetry.wrap(Partial())
    assert not hasattr(client, name)
    with pytest.raises(AttributeError, match=f"'Partial' object has no attribute '{name}'"):
        getattr(client, name)
    assert client.snapshot()["total_ops"] == 0


class RayActorError(Exception):
    pass


RayActorError.__module__ = "ray.exceptions"


@pytest.mark.parametrize(
    ("name", "error", "kind"),
    [
        ("ping", RayActorError("died"), "DataPlaneUnavailable"),
        ("ping", ConnectionResetError(), "DataPlaneUnavailable"),
        ("ping", TimeoutError(), "DataPlaneTimeout"),
        ("get_samples", asyncio.TimeoutError(), "DataPlaneTimeout"),
        ("get_samples", ValueError("Some fields are not ready in all the requested keys!"), "DataPlaneNotReady"),
        ("put_samples", RuntimeError("Error in put to storage unit 0"), "DataPlaneWriteError"),
        ("put_samples", ValueError("no"), "DataPlaneBadRequest"),
        ("put_samples", ZeroDivisionError(), "DataPlaneWriteError"),
        ("get_samples", ZeroDivisionError(), "DataPlaneReadError"),
        ("pop", ZeroDivisionError(), "DataPlaneClearError"),
        ("ping", ZeroDivisionError(), "DataPlaneError"),
    ],
)
def test_an_error_is_typed_as_it_would_be_translated_and_stays_the_original(
    name: str, error: BaseException, kind: str, telemetry: Telemetry
) -> None:
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(ScriptedClient(**{name: error}), events.append)
    with pytest.raises(type(error)) as caught:
        getattr(client, name)(["a"], "train")
    assert caught.value is error
    assert events[0]["error_type"] == kind
    assert events[0]["status"] == ("timeout" if kind == "DataPlaneTimeout" else "error")
    (span,) = telemetry.spans
    assert (span.attributes or {})["error.type"] == kind
    (key,) = telemetry.points("dataplane.client.errors")
    assert dict(key)["error.type"] == kind


class Asynchronous:
    """A client whose methods are coroutine functions."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer = tracer

    async def put_samples(self, sample_ids: list[str], partition_id: str) -> Any:
        await asyncio.sleep(0)
        with self.tracer.start_as_current_span(f"inside {sample_ids[0]}"):
            await asyncio.sleep(0)
        return BATCH

    async def ping(self) -> float:
        await asyncio.sleep(0)
        raise DataPlaneReadError("no")


def test_coroutines_are_observed_until_they_are_done(telemetry: Telemetry) -> None:
    client: Any = telemetry.wrap(Asynchronous(telemetry.tracers.get_tracer("test")))

    async def work() -> None:
        results = await asyncio.gather(*(client.put_samples([f"k{i}"], f"p{i}") for i in range(5)))
        assert results == [BATCH] * 5
        with pytest.raises(DataPlaneReadError):
            await client.ping()
        assert trace.get_current_span() is trace.INVALID_SPAN

    asyncio.run(work())
    snapshot = client.snapshot()
    assert snapshot["ops"]["put"]["count"] == 5
    assert snapshot["errors_by_type"] == {"DataPlaneReadError": 1}
    assert snapshot["observer_failures"] == 0
    for i in range(5):
        inside, put = telemetry.span(f"inside k{i}"), telemetry.span(f"put_samples p{i}")
        assert inside.parent is not None
        assert inside.parent.span_id == put.context.span_id


@pytest.mark.parametrize("end", [asyncio.CancelledError(), GeneratorExit()])
def test_a_cancelled_call_is_neither_an_error_nor_a_success(end: BaseException, telemetry: Telemetry) -> None:
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(ScriptedClient(put_samples=end), events.append)
    with pytest.raises(type(end)):
        client.put_samples(["a"], "train")
    assert [(event["status"], event["error_type"]) for event in events] == [("cancelled", None)]
    (span,) = telemetry.spans
    assert span.status.status_code is trace.StatusCode.UNSET
    assert span.events == ()
    assert telemetry.points("dataplane.client.errors") == {}
    assert list(telemetry.points("dataplane.client.keys").values()) == [0]
    (key,) = telemetry.points("messaging.client.operation.duration")
    assert "error.type" not in dict(key)
    snapshot = client.snapshot()
    assert (snapshot["ops"]["put"]["cancelled"], snapshot["total_errors"], snapshot["total_keys"]) == (1, 0, 0)


def test_a_coroutine_that_is_cancelled_leaves_the_context_clean(telemetry: Telemetry) -> None:
    client: Any = telemetry.wrap(Asynchronous(telemetry.tracers.get_tracer("test")))

    async def work() -> None:
        task = asyncio.ensure_future(client.put_samples(["a"], "train"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert client.snapshot()["ops"]["put"]["cancelled"] == 1


def test_a_loop_that_is_closed_under_a_call_leaves_no_traceback(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent:
        async def ping(self) -> None:
            await asyncio.get_running_loop().create_future()

    client: Any = telemetry.wrap(Silent())
    loop = asyncio.new_event_loop()
    calls = [client.ping()]
    task = loop.create_task(calls[0])
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    calls.pop().close()  # in another context than it ran in, as the garbage collector does
    assert client.snapshot()["ops"]["ping"]["cancelled"] == 1
    assert client.snapshot()["observer_failures"] == 0
    assert caplog.records == []


def test_a_wrapper_in_a_wrapper_counts_once_and_tells_both_observers(telemetry: Telemetry) -> None:
    inner_events: list[dict[str, Any]] = []
    outer_events: list[dict[str, Any]] = []
    inner = telemetry.wrap(ScriptedClient(put_samples=BATCH), inner_events.append)
    outer = telemetry.wrap(inner, outer_events.append)
    outer.put_samples(["a", "b"], "train")
    inner.put_samples(["a", "b"], "train")  # when it is called directly, it counts
    assert (len(inner_events), len(outer_events)) == (2, 1)
    assert (inner.snapshot()["total_ops"], outer.snapshot()["total_ops"]) == (2, 1)
    assert list(telemetry.points("dataplane.client.keys").values()) == [4]
    assert len(telemetry.spans) == 2


def test_a_failing_wrapper_in_a_wrapper_counts_once_and_tells_both_observers(telemetry: Telemetry) -> None:
    inner_events: list[dict[str, Any]] = []
    outer_events: list[dict[str, Any]] = []
    inner = telemetry.wrap(ScriptedClient(put_samples=DataPlaneUnavailable("gone")), inner_events.append)
    outer = telemetry.wrap(inner, outer_events.append)
    with pytest.raises(DataPlaneUnavailable):
        outer.put_samples(["a", "b"], "train")
    assert [event["error_type"] for event in (*inner_events, *outer_events)] == ["DataPlaneUnavailable"] * 2
    assert (inner.snapshot()["total_errors"], outer.snapshot()["total_errors"]) == (1, 1)
    assert list(telemetry.points("dataplane.client.errors").values()) == [1]
    assert [point.count for point in telemetry.points("messaging.client.operation.duration").values()] == [1]
    assert len(telemetry.spans) == 1


def test_a_call_made_from_an_event_is_a_call_of_its_own(telemetry: Telemetry) -> None:
    def again(event: dict[str, Any]) -> None:
        if event["op"] == "put":
            client.ping()

    client = telemetry.wrap(ScriptedClient(put_samples=BATCH), again)
    client.put_samples(["a"], "train")
    assert {span.name for span in telemetry.spans} == {"put_samples train", "ping"}
    assert client.snapshot()["total_ops"] == 2


def test_observability_alone_needs_no_client_of_ours() -> None:
    client: Any = MetricsDataPlaneClient(object())
    with pytest.raises(AttributeError):
        client.put_samples(["a"], "train")


def test_a_method_that_is_replaced_on_the_client_later_is_called(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = ScriptedClient(ping=1)
    client = telemetry.wrap(inner)
    assert client.ping() == 1
    monkeypatch.setattr(inner, "ping", lambda: 2)
    assert client.ping() == 2
    assert client.snapshot()["ops"]["ping"]["count"] == 2


def test_a_subclass_may_call_the_method_that_it_overrides(telemetry: Telemetry) -> None:
    class Doubling(MetricsDataPlaneClient):
        def ping(self, timeout_s: float | None = None) -> float:
            return 2 * super().ping(timeout_s)

    client = Doubling(ScriptedClient(ping=1))
    assert [client.ping() for _ in range(3)] == [2, 2, 2]


def test_a_wrapper_goes_when_nobody_needs_it() -> None:
    client = MetricsDataPlaneClient(ScriptedClient())
    client.ping()
    gone = weakref.ref(client)
    gc.disable()
    try:
        del client
        assert gone() is None
    finally:
        gc.enable()
