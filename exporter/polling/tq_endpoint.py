"""Reads TransferQueue's own metrics over HTTP, and only what the exporter uses of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from dataplane.errors import DataPlaneReadError
from exporter.model.histogram import Histogram
from exporter.model.tasks import (
    CONTROLLER_OPERATIONS,
    OTHER_OPERATION,
    REQUEST_BOUNDS,
    ControllerRequests,
    ControllerState,
    OwnMetrics,
    TaskState,
)
from exporter.polling.http_page import MetricsPage, samples

__all__ = ["TqMetricsReader", "parse"]

_OPERATION: Final = "tq_metrics"
_USED: Final = ("tq_partition_", "tq_controller_request_", "tq_controller_memory_rss_bytes", "tq_controller_uptime_")


class TqMetricsReader:
    """Reads the page at TransferQueue's metrics endpoint. Not thread-safe, except :meth:`close`.

    Args:
        endpoint: ``HOST:PORT``.
        timeout_s: Deadline of a reading in seconds.
    """

    def __init__(self, endpoint: str, *, timeout_s: float) -> None:
        self._page = MetricsPage(endpoint, whose="TransferQueue's metrics", operation=_OPERATION, timeout_s=timeout_s)

    def read(self) -> OwnMetrics:
        """Return what the page shows. For the errors see :meth:`MetricsPage.read` and :func:`parse`."""
        return self._page.read(parse)

    def close(self) -> None:
        """End a reading in flight, idempotently. Later readings raise DataPlaneUnavailable."""
        self._page.close()


def parse(page: bytes) -> OwnMetrics:
    """Return what a page of TransferQueue's metrics shows. Values that are impossible count as unknown.

    Raises:
        DataPlaneReadError: It is not in Prometheus's text format, or not of TransferQueue's controller.
    """
    counts: dict[str, int] = {}
    consumed: dict[tuple[str, str], float] = {}
    produced: dict[tuple[str, str], float] = {}
    arrived: dict[str, int] = defaultdict(int)
    failed: dict[str, int] = defaultdict(int)
    sums: dict[str, float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    memory: int | None = None
    uptime: float | None = None
    for one in samples(page, _USED):
        name, labels, value = one.name, one.labels, one.value
        partition, task = labels.get("partition_id", ""), labels.get("task_name", "")
        operation = labels.get("op_type", "")
        operation = operation if operation in CONTROLLER_OPERATIONS else OTHER_OPERATION
        if not (math.isfinite(value) and 0 <= value < 2**63):
            continue
        if name == "tq_partition_samples_total":
            counts[partition] = int(value)
        elif name == "tq_partition_consumption_progress":
            consumed[partition, task] = value
        elif name == "tq_partition_production_progress":
            produced[partition, task] = value
        elif name == "tq_controller_request_total":
            arrived[operation] += int(value)
        elif name == "tq_controller_request_errors_total":
            failed[operation] += int(value)
        elif name == "tq_controller_request_duration_seconds_sum":
            sums[operation] += value
        elif name == "tq_controller_request_duration_seconds_bucket":
            buckets[operation][_bound(labels)] += value
        elif name == "tq_controller_memory_rss_bytes":
            memory = int(value) or None
        elif name == "tq_controller_uptime_seconds":
            uptime = value
    if uptime is None:
        raise DataPlaneReadError("the page shows no metrics of TransferQueue's controller")
    # A share of nothing is unknown; TransferQueue says 0.
    tasks = [
        TaskState(partition, task, consumed.get((partition, task)), produced.get((partition, task)))
        for partition, task in sorted(consumed.keys() | produced.keys())
        if counts.get(partition)
    ]
    requests = tuple(
        ControllerRequests(
            operation,
            arrived[operation],
            failed.get(operation),
            _histogram(buckets.get(operation, {}), sums.get(operation, 0.0)),
        )
        for operation in CONTROLLER_OPERATIONS
        if operation in arrived
    )
    return OwnMetrics(counts, tasks, ControllerState(memory, requests), uptime)


def _bound(labels: Mapping[str, str]) -> float:
    try:
        return float(labels["le"])
    except (KeyError, ValueError):
        return math.nan


def _histogram(cumulative: dict[float, float], total: float) -> Histogram | None:
    """Return the histogram of cumulated buckets, None when its bounds are not the declared ones."""
    if tuple(sorted(cumulative)) != (*REQUEST_BOUNDS, math.inf):
        return None
    counts = [int(cumulative[bound]) for bound in sorted(cumulative)]
    below = [0, *counts[:-1]]
    steps = [count - last for count, last in zip(counts, below, strict=True)]
    return Histogram(REQUEST_BOUNDS, tuple(steps), total) if min(steps) >= 0 else None
