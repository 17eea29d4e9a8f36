"""Durations wait for the next collection, none is lost or counted twice, and exemplars keep their time."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.metrics import CLIENT_OPERATION_DURATION
from dataplane.observability import MetricsDataPlaneClient, durations
from dataplane.observability.durations import Durations


class Histogram:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.recorded: list[tuple[float, Any, Context | None]] = []

    def record(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:
        self.recorded.append((amount, attributes, context))


def points(reader: InMemoryMetricReader) -> Any:
    data = reader.get_metrics_data()
    assert data is not None
    [points] = [
        metric.data.data_points
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == CLIENT_OPERATION_DURATION.name
    ]
    return points


def client(sampler: Sampler) -> tuple[MetricsDataPlaneClient, InMemoryMetricReader, InMemoryMetricReader]:
    readers = InMemoryMetricReader(), InMemoryMetricReader()
    meters = MeterProvider(metric_readers=readers, shutdown_on_exit=False)
    tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    made = MetricsDataPlaneClient(NoOpDataPlaneClient(), meter_provider=meters, tracer_provider=tracers)
    made.ping()
    assert points(readers[0])[0].count == 1  # from now on calls know that somebody collects
    return made, *readers


def test_each_reader_sees_every_call_once() -> None:
    plane, one, other = client(ALWAYS_OFF)
    for _ in range(5):
        plane.ping()
    assert len(plane._recorder.instruments.durations._waiting) == 5
    assert [point.count for point in points(one)] == [6]
    assert [point.count for point in points(other)] == [6]
    assert [point.exemplars for point in points(one)] == [[]]


def test_a_call_in_a_recorded_span_does_not_wait_and_is_the_exemplar() -> None:
    plane, reader, _ = client(ALWAYS_ON)
    plane.ping()
    assert not plane._recorder.instruments.durations._waiting
    [point] = points(reader)
    assert point.count == 2
    assert all(exemplar.span_id for exemplar in point.exemplars)


def test_where_nobody_has_collected_nothing_waits() -> None:
    histogram = Histogram()
    kept = Durations(histogram)  # type: ignore[arg-type]
    kept.record(1.0, {}, Context())
    assert [amount for amount, _, _ in histogram.recorded] == [1.0]


def test_where_nobody_collects_any_more_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "_MAX_WAITING", 2)
    histogram = Histogram()
    kept = Durations(histogram)  # type: ignore[arg-type]
    kept.catch_up()
    for amount in (1.0, 2.0, 3.0):
        kept.record(amount, {"n": amount}, Context({"a": 1}))
    assert [amount for amount, _, _ in histogram.recorded] == [3.0]
    kept.catch_up()
    assert histogram.recorded[1:] == [(1.0, {"n": 1.0}, Context()), (2.0, {"n": 2.0}, Context())]


def test_what_waits_in_a_parent_is_not_its_childs() -> None:
    histogram = Histogram()
    kept = Durations(histogram)  # type: ignore[arg-type]
    kept.catch_up()
    kept.record(1.0, {}, Context())
    kept.reset()
    kept.catch_up()
    assert histogram.recorded == []
