"""The instruments: every known series starts at 0, and undeclared labels are rejected."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.trace import NoOpTracer

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.discovery.record import Endpoint
from dataplane.metrics import ERROR_TYPE_VALUES
from exporter.catalogue.metrics import EXPORTER_METRICS, EXPORTER_OPERATIONS, UndeclaredError, check_attributes
from exporter.config import Config
from exporter.discovery.address import AddressDiscovery
from exporter.model.results import Failed, Found, Ok
from exporter.model.snapshot import SOURCES
from exporter.model.state import State
from exporter.polling.sources.discovery import DiscoverySource, LookUp
from exporter.polling.sources.ping import PingSource
from exporter.telemetry import InstrumentRecorder
from tests.support.clock import StoppedClock


class Recording:
    def __init__(self, **options: Any) -> None:
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.recorder = InstrumentRecorder(provider.get_meter("test"), **{"ping_slo_s": 0.25, **options})

    def metrics(self) -> list[Metric]:
        collected = self._reader.get_metrics_data()
        assert collected is not None
        return [
            metric
            for resource in collected.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def points(self, name: str) -> list[Any]:
        return [point for metric in self.metrics() if metric.name == name for point in metric.data.data_points]

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        return {tuple(v for _, v in sorted(p.attributes.items())): p.value for p in self.points(name)}


@pytest.fixture
def recording() -> Recording:
    return Recording()


def test_every_known_series_starts_at_zero(recording: Recording) -> None:
    pairs = product(ERROR_TYPE_VALUES, EXPORTER_OPERATIONS)
    assert recording.values("dataplane.errors") == dict.fromkeys(pairs, 0)
    assert recording.values("dataplane.controller.restarts") == {(): 0}
    assert recording.values("tq_exporter.polls") == dict.fromkeys(product(("ok", "failed"), SOURCES), 0)
    assert recording.values("tq_exporter.polls.skipped") == {(source,): 0 for source in SOURCES}
    assert recording.values("tq_exporter.polls.full_decodes") == {(): 0}
    assert recording.values("tq_exporter.otlp.exports") == {}


def test_pushed_signals_start_at_zero() -> None:
    assert Recording(pushed=["traces"]).values("tq_exporter.otlp.exports") == {
        ("ok", "traces"): 0,
        ("failed", "traces"): 0,
    }


def test_it_counts(recording: Recording) -> None:
    recorder = recording.recorder
    recorder.error("ping", "DataPlaneTimeout")
    recorder.poll("metadata", "failed")
    recorder.skipped("storage")
    recorder.full_decodes(3)
    recorder.restart()
    recorder.export("metrics", "ok")
    assert recording.values("dataplane.errors")["DataPlaneTimeout", "ping"] == 1
    assert recording.values("tq_exporter.polls")["failed", "metadata"] == 1
    assert recording.values("tq_exporter.polls.skipped")["storage",] == 1
    assert recording.values("tq_exporter.polls.full_decodes")[()] == 3
    assert recording.values("dataplane.controller.restarts")[()] == 1
    assert recording.values("tq_exporter.otlp.exports")["ok", "metrics"] == 1


def test_pings_are_counted_apart_from_failed_ones_and_have_a_bucket_at_the_objective() -> None:
    recording = Recording(ping_slo_s=0.3)
    recording.recorder.ping(0.29, None)
    recording.recorder.ping(0.31, None)
    recording.recorder.ping(4.0, "DataPlaneTimeout")
    ok, failed = sorted(recording.points("dataplane.ping.duration"), key=lambda point: len(point.attributes))
    below = ok.explicit_bounds.index(0.3)
    assert sum(ok.bucket_counts[: below + 1]) == 1
    assert ok.count == 2
    assert dict(failed.attributes) == {"error.type": "DataPlaneTimeout"}


def test_the_error_counter_grows_with_every_failure_while_the_data_plane_is_lost(recording: Recording) -> None:
    state = State(recording.recorder, StoppedClock(), max_partitions=100, max_versions=16)
    made: dict[str, Any] = {"tracer": NoOpTracer(), "clock": StoppedClock()}
    look_up = DiscoverySource(AddressDiscovery("tcp://127.0.0.1:1"), lambda endpoint: None, **made)  # type: ignore[arg-type,return-value]
    ping = PingSource(NoOpDataPlaneClient(), Config(), **made)
    look_up.fold(Ok(LookUp(Found(Endpoint("tcp://127.0.0.1:1"))), 0.1), state)
    ping.fold(Ok(0.001, 0.001), state)
    for number in range(1, 5):
        ping.fold(Failed("ping", "DataPlaneUnavailable", "refused", 0.1), state)
        look_up.fold(Failed("discover", "DataPlaneTimeout", "no Ray", 20.0), state)
        assert state.lifecycle.discovery == "lost"
        errors = recording.values("dataplane.errors")
        assert errors["DataPlaneUnavailable", "ping"] == number
        assert errors["DataPlaneTimeout", "discover"] == number
        failed = next(point for point in recording.points("dataplane.ping.duration") if point.attributes)
        assert failed.count == number


def test_what_is_in_no_closed_list_counts_as_other(recording: Recording) -> None:
    recording.recorder.error("reboot", "ZeroDivisionError")
    recording.recorder.ping(0.1, "ZeroDivisionError")
    assert recording.values("dataplane.errors")["_OTHER", "_OTHER"] == 1
    assert dict(recording.points("dataplane.ping.duration")[0].attributes) == {"error.type": "_OTHER"}


def test_an_undeclared_source_outcome_or_signal_is_an_error(recording: Recording) -> None:
    with pytest.raises(UndeclaredError):
        recording.recorder.poll("weather", "ok")
    with pytest.raises(UndeclaredError):
        recording.recorder.poll("ping", "maybe")  # type: ignore[arg-type]
    with pytest.raises(UndeclaredError):
        recording.recorder.skipped("weather")
    with pytest.raises(UndeclaredError):
        recording.recorder.export("logs", "ok")  # type: ignore[arg-type]


def test_everything_recorded_is_declared(recording: Recording) -> None:
    recording.recorder.ping(0.1, "_OTHER")
    recording.recorder.export("metrics", "ok")
    declared = {metric.name: metric for metric in EXPORTER_METRICS}
    for metric in recording.metrics():
        assert (metric.unit, metric.description) == (declared[metric.name].unit, declared[metric.name].description)
        for point in recording.points(metric.name):
            check_attributes(declared[metric.name], point.attributes)
