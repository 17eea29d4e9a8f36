"""What the history tells of the partitions that train: when a counter last grew, what is usual, what has changed.

Pure functions of samples. Time that nobody watched is not taken for time in which nothing happened.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

__all__ = ["Fall", "Past", "Pulse", "Samples", "TaskProgress"]

_LEAST_GROWTHS: Final = 4
"""With fewer, the usual time between them is not known."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One window of the history.

    Attributes:
        at: The samples' times, seconds since the epoch, oldest first.
        known: Whether the partitions that train were known at each sample.
        columns: Values by name, one per sample, None where unknown.
    """

    at: Sequence[float] = ()
    known: Sequence[bool] = ()
    columns: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a counter grows.

    Attributes:
        last: When it was last seen to grow, seconds since the epoch, None when it was not.
        quiet_since: Since when it has been watched without growing.
        quiet_for: For how many seconds it has not grown, up to the last listing.
        usual: The usual seconds between two growths, None while they are too few.
    """

    last: float | None
    quiet_since: float
    quiet_for: float
    usual: float | None


@dataclass(frozen=True, slots=True)
class Fall:
    """When a value fell, seconds since the epoch, and between which values."""

    at: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """Of a partition's samples: since when none was consumed by the task that judges, and since when none was added."""

    consumed: int
    samples: int
    consumed_since: float
    samples_since: float


@dataclass(frozen=True)
class Past:
    """The history as it is judged.

    Attributes:
        recent: The fine window.
        hour: The coarse window.
        state_since: When the data plane entered its state, seconds since the epoch, None before the first snapshot.
        tasks: Progress by partition.
    """

    recent: Samples = Samples()
    hour: Samples = Samples()
    state_since: float | None = None
    tasks: Mapping[str, TaskProgress] = field(default_factory=dict)
    _pulses: dict[str, Pulse | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def pulse(self, column: str) -> Pulse | None:
        """Return how a counter grows, None while the partitions that train are not known."""
        if column not in self._pulses:
            self._pulses[column] = self._pulse(column)
        return self._pulses[column]

    def change(self, column: str, since: float) -> float:
        """Return by how much a column has changed since a time, as far back as the history goes."""
        window = self.recent if self.recent.at and self.recent.at[0] <= since else self.hour
        values = _since(window, column, since) or _since(self.recent, column, since)
        return values[-1] - values[0] if values else 0.0

    def last_fall(self, column: str) -> Fall | None:
        """Return when a column last fell from one sample to the next, None when it did not."""
        for window in (self.recent, self.hour):
            values = window.columns.get(column, ())
            for index in range(len(values) - 1, 0, -1):
                before, after = values[index - 1], values[index]
                if before is not None and after is not None and after < before:
                    return Fall(window.at[index], before, after)
        return None

    def values(self, column: str) -> list[float]:
        """Return a column's known values in the coarse window, oldest first."""
        return [value for value in self.hour.columns.get(column, ()) if value is not None]

    def slope(self, column: str, seconds: float) -> float | None:
        """Return the mean growth per second of a column in the last *seconds*.

        None while less than a third of that time is known: what fills up at first may not go on to do so.
        """
        points = [
            (at, value)
            for at, value in zip(self.hour.at, self.hour.columns.get(column, ()), strict=False)
            if value is not None and at >= self.hour.at[-1] - seconds
        ]
        if len(points) < _LEAST_GROWTHS or points[-1][0] - points[0][0] < seconds / 3:
            return None
        return statistics.linear_regression(*zip(*points, strict=True)).slope

    def above(self, column: str, limit: float, seconds: float) -> tuple[float, int] | None:
        """Return in which share of the last *seconds* a column was above *limit*, and how often that changed.

        None while nothing is known of that time.
        """
        known = [value > limit for value in self._last(column, seconds)]
        if not known:
            return None
        return sum(known) / len(known), sum(before != after for before, after in itertools.pairwise(known))

    def lowest(self, column: str, seconds: float, parts: int) -> list[float] | None:
        """Return the lowest value of a column in each of the last *parts* times *seconds*, oldest first.

        None while one of them is not known.
        """
        found: list[float] = []
        for index in range(parts, 0, -1):
            values = self._last(column, seconds * index, seconds * (index - 1))
            if not values:
                return None
            found.append(min(values))
        return found

    def _last(self, column: str, seconds: float, until: float = 0.0) -> list[float]:
        """Return a column's known values in the coarse window, from *seconds* to *until* seconds ago."""
        hour = self.hour
        return [
            value
            for at, value in zip(hour.at, hour.columns.get(column, ()), strict=False)
            if value is not None and until <= hour.at[-1] - at < seconds
        ]

    def _pulse(self, column: str) -> Pulse | None:
        recent = self.recent
        age = recent.columns["listed"][-1] if recent.at else None
        if age is None or not recent.known[-1]:
            return None
        growths = [_growths(window, column) for window in (recent, self.hour)]
        last = next((times[-1] for times in growths if times), None)  # the finer window is exact
        gaps = next((_gaps(times) for times in growths if len(times) >= _LEAST_GROWTHS), [])
        begin = self._watched_since
        quiet_since = begin if last is None else max(last, begin)
        # The time since the last listing is unknown: a counter is quiet only up to that listing.
        quiet_for = max(recent.at[-1] - age - quiet_since, 0.0)
        return Pulse(last, quiet_since, quiet_for, statistics.median_high(gaps) if gaps else None)

    @cached_property
    def _watched_since(self) -> float:
        """Return since when the partitions that train have been known without a gap."""
        begin = self.recent.at[-1]
        for window in (self.recent, self.hour):
            for at, known in zip(reversed(window.at), reversed(window.known), strict=True):
                if not known and at < begin:
                    return begin
                begin = min(begin, at)
        return begin


def _growths(window: Samples, column: str) -> list[float]:
    values = window.columns.get(column, ())
    return [
        window.at[index]
        for index in range(1, len(values))
        if (before := values[index - 1]) is not None and (here := values[index]) is not None and here > before
    ]


def _gaps(times: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def _since(window: Samples, column: str, since: float) -> list[float]:
    values = window.columns.get(column, ())
    return [value for at, value in zip(window.at, values, strict=False) if value is not None and at >= since]
