"""The instrumented client. To instrument TransferQueue itself, see :mod:`dataplane.observability.instrumentor`."""

from dataplane.observability.client import MetricsDataPlaneClient, log_event

__all__ = ["MetricsDataPlaneClient", "log_event"]
