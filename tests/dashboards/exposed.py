"""Expositions of the targets that are no exporter: the instrumented client, and TransferQueue itself."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dataplane import metrics as declared

__all__ = ["Client", "OwnEndpoint"]

_CALLS: Final = ("put_samples", "list_metadata", "get_samples", "pop")
_ROWS: Final = 4


class Client:
    """What the instrumented client of one process exposes: the metrics that are declared, with figures made up.

    Args:
        slow: How many times longer its calls take than usual.
    """

    def __init__(self, slow: int) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        meter = MeterProvider([reader]).get_meter("dataplane")
        self._duration = meter.create_histogram(
            declared.CLIENT_OPERATION_DURATION.name,
            "s",
            explicit_bucket_boundaries_advisory=declared.CLIENT_OPERATION_DURATION.boundaries,
        )
        self._lag = meter.create_histogram(
            declared.CLIENT_CONSUMED_LAG.name,
            declared.CLIENT_CONSUMED_LAG.unit,
            explicit_bucket_boundaries_advisory=declared.CLIENT_CONSUMED_LAG.boundaries,
        )
        self._counters = {
            metric.name: meter.create_counter(metric.name, metric.unit)
            for metric in declared.CLIENT_METRICS
            if metric.kind == "counter"
        }
        self._slow = slow

    def scrape(self, step: int, error: str | None) -> str:
        """Make the calls of one step, which end with *error* if there is one, and return the exposition."""
        count = self._counters
        for number, operation in enumerate(_CALLS, start=1):
            attributes: dict[str, Any] = {
                "messaging.system": "transfer_queue",
                "messaging.operation.name": operation,
                "messaging.destination.name": "train",
            }
            on = {"operation": operation, "partition": "train"}
            for call in range(12 // number):
                if error is not None:
                    self._duration.record(4.0, {**attributes, "error.type": error})
                    count["dataplane.client.errors"].add(1, {**on, "error.type": error})
                    continue
                self._duration.record(0.002 * number * self._slow * (1 + call % 4), attributes)
                direction = "write" if operation == "put_samples" else "read"
                count["dataplane.client.keys"].add(_ROWS, {**on, "direction": direction})
                if operation in ("put_samples", "get_samples"):
                    count["dataplane.client.io"].add(65_536 * _ROWS, {**on, "direction": direction})
                if operation in ("get_samples", "pop"):
                    self._lag.record((step + call) % 4, on)
                    count["dataplane.client.lineage.misses"].add(call % 2, on)
        count["dataplane.client.observer.failures"].add(0 if step % 20 else 1)
        return generate_latest(self._registry).decode()


class OwnEndpoint:
    """TransferQueue's own metrics, as Prometheus scrapes them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        kept = {"registry": self._registry}
        self._requests = Counter("tq_controller_request", "", ["op_type"], **kept)  # type: ignore[arg-type]
        self._durations = Histogram("tq_controller_request_duration_seconds", "", ["op_type"], **kept)  # type: ignore[arg-type]
        self._memory = Gauge("tq_controller_memory_rss_bytes", "", **kept)  # type: ignore[arg-type]
        self._latency = Gauge(
            "tq_storage_request_latency_p99",
            "",
            ["storage_unit_id", "op_type"],
            **kept,  # type: ignore[arg-type]
        )
        self._scrapes = 0

    def scrape(self) -> str:
        """Return the exposition after some requests."""
        self._scrapes += 1
        for number, operation in enumerate(("KV_LIST", "GET_META", "CLEAR_META"), start=1):
            self._requests.labels(operation).inc(60 / number)
            self._durations.labels(operation).observe(0.003 * number)
        self._memory.set(300_000_000 + 100_000 * self._scrapes)
        for unit in ("TQ_STORAGE_UNIT_0", "TQ_STORAGE_UNIT_1"):
            self._latency.labels(unit, "PUT").set(0.004 + 0.0001 * (self._scrapes % 5))
        return generate_latest(self._registry).decode()
