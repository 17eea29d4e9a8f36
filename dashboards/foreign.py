"""Metrics of other programs that our queries use: Prometheus itself, and TransferQueue with ``metrics.enabled``.

Our own metrics are declared in :mod:`exporter.catalogue.metrics` and nowhere else.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PROMETHEUS", "TARGET_LABELS", "TRANSFER_QUEUE"]

TARGET_LABELS: Final = frozenset({"cluster", "instance", "job", "namespace", "run"})
"""Labels of a target, which every series has. ``run`` is the one that our docs recommend; many setups add others."""

PROMETHEUS: Final = {
    "up": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "partition", "storage_unit", "signal"}),
}
"""Series that Prometheus itself records, by name, with their labels in addition to those of the target."""

TRANSFER_QUEUE: Final = {
    "tq_controller_request_total": frozenset({"op_type"}),
    "tq_controller_request_duration_seconds_bucket": frozenset({"op_type", "le"}),
    "tq_controller_memory_rss_bytes": frozenset[str](),
    "tq_storage_request_latency_p99": frozenset({"storage_unit_id", "op_type"}),
}
"""Metrics on the port of TransferQueue 0.1.9 to 0.1.11 itself; only those that a dashboard shows."""
