"""The pull side: the merged metrics as Prometheus or OpenMetrics text."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricsData
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from exporter.telemetry.merged import MergedMetrics

__all__ = ["ScrapeReader"]


class ScrapeReader(PrometheusMetricReader):
    """The SDK's Prometheus reader, with the rendered metrics added to every collection.

    Args:
        merged: Adds the rendered metrics.
    """

    def __init__(self, merged: MergedMetrics) -> None:
        self._merged = merged
        self._lock = threading.Lock()
        self._received = False
        self._scrape_registry = CollectorRegistry()
        super().__init__(scope_info_enabled=False, registry=self._scrape_registry)
        self._collector._callback = self._collect_always  # type: ignore[assignment]  # inferred from None

    def scrape(self, accept: str | None) -> tuple[bytes, str]:
        """Return the exposition and its content type.

        Args:
            accept: The request's ``Accept`` header; None gives the classic text format.

        Raises:
            UndeclaredError: The snapshot has a value that the catalogue does not declare.
        """
        encode, content_type = choose_encoder(accept or "")
        with self._lock:  # two collections at once would each return the other's series, too
            return encode(self._scrape_registry), content_type

    def _collect_always(self) -> None:
        """Collect. A disabled SDK collects nothing, but the metrics of the snapshot must still be exposed."""
        self._received = False
        self.collect()
        if not self._received:
            self._receive_metrics(MetricsData([]))

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._received = True
        super()._receive_metrics(self._merged.complete(metrics_data), timeout_millis, **kwargs)
