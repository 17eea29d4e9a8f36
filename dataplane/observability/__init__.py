"""The instrumented client. To instrument TransferQueue itself, see :mod:`dataplane.observability.instrumentor`."""

from dataplane.observability.client import MetricsDataPlaneClient, log_event
from dataplane.observability.steps import breakdown_table, cluster_step_metrics, headline_series, merge_snapshots

__all__ = [
    "MetricsDataPlaneClient",
    "breakdown_table",
    "cluster_step_metrics",
    "headline_series",
    "log_event",
    "merge_snapshots",
]
