"""Failing telemetry: logged once, counted, and the call is not affected."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from dataplane.errors import DataPlaneUnavailable
from dataplane.observability import MetricsDataPlaneClient
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import BATCH, CALLS, ScriptedClient


def _fail(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("telemetry is broken")


class _Broken:
    """An object that raises on any use."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"telemetry is broken: {name}")


@pytest.mark.parametrize("name", CALLS)
def test_an_observer_that_raises_leaves_the_result(
    name: str, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    inner = ScriptedClient(put_samples=BATCH, claim_meta=BATCH, list_metadata=[])
    client = telemetry.wrap(inner, _fail)
    for _ in range(3):
        assert getattr(client, name)(*CALLS[name]) is inner.outcomes.get(name)
    assert client.snapshot()["observer_failures"] == 3
    assert client.snapshot()["total_ops"] == 3
    assert telemetry.value("dataplane.client.observer.failures") == 3
    assert len([record for record in caplog.records if "Observing" in record.message]) == 1


def test_an_observer_that_raises_leaves_the_exception(telemetry: Telemetry) -> None:
    failure = DataPlaneUnavailable("gone")
    client = telemetry.wrap(ScriptedClient(ping=failure), _fail)
    with pytest.raises(DataPlaneUnavailable) as caught:
        client.ping()
    assert caught.value is failure
    assert failure.__cause__ is None
    assert failure.__context__ is None
    assert client.snapshot()["errors_by_type"] == {"DataPlaneUnavailable": 1}


def test_broken_providers_leave_the_client_working(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = _Broken()
    client = MetricsDataPlaneClient(ScriptedClient(put_samples=BATCH), meter_provider=broken, tracer_provider=broken)
    assert client.put_samples(["a", "b"], "train") is BATCH
    assert client.snapshot()["total_keys"] == 2
    assert client.snapshot()["observer_failures"] >= 1
    assert "Observing" in caplog.text


@pytest.mark.parametrize("failing", ["start_span", "add_link", "set_attribute", "end", "record", "is_recording"])
def test_any_part_of_an_sdk_may_fail(failing: str, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = ScriptedClient(put_samples=BATCH, claim_meta=BATCH, pop=DataPlaneUnavailable("gone"))
    client = telemetry.wrap(inner, propagate=True)
    if failing == "start_span":
        monkeypatch.setattr(client._recorder.tracer, "start_span", _fail)
    elif failing == "record":
        monkeypatch.setattr(client._recorder, "record_duration", _fail)
    else:
        from opentelemetry.sdk.trace import Span

        monkeypatch.setattr(Span, failing, _fail)
    assert client.put_samples(["a", "b"], "train") is BATCH
    assert client.claim_meta("train", "t", ["x"], 2) is BATCH
    with pytest.raises(DataPlaneUnavailable):
        client.pop(["a"], "train")
    snapshot = client.snapshot()
    assert (snapshot["total_ops"], snapshot["total_errors"]) == (3, 1)
    if failing != "add_link":  # no context was propagated, so there is nothing to link to
        assert snapshot["observer_failures"] >= 1


def test_an_error_that_cannot_be_shown_is_still_the_callers(telemetry: Telemetry) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    failure = Unprintable()
    client = telemetry.wrap(ScriptedClient(ping=failure))
    with pytest.raises(Unprintable) as caught:
        client.ping()
    assert caught.value is failure
    assert client.snapshot()["total_errors"] == 1


def test_a_log_handler_that_fails_harms_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataplane.observability.recorder._logger.warning", _fail)
    client = MetricsDataPlaneClient(ScriptedClient(ping=0.5), _fail)
    assert client.ping() == 0.5


def test_providers_that_do_nothing_are_fine() -> None:
    client = MetricsDataPlaneClient(
        ScriptedClient(put_samples=BATCH),
        meter_provider=NoOpMeterProvider(),
        tracer_provider=NoOpTracerProvider(),
        propagate=True,
    )
    assert client.put_samples(["a", "b"], "train") is BATCH
    assert client.snapshot()["observer_failures"] == 0
