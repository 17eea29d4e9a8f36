"""What one sample of the history consists of: columns per series, columns of the data plane, and who has a series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from dataplane.groups import GROUP_STATES
from exporter.model.snapshot import (
    DISCOVERY_STATES,
    NEVER_WHOLE,
    DiscoveryState,
    PartitionFlow,
    PartitionState,
    RoleFlow,
    Snapshot,
)
from exporter.model.storage import StoreState

__all__ = [
    "COLUMNS",
    "MAX_SERIES",
    "PLANE_COLUMNS",
    "PLANE_STATES",
    "UNKNOWN",
    "PlaneState",
    "Row",
    "Sample",
    "Slots",
    "plane_state",
    "sample",
]

PlaneState = DiscoveryState | Literal["silent"]
"""State of the data plane: the discovery state, except that ``silent`` means found but not answering."""

PLANE_STATES: Final[tuple[PlaneState, ...]] = (*DISCOVERY_STATES, "silent")

MAX_SERIES: Final = 20
"""Partitions with a series of their own. The total includes all partitions."""

COLUMNS: Final = (
    "ready",
    "incomplete",
    "uncommitted",
    "failed",
    "taken",
    "arrived",
    "completed",
    "departed",
    "given_up",
    "lost",
    "staleness_max",
    "staleness_mean",
    "reference_version",
    "listed",
)
"""The columns of a series. ``arrived`` to ``lost`` count since the exporter started, and change only with a listing;
``given_up`` counts the groups that departed without ever being complete: uncommitted, incomplete or failed. ``listed``
is how many seconds old the newest listing was at the sample."""

PLANE_COLUMNS: Final = ("ping", "generation", "fill", "down", "unlisted", "evicted", "unplaced")
"""The columns of the data plane as a whole: seconds of the last ping, controllers seen, how full the fullest storage
unit is, 0..1, how many units do not answer, the keys that no partition lists, and of a Mooncake store the objects that
were evicted and those that found no room."""

UNKNOWN: Final = math.nan
Row = Sequence[float]
"""A value per column, :data:`UNKNOWN` where it is not known."""

_MAX_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class Sample:
    """A snapshot, reduced to what is drawn over time.

    Attributes:
        state: The state of the data plane.
        plane: A value for each of :data:`PLANE_COLUMNS`, None where it is not known.
        total: The row of all partitions together.
        trained: The row of those that train.
        partitions: The rows of the partitions that have a series and are listed, by name.
    """

    state: PlaneState
    plane: Sequence[float | None]
    total: Row
    trained: Row
    partitions: dict[str, Row]


def plane_state(snapshot: Snapshot) -> PlaneState:
    """Return the state of the data plane."""
    if snapshot.discovery == "found" and not snapshot.up:
        return "silent"
    return snapshot.discovery


def sample(snapshot: Snapshot, slots: Slots) -> Sample:
    """Reduce *snapshot* to what is drawn over time. A partition that is not listed is unknown and has no row."""
    flows = {flow.partition: flow for flow in snapshot.flows}
    train = next((flow for flow in snapshot.role_flows if flow.role == "train"), None)
    time = snapshot.taken_at
    return Sample(
        plane_state(snapshot),
        _plane(snapshot),
        _row(snapshot.total, snapshot.total_flow, time),
        _row(_with_reference(snapshot), train, time),
        {
            part.partition: _row(part, flows.get(part.partition), time)
            for part in snapshot.partitions
            if part.partition in slots.present
        },
    )


class Slots:
    """Which partition has which series. A partition keeps its slot until it is gone and another one needs it.

    Attributes:
        present: The slots of the partitions that were last listed, by name; the first slot is 1.
    """

    def __init__(self) -> None:
        self._names: list[str | None] = [None] * MAX_SERIES
        self.present: dict[str, int] = {}

    def assign(self, partitions: Sequence[PartitionState]) -> list[int]:
        """Assign slots to the *partitions*, the fullest first; return the slots that have a new owner."""
        names = {part.partition for part in partitions}
        held = {name: slot for slot, name in enumerate(self._names, start=1) if name is not None}
        changed: list[int] = []
        newcomers = [part for part in partitions if part.partition not in held and len(part.partition) <= _MAX_NAME]
        free = [slot for slot, name in enumerate(self._names, start=1) if name not in names]
        free.sort(key=lambda slot: self._names[slot - 1] is not None)  # unused slots first
        newcomers.sort(key=lambda part: -sum(part.groups.values()))
        for part, slot in zip(newcomers, free, strict=False):
            self._names[slot - 1] = part.partition
            changed.append(slot)
        held = {name: slot for slot, name in enumerate(self._names, start=1) if name is not None}
        self.present = {name: slot for name, slot in held.items() if name in names}
        return changed


def _plane(snapshot: Snapshot) -> Sequence[float | None]:
    ping = next((one.duration for one in snapshot.sources if one.source == "ping" and one.up), None)
    fills = [unit.fill for unit in snapshot.storage if unit.fill is not None]
    store = snapshot.store or StoreState()
    down = sum(not unit.up for unit in snapshot.storage) if snapshot.storage else None
    filled = (max(fills, default=None), down, snapshot.unlisted_keys)
    held = (*filled, store.evicted_objects, store.allocation_failures) if snapshot.up else (None,) * 5
    return ping, snapshot.generation, *held


def _row(part: PartitionState | None, flow: PartitionFlow | RoleFlow | None, time: float) -> Row:
    counts = (UNKNOWN,) * 5 if flow is None else _counts(flow)
    if part is None:
        return (*(UNKNOWN,) * len(GROUP_STATES), *counts, *(UNKNOWN,) * 4)
    return (
        *(part.groups[state] for state in GROUP_STATES),
        *counts,
        *(
            UNKNOWN if value is None else value
            for value in (part.staleness_max, part.staleness_mean, part.reference_version)
        ),
        max(time - part.newest_listing, 0.0),
    )


def _with_reference(snapshot: Snapshot) -> PartitionState | None:
    """Return the partitions that train, with the reference in force: that of a partition is as old as its listing."""
    return snapshot.trained and replace(snapshot.trained, reference_version=snapshot.reference_version)


def _counts(flow: PartitionFlow | RoleFlow) -> tuple[float, ...]:
    departed = flow.departed_by_state if isinstance(flow, PartitionFlow) else flow.departed
    given_up = sum(departed[state] for state in NEVER_WHOLE)
    return flow.arrived, flow.completed, sum(departed.values()), given_up, flow.lost
