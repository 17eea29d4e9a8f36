"""The hook that Ray runs in each process of a verl job: it sends metrics and spans of TransferQueue calls over OTLP.

``OTEL_EXPORTER_OTLP_ENDPOINT`` and the other standard variables say where to.
"""

from __future__ import annotations

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from dataplane.observability.instrumentor import TransferQueueInstrumentor

__all__ = ["setup"]


def setup() -> None:
    """Observe this process. Ray ends actors without a flush, so the intervals are short."""
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=2), export_interval_millis=5_000)
    metrics.set_meter_provider(MeterProvider([reader]))
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=2), schedule_delay_millis=1_000))
    trace.set_tracer_provider(tracers)
    TransferQueueInstrumentor().instrument()
