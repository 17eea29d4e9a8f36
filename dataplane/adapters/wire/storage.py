"""Reads a storage unit's metrics over its request socket, without changing anything in the unit."""

from __future__ import annotations

from dataclasses import dataclass

from dataplane.adapters.wire.connection import KnownSender, WireConnection
from dataplane.adapters.wire.protocol import decode_metrics

__all__ = ["StorageUnitMetrics", "StorageUnitReader"]


@dataclass(frozen=True, slots=True)
class StorageUnitMetrics:
    """The metrics of a storage unit.

    Attributes:
        capacity: Most rows that it can store, None when unlimited.
        keys: Rows that it stores.
        memory_bytes: Resident memory of its process, None when the unit could not measure it.
    """

    capacity: int | None
    keys: int
    memory_bytes: int | None


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
            max_reply_bytes=2**20,
        )

    def read(self) -> StorageUnitMetrics:
        """Ask the unit for its metrics.

        Raises:
            DataPlaneUnavailable: The unit is gone or replaced, or this reader is closed.
            DataPlaneTimeout: The unit exists but does not answer.
            DataPlaneReadError: The unit reported an error, or its reply cannot be read.
        """
        numbers = self._connection.call(
            "GET_METRICS", {}, decode_metrics, timeout_s=self._timeout_s, operation="read_storage"
        )
        return StorageUnitMetrics(numbers.capacity, numbers.active_keys, numbers.process_rss_bytes or None)

    def close(self) -> None:
        """Close the connection, idempotently. Later reads raise DataPlaneUnavailable."""
        self._connection.close()
