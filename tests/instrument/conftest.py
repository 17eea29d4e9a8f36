"""An OpenTelemetry SDK per test, and access to what it received."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.observability import MetricsDataPlaneClient
from dataplane.observability.effects import trainer_version


class Telemetry:
    """An SDK that keeps all metrics, spans and logs."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = InMemorySpanExporter()
        self.meters = MeterProvider(metric_readers=[self._reader], shutdown_on_exit=False)
        self.tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))

    def wrap(self, inner: Any, on_event: Any = None, **options: Any) -> MetricsDataPlaneClient:
        return MetricsDataPlaneClient(
            inner, on_event, meter_provider=self.meters, tracer_provider=self.tracers, **options
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def metrics(self) -> dict[str, Any]:
        """Return the metrics by name, as a reader gets them now."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[tuple[tuple[str, str], ...], Any]:
        """Return one metric's points by their sorted attributes: a counter's value, a histogram's point."""
        metric = self.metrics().get(name)
        if metric is None:
            return {}
        return {
            tuple(sorted(point.attributes.items())): getattr(point, "value", point) for point in metric.data.data_points
        }

    def value(self, name: str, **attributes: str) -> Any:
        """Return the point of *name* with exactly these attributes (``__`` stands for a dot), None without one."""
        wanted = tuple(sorted((key.replace("__", "."), value) for key, value in attributes.items()))
        return self.points(name).get(wanted)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def noop() -> Iterator[NoOpDataPlaneClient]:
    client = NoOpDataPlaneClient()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _nothing_published() -> Iterator[None]:
    before, trainer_version.published = trainer_version.published, None
    yield
    trainer_version.published = before
