"""Counters and histograms of the flow of groups under one label or role."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

from dataplane.groups import GROUP_STATES, GroupState
from exporter.model.histogram import Histogram
from exporter.model.snapshot import LAG_BOUNDS, RESIDENCE_BOUNDS, PartitionFlow, Role, RoleFlow

__all__ = ["FlowCounters"]


class _Accumulator:
    """A histogram that grows."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def record(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: _Accumulator) -> None:
        self.counts = [one + another for one, another in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def freeze(self) -> Histogram:
        return Histogram(self.bounds, tuple(self.counts), self.sum)


class FlowCounters:
    """The flow under one label or role. Not thread-safe.

    Args:
        since: When all counts were 0, seconds since the epoch; None for the exporter's start.

    Attributes:
        arrived: See :class:`~exporter.model.snapshot.PartitionFlow`, also for the others.
        idle_since: Since when no partition counts here, monotonic seconds; None while one does.
    """

    def __init__(self, since: float | None = None) -> None:
        self.since = since
        self.arrived = self.completed = self.lost = self.restored = 0
        self.departed: Counter[GroupState] = Counter()
        self.residence = _Accumulator(RESIDENCE_BOUNDS)
        self.departure_lag = _Accumulator(LAG_BOUNDS)
        self.idle_since: float | None = None

    @property
    def events(self) -> int:
        """The sum of all counts."""
        return self.arrived + self.completed + self.departed.total() + self.lost + self.restored

    def add(self, other: FlowCounters) -> None:
        """Add all counts of *other*. The sum was 0 when the older of the two was."""
        self.since = None if self.since is None or other.since is None else min(self.since, other.since)
        self.arrived += other.arrived
        self.completed += other.completed
        self.departed.update(other.departed)
        self.lost += other.lost
        self.restored += other.restored
        self.residence.add(other.residence)
        self.departure_lag.add(other.departure_lag)

    def departed_one(self, state: GroupState, residence_s: float, lag: int | None) -> None:
        """Count a departure: the group's last state, how long it was there, and its lag, None when unknown."""
        self.departed[state] += 1
        self.residence.record(residence_s)
        if lag is not None and lag >= 0:
            self.departure_lag.record(lag)

    def of_label(self, label: str) -> PartitionFlow:
        """Return the counts as those of *label*."""
        return PartitionFlow(
            partition=label,
            arrived=self.arrived,
            completed=self.completed,
            departed=self.departed.total(),
            departed_by_state=self._departed_by_state(),
            lost=self.lost,
            restored=self.restored,
            residence=self.residence.freeze(),
            departure_lag=self.departure_lag.freeze(),
            since=self.since,
        )

    def of_role(self, role: Role) -> RoleFlow:
        """Return the counts as those of *role*."""
        return RoleFlow(role, self.arrived, self.completed, self._departed_by_state(), self.lost, self.restored)

    def _departed_by_state(self) -> Mapping[GroupState, int]:
        return {state: self.departed[state] for state in GROUP_STATES}
