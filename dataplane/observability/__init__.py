"""The instrumented client. TransferQueue itself is instrumented by :mod:`dataplane.observability.instrumentor`."""

from dataplane.observability.client import MetricsDataPlaneClient, log_event

__all__ = ["MetricsDataPlaneClient", "log_event"]
