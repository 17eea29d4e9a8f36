"""The last hour for the live page: samples of snapshots, kept in a fixed amount of memory.

Two windows, a fine one over the last minutes and a coarse one over the last hour. All arrays are ring buffers allocated
at the start, so neither time nor the number of partitions makes them grow. A value that is unknown at a sample is a
gap, never 0 and never the value before.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec

from dataplane.groups import GROUP_STATES
from exporter.clock import Clock
from exporter.model.past import Past, Samples, TaskProgress
from exporter.model.snapshot import (
    DISCOVERY_STATES,
    NEVER_WHOLE,
    DiscoveryState,
    Incident,
    PartitionFlow,
    PartitionState,
    RoleFlow,
    Snapshot,
)
from exporter.model.storage import StoreState

__all__ = [
    "COLUMNS",
    "JUDGED_COLUMNS",
    "MAX_BYTES",
    "MAX_SERIES",
    "PLANE_COLUMNS",
    "SAMPLES",
    "WINDOWS",
    "History",
    "PlaneState",
    "plane_state",
]

PlaneState = DiscoveryState | Literal["silent"]
"""State of the data plane: the discovery state, except that ``silent`` means found but not answering."""

WINDOWS: Final[Mapping[str, float]] = {"recent": 2.0, "hour": 24.0}
"""Name of each window to the seconds between two of its samples."""

SAMPLES: Final = 150
"""Samples per window: 5 minutes and 1 hour."""

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

JUDGED_COLUMNS: Final = (
    "failed",
    "arrived",
    "completed",
    "departed",
    "given_up",
    "staleness_max",
    "reference_version",
    "listed",
)
"""Those of them that conditions are judged by."""

PLANE_COLUMNS: Final = ("ping", "generation", "fill", "down", "unlisted", "evicted", "unplaced")
"""The columns of the data plane as a whole: seconds of the last ping, controllers seen, how full the fullest storage
unit is, 0..1, how many units do not answer, the keys that no partition lists, and of a Mooncake store the objects that
were evicted and those that found no room."""

MAX_BYTES: Final = 2 * 2**20
"""Upper bound of a history's memory: arrays, names, the log of polls and its last JSON. A test measures it."""

_FAILURES_KEPT = 60
_SUCCESSES_KEPT = 12
_CHANGES_KEPT = 20
_MAX_NAME = 256
_MAX_TEXT = 500
_TOTAL: Final = 0
_TRAINED: Final = MAX_SERIES + 1
_STATES: Final[tuple[PlaneState, ...]] = (*DISCOVERY_STATES, "silent")
_UNKNOWN = math.nan


def plane_state(snapshot: Snapshot) -> PlaneState:
    """Return the state of the data plane."""
    if snapshot.discovery == "found" and not snapshot.up:
        return "silent"
    return snapshot.discovery


@dataclass(frozen=True, slots=True)
class _Change:
    """When the data plane entered a state, seconds since the epoch, and why."""

    at: float
    state: PlaneState
    detail: str


@dataclass(frozen=True, slots=True)
class _Poll:
    """One poll, or several equal failures in a row: times of the first and the last, and how many."""

    at: float
    first_at: float
    count: int
    source: str
    ok: bool
    took: float | None = None
    operation: str = ""
    error_type: str = ""
    detail: str = ""


