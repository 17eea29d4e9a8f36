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
from typing import Final

import msgspec

from exporter.clock import Clock
from exporter.model.past import Past, Samples, TaskProgress
from exporter.model.samples import (
    COLUMNS,
    MAX_SERIES,
    PLANE_COLUMNS,
    PLANE_STATES,
    UNKNOWN,
    PlaneState,
    Row,
    Slots,
    plane_state,
    sample,
)
from exporter.model.snapshot import Incident, Snapshot

__all__ = ["JUDGED_COLUMNS", "MAX_BYTES", "SAMPLES", "WINDOWS", "History"]

WINDOWS: Final[Mapping[str, float]] = {"recent": 2.0, "hour": 24.0}
"""Name of each window to the seconds between two of its samples."""

SAMPLES: Final = 150
"""Samples per window: 5 minutes and 1 hour."""

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
"""The columns that conditions are judged by."""

MAX_BYTES: Final = 2 * 2**20
"""Upper bound of a history's memory: arrays, names, the log of polls and its last JSON. A test measures it."""

_FAILURES_KEPT = 60
_SUCCESSES_KEPT = 12
_CHANGES_KEPT = 20
_MAX_TEXT = 500
_TOTAL: Final = 0
_TRAINED: Final = MAX_SERIES + 1


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
        self._slots = Slots()
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
            taken = sample(snapshot, self._slots)
            present = self._slots.present
            rows: dict[int, Row] = {present[name]: row for name, row in taken.partitions.items()}
            rows[_TOTAL], rows[_TRAINED] = taken.total, taken.trained
            state = PLANE_STATES.index(taken.state)
            for window in due:
                window.add(now, snapshot.taken_at, state, taken.plane, rows)

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
            "state": [PLANE_STATES[int(window.state[index])] for index in order],
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
        rows: Mapping[int, Row],
    ) -> None:
        # On a grid, so that samples do not drift apart. After a pause a new grid starts.
        on_grid = self._due + self.every_s
        self._due = on_grid if on_grid > now else now + self.every_s
        index = self.added % SAMPLES
        self.added += 1
        self._last_time = time
        self._monotonic[index] = now
        self.state[index] = state
        self.degraded[index] = False
        for column, value in zip(self.plane, plane, strict=True):
            column[index] = UNKNOWN if value is None else value
        unknown = (UNKNOWN,) * len(COLUMNS)
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
        found = PLANE_STATES.index("found")
        known = [self.state[index] == found and listed[at] is not None for at, index in enumerate(order)]
        plane = {name: _take(column, order) for name, column in zip(PLANE_COLUMNS, self.plane, strict=True)}
        return Samples(self.times(order) if order else [], known, {**columns, **plane})

    def series(self, slot: int, order: Sequence[int]) -> dict[str, list[float | None]]:
        return {name: _take(column, order) for name, column in zip(COLUMNS, self._columns[slot], strict=True)}


def _blank() -> array[float]:
    return array("d", [UNKNOWN]) * SAMPLES


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
