"""The push side: the SDK's OTLP exporters, with the rendered metrics added and every outcome counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from exporter.telemetry.merged import MergedMetrics
from exporter.telemetry.outcomes import Outcomes
from exporter.telemetry.targets import PushTarget

__all__ = ["MetricPush", "SpanPush", "metric_exporter", "span_exporter"]


def metric_exporter(target: PushTarget) -> MetricExporter:
    """Return the SDK's exporter of metrics to *target*. gRPC is imported only here: it takes 11 MB."""
    if target.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        return Grpc(endpoint=target.endpoint, timeout=target.timeout)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

    return Http(endpoint=target.endpoint, timeout=target.timeout)


def span_exporter(target: PushTarget) -> SpanExporter:
    """Return the SDK's exporter of spans to *target*."""
    if target.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(endpoint=target.endpoint, timeout=target.timeout)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http(endpoint=target.endpoint, timeout=target.timeout)


class MetricPush(MetricExporter):
    """Pushes the merged metrics. A failure is counted and logged, never raised.

    Args:
        inner: The SDK's exporter.
        merged: Adds the rendered metrics.
        outcomes: Counts and logs.
    """

    def __init__(self, inner: MetricExporter, merged: MergedMetrics, outcomes: Outcomes) -> None:
        super().__init__(inner._preferred_temporality, inner._preferred_aggregation)
        self._inner = inner
        self._merged = merged
        self._outcomes = outcomes

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """See :meth:`MetricExporter.export`."""
        try:
            result = self._inner.export(self._merged.complete(metrics_data), timeout_millis, **kwargs)
        except Exception as error:  # whatever it is, the next push must still happen
            self._outcomes.failed(error)
            return MetricExportResult.FAILURE
        if result is MetricExportResult.SUCCESS:
            self._outcomes.ok()
        else:
            self._outcomes.failed()
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """See :meth:`MetricExporter.force_flush`."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """See :meth:`MetricExporter.shutdown`."""
        self._inner.shutdown(timeout_millis, **kwargs)


class SpanPush(SpanExporter):
    """Pushes spans. A failure is counted and logged, never raised.

    Args:
        inner: The SDK's exporter.
        outcomes: Counts and logs.
    """

    def __init__(self, inner: SpanExporter, outcomes: Outcomes) -> None:
        self._inner = inner
        self._outcomes = outcomes

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See :meth:`SpanExporter.export`."""
        try:
            result = self._inner.export(spans)
        except Exception as error:  # whatever it is, the next push must still happen
            self._outcomes.failed(error)
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._outcomes.ok()
        else:
            self._outcomes.failed()
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See :meth:`SpanExporter.force_flush`."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """See :meth:`SpanExporter.shutdown`."""
        self._inner.shutdown()