class History:
    """Records snapshots and returns them as columns over time. Thread-safe; does no I/O.

    Args:
        clock: Tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows = {name: _Window(every_s) for name, every_s in WINDOWS.items()}
        self._slots = _Slots()
        self._changes: deque[_Change] = deque(maxlen=_CHANGES_KEPT)
        self._failures: deque[_Poll] = deque(maxlen=_FAILURES_KEPT)
        self._successes: deque[_Poll] = deque(maxlen=_SUCCESSES_KEPT)
        self._newest_incident: Incident | None = None
        self._last_success: dict[str, float] = {}
        self._revision = 0
        self._encoded: dict[str, tuple[int, bytes]] = {}
        self._tasks: dict[str, TaskProgress] = {}
        self._hour: tuple[int, Samples] = (-1, Samples())
        self._past: tuple[int, Past] = (-1, Past())

    def observe(self, snapshot: Snapshot) -> None:
        """Record *snapshot*. Cheap unless a sample is due, so call it with every snapshot."""
        now = self._clock.monotonic()
        with self._lock:
            self._note_change(snapshot)
            self._note_polls(snapshot)
            self._note_tasks(snapshot)
            due = [window for window in self._windows.values() if window.is_due(now)]
            if not due:
                return
            self._revision += 1
            for slot in self._slots.assign(snapshot.partitions):
                for window in self._windows.values():
                    window.clear(slot)
            rows = self._rows(snapshot)
            state = _STATES.index(plane_state(snapshot))
            ping = next((one.duration for one in snapshot.sources if one.source == "ping" and one.up), None)
            fills = [unit.fill for unit in snapshot.storage if unit.fill is not None]
            store = snapshot.store or StoreState()
            down = sum(not unit.up for unit in snapshot.storage) if snapshot.storage else None
            filled = (max(fills, default=None), down, snapshot.unlisted_keys)
            held = (*filled, store.evicted_objects, store.allocation_failures) if snapshot.up else (None,) * 5
            plane = (ping, snapshot.generation, *held)
            for window in due:
                window.add(now, snapshot.taken_at, state, plane, rows)

    def note_degraded(self) -> None:
        """Note that the data plane is degraded, with the newest samples: that is judged only after they were taken."""
        with self._lock:
            fresh = [window.mark_degraded() for window in self._windows.values()]
            self._revision += any(fresh)

    def past(self) -> Past:
        """Return what is judged: :data:`JUDGED_COLUMNS` of the partitions that train, and :data:`PLANE_COLUMNS`."""
        with self._lock:
            revision, past = self._past
            if revision != self._revision:
                hour = self._windows["hour"]
                if self._hour[0] != hour.added:
                    self._hour = hour.added, hour.samples()
                since = self._changes[-1].at if self._changes else None
                past = Past(self._windows["recent"].samples(), self._hour[1], since, dict(self._tasks))
                self._past = self._revision, past
            return past

    def encode(self, window: str) -> bytes:
        """Return a window as JSON.

        ``at`` are the samples' times in seconds since the epoch, oldest first; every other array has one entry per
        sample, null where it was unknown. ``degraded`` says where a part of the data plane did not work. ``total`` is
        all partitions together, ``trained`` those that train, ``partitions`` has a series for at most
        :data:`MAX_SERIES` of those that exist.

        Args:
            window: A key of :data:`WINDOWS`.
        """
        with self._lock:
            revision, body = self._encoded.get(window, (-1, b""))
            if revision != self._revision:
                body = msgspec.json.encode(self._describe(window))
                self._encoded[window] = self._revision, body
            return body

    def _describe(self, name: str) -> dict[str, object]:
        window = self._windows[name]
        order = window.order()
        present = self._slots.present
        return {
            "window": name,
            "interval": window.every_s,
            "samples": SAMPLES,
            "at": window.times(order),
            "state": [_STATES[int(window.state[index])] for index in order],
            "degraded": [bool(window.degraded[index]) for index in order],
            "ping": _take(window.plane[0], order),
            "total": window.series(_TOTAL, order),
            "trained": window.series(_TRAINED, order),
            "partitions": [
                {"partition": partition, **window.series(slot, order)} for partition, slot in sorted(present.items())
            ],
            "changes": list(reversed(self._changes)),
            "failures": list(reversed(self._failures)),
            "successes": list(reversed(self._successes)),
        }

    def _rows(self, snapshot: Snapshot) -> dict[int, Sequence[float]]:
        """Return a row per slot. A partition that is not listed is unknown and has no row."""
        flows = {flow.partition: flow for flow in snapshot.flows}
        train = next((flow for flow in snapshot.role_flows if flow.role == "train"), None)
        rows: dict[int, Sequence[float]] = {
            _TOTAL: _row(snapshot.total, snapshot.total_flow, snapshot.taken_at),
            _TRAINED: _row(_with_reference(snapshot), train, snapshot.taken_at),
        }
        for part in snapshot.partitions:
            slot = self._slots.present.get(part.partition)
            if slot is not None:
                rows[slot] = _row(part, flows.get(part.partition), snapshot.taken_at)
        return rows

    def _note_change(self, snapshot: Snapshot) -> None:
        state = plane_state(snapshot)
        if self._changes and self._changes[-1].state == state:
            return
        details = {one.source: one.detail for one in snapshot.sources}
        detail = "" if state == "found" else details.get("ping") or details.get("discovery") or ""
        self._changes.append(_Change(snapshot.taken_at, state, detail[:_MAX_TEXT]))
        self._revision += 1

    def _note_polls(self, snapshot: Snapshot) -> None:
        for one in snapshot.sources:
            if one.last_success is not None and one.last_success != self._last_success.get(one.source):
                self._last_success[one.source] = one.last_success
                self._successes.append(_Poll(one.last_success, one.last_success, 1, one.source, True, one.duration))
        fresh: list[Incident] = []
        for incident in snapshot.incidents:
            if incident is self._newest_incident:
                break
            fresh.append(incident)
        if fresh:
            self._newest_incident = fresh[0]
            self._revision += 1
        for incident in reversed(fresh):
            self._note_failure(incident)

    def _note_tasks(self, snapshot: Snapshot) -> None:
        """Note since when the task that judges a partition has consumed nothing, and since when nothing was added."""
        ratios = {(one.partition, one.task): one.consumed_ratio for one in snapshot.tasks}
        found: dict[str, TaskProgress] = {}
        for one in snapshot.samples[:MAX_SERIES]:
            ratio = ratios.get((one.partition, one.task or ""))
            if ratio is None:
                continue
            now, known = snapshot.taken_at, self._tasks.get(one.partition)
            consumed = round(ratio * one.samples)
            found[one.partition] = TaskProgress(
                consumed,
                one.samples,
                known.consumed_since if known is not None and known.consumed == consumed else now,
                known.samples_since if known is not None and known.samples == one.samples else now,
            )
        if found != self._tasks:
            self._tasks = found
            self._revision += 1

    def _note_failure(self, incident: Incident) -> None:
        """Keep a failure. A repetition of its source's last one only raises its count and pushes no other one out."""
        detail = incident.detail[:_MAX_TEXT]
        kind = (incident.source, incident.operation, incident.error_type, detail)
        for index in range(len(self._failures) - 1, -1, -1):
            known = self._failures[index]
            if known.source != incident.source:
                continue
            if (known.source, known.operation, known.error_type, known.detail) == kind:
                del self._failures[index]
                self._failures.append(replace(known, at=incident.at, count=known.count + 1))
                return
            break
        self._failures.append(_Poll(incident.at, incident.at, 1, incident.source, False, None, *kind[1:]))


