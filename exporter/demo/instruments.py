"""OpenTelemetry for one demo process: the SDK, a Prometheus port of its own, and OTLP when configured."""

from __future__ import annotations

import threading
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import REGISTRY, start_http_server

from exporter.config import Otlp
from exporter.telemetry.otlp import metric_exporter, span_exporter
from exporter.telemetry.targets import push_target

__all__ = ["ProcessTelemetry"]

_HOST: Final = "127.0.0.1"
_OTLP_TIMEOUT_S: Final = 2.0
_PUSH_METRICS_MS: Final = 5000
_PUSH_SPANS_MS: Final = 1000


class ProcessTelemetry:
    """Sets this process's global providers, as an application does, and serves its metrics.

    Args:
        service: The process's ``service.name``.
        instance: Its ``service.instance.id``.
        otlp: Base URL of an OTLP receiver, None to push no metrics and make no spans.

    Attributes:
        url: URL of its metrics.
    """

    def __init__(self, service: str, instance: str, otlp: str | None) -> None:
        resource = Resource.create({"service.name": service, "service.instance.id": instance})
        readers: list[MetricReader] = [PrometheusMetricReader(scope_info_enabled=False)]
        self._tracers: TracerProvider | None = None
        if otlp is not None:
            receiver = Otlp(endpoint=otlp, timeout=_OTLP_TIMEOUT_S)
            if (target := push_target("metrics", receiver, {})) is not None:
                exporter = metric_exporter(target)
                readers.append(PeriodicExportingMetricReader(exporter, export_interval_millis=_PUSH_METRICS_MS))
            if (target := push_target("traces", receiver, {})) is not None:
                self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
                processor = BatchSpanProcessor(span_exporter(target), schedule_delay_millis=_PUSH_SPANS_MS)
                self._tracers.add_span_processor(processor)
                trace.set_tracer_provider(self._tracers)
        self._meters = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(self._meters)
        self._server: Any
        self._server, _ = start_http_server(0, addr=_HOST, registry=REGISTRY)
        self.url = f"http://{_HOST}:{self._server.server_port}/metrics"

    def shutdown(self, timeout_s: float) -> None:
        """Push what is left and close the port, within *timeout_s* seconds even when the receiver hangs."""
        self._server.shutdown()
        self._server.server_close()
        flush = threading.Thread(target=self._flush, args=(timeout_s,), name="demo-telemetry-flush", daemon=True)
        flush.start()
        flush.join(timeout_s)

    def _flush(self, timeout_s: float) -> None:
        if self._tracers is not None:
            self._tracers.shutdown()
        self._meters.shutdown(timeout_millis=timeout_s * 1000)
