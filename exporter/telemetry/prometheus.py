"""The pull side: the merged metrics as Prometheus or OpenMetrics text."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricsData
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from exporter.telemetry.merged import MergedMetrics

__all__ = ["ScrapeReader"]

_KNOWN: Final = {
    ("application/openmetrics-text", None),
    ("application/openmetrics-text", "1.0.0"),
    ("text/plain", None),
    ("text/plain", "0.0.4"),
    ("text/plain", "1.0.0"),
    ("text/*", None),
    ("*/*", None),
}
"""The formats and versions that can be given. Of anything else prometheus_client makes a guess or an exception."""
_QUALITY: Final = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")


class ScrapeReader(PrometheusMetricReader):
    """The SDK's Prometheus reader, with the rendered metrics added to every collection.

    Args:
        merged: Adds the rendered metrics.
    """

    def __init__(self, merged: MergedMetrics) -> None:
        self._merged = merged
        self._lock = threading.Lock()
        self._received = False
        self._scrape_registry = CollectorRegistry(support_collectors_without_names=True)  # for restricted_registry
        super().__init__(scope_info_enabled=False, registry=self._scrape_registry)
        self._collector._callback = self._collect_always  # type: ignore[assignment]  # inferred from None

    def scrape(self, accept: str | None, names: Sequence[str] = ()) -> tuple[bytes, str]:
        """Return the exposition and its content type.

        Args:
            accept: The request's ``Accept`` header; None gives the classic text format.
            names: Names of the only samples to return, as ``name[]`` of Prometheus's clients; all when there are none.

        Raises:
            UndeclaredError: The snapshot has a value that the catalogue does not declare.
        """
        encode, content_type = choose_encoder(_preferred(accept or ""))
        registry = self._scrape_registry.restricted_registry(names) if names else self._scrape_registry
        with self._lock:  # two collections at once would each yield the other's series again
            return encode(registry), content_type

    def _collect_always(self) -> None:
        """Collect. A disabled SDK collects nothing, but the metrics of the snapshot must still be exposed."""
        self._received = False
        self.collect()
        if not self._received:
            self._receive_metrics(MetricsData([]))

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._received = True
        super()._receive_metrics(self._merged.complete(metrics_data), timeout_millis, **kwargs)


def _preferred(accept: str) -> str:
    """Return the range of an ``Accept`` header with the highest quality that is known here; empty when none is."""
    best, best_quality = "", 0.0
    for media_range in accept.split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        quality = values.pop("q", "1")
        if (kind.lower(), values.get("version")) not in _KNOWN or not _QUALITY.fullmatch(quality):
            continue
        if float(quality) > best_quality:
            best = "; ".join([kind.lower(), *(f"{name}={value}" for name, value in values.items())])
            best_quality = float(quality)
    return best
