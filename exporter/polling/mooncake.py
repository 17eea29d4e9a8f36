"""Reads what Mooncake's master tells of its segments and objects, and only what the exporter uses of it."""

from __future__ import annotations

import math
from typing import Final

from dataplane.errors import DataPlaneReadError
from exporter.model.storage import SegmentFigures, StoreState
from exporter.polling.http_page import MetricsPage, samples

__all__ = ["MAX_SEGMENTS", "MooncakeReader", "parse"]

MAX_SEGMENTS: Final = 4096
"""A page with more segments is refused."""

_OPERATION: Final = "storage_metrics"

_TOTALS: Final = {
    "master_key_count": "objects",
    "master_active_clients": "clients",
    "master_evicted_key_count": "evicted_objects",
    "master_evicted_size_bytes": "evicted_bytes",
    "master_put_start_alloc_failures_total": "allocation_failures",
    "master_get_replica_list_failures_total": "lookup_misses",
    "master_batch_get_replica_list_failed_items_total": "lookup_misses",
}
"""The master's metrics (mooncake-transfer-engine 0.3.13) and the figure that each adds to."""

_USED: Final = (*_TOTALS, "segment_allocated_bytes", "segment_total_capacity_bytes")


class MooncakeReader:
    """Reads the master's page of metrics. Not thread-safe, except :meth:`close`.

    Args:
        endpoint: ``HOST:PORT`` of the metrics, not of the master itself.
        timeout_s: Deadline of a reading in seconds.
    """

    def __init__(self, endpoint: str, *, timeout_s: float) -> None:
        self._page = MetricsPage(endpoint, whose="Mooncake's metrics", operation=_OPERATION, timeout_s=timeout_s)

    def read(self) -> tuple[dict[str, SegmentFigures], StoreState]:
        """Return what the page shows. For the errors see :meth:`MetricsPage.read` and :func:`parse`."""
        return self._page.read(parse)

    def close(self) -> None:
        """End a reading in flight, idempotently. Later readings raise DataPlaneUnavailable."""
        self._page.close()


def parse(page: bytes) -> tuple[dict[str, SegmentFigures], StoreState]:
    """Return the figures of each segment by its name, and those of the store. Impossible values count as unknown.

    Raises:
        DataPlaneReadError: It is not in Prometheus's text format, not of Mooncake's master, or has too many segments.
    """
    used: dict[str, int] = {}
    sizes: dict[str, int] = {}
    totals: dict[str, int] = {}
    for one in samples(page, _USED):
        if not (math.isfinite(one.value) and 0 <= one.value < 2**63):
            continue
        value, segment = int(one.value), one.labels.get("segment", "")
        if one.name == "segment_allocated_bytes":
            used[segment] = value
        elif one.name == "segment_total_capacity_bytes":
            sizes[segment] = value
        elif one.name in _TOTALS:
            figure = _TOTALS[one.name]
            totals[figure] = totals.get(figure, 0) + value
    if "objects" not in totals:
        raise DataPlaneReadError("the page shows no metrics of Mooncake's master")
    # The master keeps the name of a segment that has left, with the size 0.
    mounted = sorted(segment for segment, size in sizes.items() if size)
    if len(mounted) > MAX_SEGMENTS:
        raise DataPlaneReadError(f"the page has more than {MAX_SEGMENTS} segments")
    segments = {name: SegmentFigures(used.get(name), sizes[name]) for name in mounted}
    return segments, StoreState(**totals)
