"""Reads a storage unit's metrics over its request socket, without changing anything in the unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dataplane.adapters.wire.connection import KnownSender, WireConnection
from dataplane.adapters.wire.limits import MAX_STORAGE_BYTES
from dataplane.adapters.wire.protocol import (
    OperationStats,
    decode_accept_queue,
    decode_arrivals,
    decode_metrics,
    decode_op_stats,
)
from dataplane.tags import MAX_EXACT_INT

__all__ = ["StorageUnitMetrics", "StorageUnitReader", "UnitRequests"]


@dataclass(frozen=True, slots=True)
class UnitRequests:
    """Requests of one operation since the unit's process started.

    Attributes:
        arrived: Requests that reached the unit's worker, None when it does not say.
        completed: Requests that the unit measured, None where TransferQueue's metrics are off or do not measure it.
        duration: Seconds that it spent on those, None as above.
    """

    arrived: int | None = None
    completed: int | None = None
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class StorageUnitMetrics:
    """The metrics of a storage unit.

    Attributes:
        capacity: Most rows that it can store, None when unlimited.
        keys: Rows that it stores.
        memory_bytes: Resident memory of its process, None when the unit could not measure it.
        requests: Its requests, by TransferQueue's name of the operation; that of the metrics themselves included.
        ssd_bytes: Bytes of the values that are on SSD, None when SSD offload is off.
        ssd_values: Number of those values, None as above.
        ssd_fallbacks: Values that could not be written to SSD and stayed in memory, None as above.
        accept_queue_peak_ratio: Highest occupancy of the accept queue of its socket, as a share of its length. None
            unless TransferQueue's probe (``TQ_ACCEPT_PROBE_INTERVAL``) runs.
        socket_drops: Connections that the socket dropped since the probe started, None as above.
    """

    capacity: int | None
    keys: int
    memory_bytes: int | None
    requests: Mapping[str, UnitRequests] = field(default_factory=dict)
    ssd_bytes: int | None = None
    ssd_values: int | None = None
    ssd_fallbacks: int | None = None
    accept_queue_peak_ratio: float | None = None
    socket_drops: int | None = None


class StorageUnitReader:
    """Reads one storage unit's metrics over one connection. Thread-safe.

    Args:
        address: The unit's put/get socket, ``tcp://HOST:PORT``.
        timeout_s: Deadline of a read in seconds.
        unit_id: The id that replies must have, None for any.

    Raises:
        ValueError: The address is not of that form.
    """

    def __init__(self, address: str, *, timeout_s: float = 5.0, unit_id: str | None = None) -> None:
        self._timeout_s = timeout_s
        self._connection = WireConnection(
            address,
            peer="storage unit",
            identity_prefix="metrics_collector_",  # A unit silently drops requests with another prefix.
            sender=KnownSender(unit_id),
            max_reply_bytes=MAX_STORAGE_BYTES,
        )

    def read(self) -> StorageUnitMetrics:
        """Ask the unit for its metrics.

        Raises:
            DataPlaneUnavailable: The unit is gone or replaced, or this reader is closed.
            DataPlaneTimeout: The unit exists but does not answer.
            DataPlaneReadError: The unit reported an error, or its reply cannot be read.
        """
        numbers = self._connection.call(
            "GET_METRICS", {}, decode_metrics, timeout_s=self._timeout_s, operation="storage_metrics"
        )
        on_ssd = bool(numbers.ssd_offload_enabled)  # the unit reports 0 of everything when it is off
        queue = decode_accept_queue(numbers.accept_queue)
        if queue is not None and not queue.samples:  # the probe runs and could read nothing yet
            queue = None
        return StorageUnitMetrics(
            _possible(numbers.capacity),
            numbers.active_keys,
            _possible(numbers.process_rss_bytes) or None,
            _requests(decode_arrivals(numbers.arrivals_by_op) or {}, decode_op_stats(numbers.op_stats) or {}),
            numbers.ssd_active_bytes if on_ssd else None,
            numbers.ssd_active_values if on_ssd else None,
            numbers.ssd_fallback_values_total if on_ssd else None,
            queue.peak_utilization if queue else None,
            queue.sk_drops_delta if queue else None,
        )

    def close(self) -> None:
        """Close the connection, idempotently. Later reads raise DataPlaneUnavailable."""
        self._connection.close()


def _possible(figure: int | None) -> int | None:
    """Return a figure that can be true: not below 0, and exact in a metric. Any other one is unknown."""
    return figure if figure is not None and 0 <= figure <= MAX_EXACT_INT else None


def _requests(arrived: Mapping[str, int], measured: Mapping[str, OperationStats]) -> dict[str, UnitRequests]:
    found = {name: UnitRequests(count) for name, count in arrived.items()}
    for name, stats in measured.items():
        count = int(stats.request_count)
        found[name] = UnitRequests(arrived.get(name), count, stats.latency_avg * count)
    return found