class _Window:
    """One ring buffer of samples: a column per figure, for the total, each partition's slot, and those that train."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.state = array("b", bytes(SAMPLES))
        self.degraded = array("b", bytes(SAMPLES))
        self.plane = [_blank() for _ in PLANE_COLUMNS]
        self.added = 0
        self._monotonic = _blank()
        self._columns = [[_blank() for _ in COLUMNS] for _ in range(MAX_SERIES + 2)]
        self._due = -math.inf
        self._last_time = 0.0

    def is_due(self, now: float) -> bool:
        return now >= self._due

    def add(
        self,
        now: float,
        time: float,
        state: int,
        plane: Sequence[float | None],
        rows: Mapping[int, Sequence[float]],
    ) -> None:
        # On a grid, so that samples do not drift apart. After a pause the grid starts anew.
        on_grid = self._due + self.every_s
        self._due = on_grid if on_grid > now else now + self.every_s
        index = self.added % SAMPLES
        self.added += 1
        self._last_time = time
        self._monotonic[index] = now
        self.state[index] = state
        self.degraded[index] = False
        for column, value in zip(self.plane, plane, strict=True):
            column[index] = _UNKNOWN if value is None else value
        unknown = (_UNKNOWN,) * len(COLUMNS)
        for slot, columns in enumerate(self._columns):
            for column, figure in zip(columns, rows.get(slot, unknown), strict=True):
                column[index] = figure

    def mark_degraded(self) -> bool:
        """Mark the newest sample; return whether it was not marked before."""
        index = (self.added - 1) % SAMPLES
        before, self.degraded[index] = self.degraded[index], True
        return self.added > 0 and not before

    def clear(self, slot: int) -> None:
        """Clear a slot, which belongs to another partition from now on."""
        self._columns[slot] = [_blank() for _ in COLUMNS]

    def order(self) -> list[int]:
        """Return the indices of the samples, oldest first."""
        return [number % SAMPLES for number in range(max(self.added - SAMPLES, 0), self.added)]

    def times(self, order: Iterable[int]) -> list[float]:
        """Return the samples' times by the present wall clock, so that setting the clock does not reorder the past."""
        last = self._monotonic[(self.added - 1) % SAMPLES]
        return [round(self._last_time - (last - self._monotonic[index]), 3) for index in order]

    def samples(self) -> Samples:
        order = self.order()
        columns = {name: _take(self._columns[_TRAINED][COLUMNS.index(name)], order) for name in JUDGED_COLUMNS}
        listed = columns["listed"]
        found = _STATES.index("found")
        known = [self.state[index] == found and listed[at] is not None for at, index in enumerate(order)]
        plane = {name: _take(column, order) for name, column in zip(PLANE_COLUMNS, self.plane, strict=True)}
        return Samples(self.times(order) if order else [], known, {**columns, **plane})

    def series(self, slot: int, order: Sequence[int]) -> dict[str, list[float | None]]:
        return {name: _take(column, order) for name, column in zip(COLUMNS, self._columns[slot], strict=True)}


class _Slots:
    """Which partition has which series. A partition keeps its slot until it is gone and another one needs it."""

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


def _row(part: PartitionState | None, flow: PartitionFlow | RoleFlow | None, time: float) -> Sequence[float]:
    counts = (_UNKNOWN,) * 5 if flow is None else _counts(flow)
    if part is None:
        return (*(_UNKNOWN,) * len(GROUP_STATES), *counts, *(_UNKNOWN,) * 4)
    return (
        *(part.groups[state] for state in GROUP_STATES),
        *counts,
        *(
            _UNKNOWN if value is None else value
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


def _blank() -> array[float]:
    return array("d", [_UNKNOWN]) * SAMPLES


def _take(column: array[float], order: Iterable[int]) -> list[float | None]:
    """Return a column's figures; whole numbers as integers, which halves the JSON."""
    found: list[float | None] = []
    for index in order:
        value = column[index]
        if math.isnan(value):
            found.append(None)
        else:
            found.append(int(value) if value.is_integer() else round(value, 6))
    return found
