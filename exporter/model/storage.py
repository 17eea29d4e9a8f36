"""What the storage units report, and how many of their keys no partition lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

__all__ = [
    "OTHER_OPERATION",
    "STORAGE_OPERATIONS",
    "LastAnswer",
    "LastAnswers",
    "SegmentFigures",
    "StorageRequests",
    "StorageState",
    "StoreState",
    "Unlisted",
]

OTHER_OPERATION: Final = "other"
STORAGE_OPERATIONS: Final = (
    "PUT_DATA",
    "GET_DATA",
    "CLEAR_DATA",
    "GET_METRICS",
    "SAVE_STORAGE_CHECKPOINT",
    "LOAD_STORAGE_CHECKPOINT",
    OTHER_OPERATION,
)
"""TransferQueue's names of what a storage unit is asked to do; all further ones together are ``other``."""


@dataclass(frozen=True, slots=True)
class StorageRequests:
    """A storage unit's requests of one operation since its process started.

    Attributes:
        operation: One of :data:`STORAGE_OPERATIONS`.
        arrived: Requests that reached the unit's worker, None when it does not say.
        completed: Requests that the unit measured, None where TransferQueue's metrics are off.
        duration: Seconds that it spent on those, None where TransferQueue's metrics are off.
    """

    operation: str
    arrived: int | None = None
    completed: int | None = None
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentFigures:
    """One segment of a Mooncake store: its bytes in use, None when unknown, and its size in bytes."""

    used_bytes: int | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class StoreState:
    """What Mooncake's master tells of the store as a whole. Counters begin with the master; None is unknown.

    Attributes:
        objects: Stored objects, one per field of a row.
        clients: Processes that have a segment or transfer.
        evicted_objects: Objects that the master has evicted.
        evicted_bytes: Their size.
        allocation_failures: Objects that found no room.
        lookup_misses: Objects that a read asked for and that were not there, counted again with each retry.
    """

    objects: int | None = None
    clients: int | None = None
    evicted_objects: int | None = None
    evicted_bytes: int | None = None
    allocation_failures: int | None = None
    lookup_misses: int | None = None


@dataclass(frozen=True, slots=True)
class LastAnswer:
    """What a storage unit reported when it last answered, and when that was, seconds since the epoch."""

    at: float
    capacity: int | None = None
    keys: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StorageState:
    """One storage unit at the last poll. A figure that it does not report is None; one that is down has none.

    Attributes:
        index: Its number, 0..n-1.
        unit_id: TransferQueue's id of it.
        capacity: Largest number of samples, None when unlimited or unknown.
        keys: Number of samples.
        memory_bytes: Resident memory of its process; of a Mooncake segment its bytes in use.
        error_type: Why it is down: ``DataPlaneUnavailable`` when it is gone, ``DataPlaneTimeout`` when it is silent, or
            another error type. None when it answered.
        detail: The same for display, empty when it answered.
        requests: Its requests by operation.
        ssd_bytes: Bytes of the values that are on SSD, None when SSD offload is off.
        ssd_values: Number of those values.
        ssd_fallbacks: Values that stayed in memory because they could not be written to SSD.
        accept_queue_peak_ratio: Highest use of the accept queue of its socket, None while TransferQueue's probe is off.
        socket_drops: Connections that the socket dropped since the probe started.
        memory_limit_bytes: Size of a Mooncake segment, None of other units.
        last_answer: Of one that is down, its last figures, None when it has never answered. For display only.
    """

    index: int
    unit_id: str
    capacity: int | None = None
    keys: int | None = None
    memory_bytes: int | None = None
    error_type: str | None = None
    detail: str = ""
    requests: tuple[StorageRequests, ...] = ()
    ssd_bytes: int | None = None
    ssd_values: int | None = None
    ssd_fallbacks: int | None = None
    accept_queue_peak_ratio: float | None = None
    socket_drops: int | None = None
    memory_limit_bytes: int | None = None
    last_answer: LastAnswer | None = None

    @property
    def up(self) -> bool:
        """Whether it answered."""
        return self.error_type is None

    @property
    def fill(self) -> float | None:
        """How full it is, 0..1: by keys or, without a limit of those, by bytes. None when unlimited or unknown."""
        for held, limit in ((self.keys, self.capacity), (self.memory_bytes, self.memory_limit_bytes)):
            if limit and held is not None:
                return held / limit
        return None


class LastAnswers:
    """The last figures of each storage unit, so that one that stops to answer does not take them along."""

    def __init__(self) -> None:
        self._known: dict[str, LastAnswer] = {}

    def note(self, units: Iterable[StorageState], time: float) -> tuple[StorageState, ...]:
        """Return *units*, as polled at *time*, with the last figures of those that are down."""
        units = tuple(units)
        for unit in units:
            if unit.up:
                self._known[unit.unit_id] = LastAnswer(
                    time, unit.capacity, unit.keys, unit.memory_bytes, unit.memory_limit_bytes
                )
        return tuple(unit if unit.up else replace(unit, last_answer=self._known.get(unit.unit_id)) for unit in units)

    def forget(self) -> None:
        """Forget everything: another controller is polled, which has units of its own."""
        self._known.clear()


class Unlisted:
    """The keys that the storage units hold beyond the rows that the partitions list. Not thread-safe.

    They are known once the units were read between two complete listings: what they held, minus the rows of the larger
    listing. So rows that are put or cleared in between do not count. Rows without data hide as many unlisted keys.
    """

    def __init__(self) -> None:
        self._rows: int | None = None
        self._held: int | None = None
        self._value: int | None = None

    @property
    def value(self) -> int | None:
        """Number of unlisted keys, at least; None while it is unknown."""
        return self._value

    def storage_read(self, keys: int | None) -> None:
        """Note how many keys all units hold; None when a unit did not answer."""
        if keys is None:
            self._held = self._value = None
        elif self._rows is not None:
            self._held = keys if self._held is None else min(self._held, keys)

    def listed(self, rows: int | None) -> None:
        """Note how many rows all partitions list; None when a partition could not be listed in that round."""
        before, self._rows = self._rows, rows
        held, self._held = self._held, None
        if rows is None:
            self._value = None
        elif before is not None and held is not None:
            self._value = max(0, held - max(before, rows))

    def forget(self) -> None:
        """Forget everything: another controller is polled, or what is known is stale."""
        self._rows = self._held = self._value = None
