"""Arrivals and departures of groups, counted by comparing each listing with the one before.

A group that lives for less than the time between two listings is never seen, so all counts are lower bounds.
Listings cannot tell trained from evicted groups: both count as departed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from dataplane.groups import DataPlaneGroupMeta
from exporter.model.occupancy import VersionReference
from exporter.model.snapshot import (
    ALL_PARTITIONS,
    LAG_BOUNDS,
    OTHER_PARTITION,
    RESIDENCE_BOUNDS,
    Histogram,
    PartitionFlow,
)

__all__ = ["COUNTER_LINGER_S", "FlowTracker"]

COUNTER_LINGER_S: Final = 600.0
"""How long the counters of a partition that is gone are still exposed, in seconds."""

_POLLS_BEFORE_RESET = 2


class _Resident(NamedTuple):
    """What is kept of a group between two listings. ``first_seen`` is monotonic, since the wall clock may jump."""

    first_seen: float
    created_at: float | None
    weight_version: int | None


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def record(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: _Histogram) -> None:
        self.counts = [one + another for one, another in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def freeze(self) -> Histogram:
        return Histogram(self.bounds, tuple(self.counts), self.sum)


class _Counters:
    """The flow under one label: a partition's name or ``other``."""

    def __init__(self) -> None:
        self.arrived = self.departed = self.lost = 0
        self.residence = _Histogram(RESIDENCE_BOUNDS)
        self.departure_lag = _Histogram(LAG_BOUNDS)
        self.idle_since: float | None = None

    def add(self, other: _Counters) -> None:
        self.arrived += other.arrived
        self.departed += other.departed
        self.lost += other.lost
        self.residence.add(other.residence)
        self.departure_lag.add(other.departure_lag)

    def freeze(self, label: str) -> PartitionFlow:
        return PartitionFlow(
            label,
            self.arrived,
            self.departed,
            self.lost,
            self.residence.freeze(),
            self.departure_lag.freeze(),
        )


class _Partition:
    """A partition that exists: its groups at the last listing and the newest version seen in it."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.residents: dict[str, _Resident] = {}
        self.newest_seen: int | None = None
        self.polls_below = 0
        self.arrived_below = False


class FlowTracker:
    """Remembers the last listing of each partition and counts what changed. Not thread-safe.

    Args:
        max_partitions: How many partitions keep a label of their own; more are counted under ``other``.
    """

    def __init__(self, max_partitions: int) -> None:
        self._max_partitions = max_partitions
        self._partitions: dict[str, _Partition] = {}
        self._counters: dict[str, _Counters] = {}
        self._expired = _Counters()  # the sum of the counters that are no longer exposed
        self._published: int | None = None
        self._epoch = 0.0  # the wall clock's time when the monotonic clock was 0, as of the last poll
        # Partitions that existed at the first poll and were not listed yet; None before that poll.
        self._unseen: set[str] | None = None

    def label(self, partition: str) -> str:
        """Return the label that *partition* is counted under: its name, or ``other`` past the limit."""
        known = self._partitions.get(partition)
        if known is not None:
            return known.label
        if partition in self._counters:
            return partition
        own = sum(1 for label in self._counters if label != OTHER_PARTITION)
        return partition if own < self._max_partitions else OTHER_PARTITION

    def reference(self, partition: str) -> VersionReference | None:
        """Return the version that lags in *partition* are counted from, None while none is known."""
        if self._published is not None:
            return VersionReference(self._published, "published")
        known = self._partitions.get(partition)
        if known is None or known.newest_seen is None:
            return None
        return VersionReference(known.newest_seen, "newest_seen")

    def first_seen(self, partition: str) -> Mapping[str, float]:
        """Return group id to the time when it was first seen, for the groups of the last listing."""
        residents = self._residents(partition)
        return {group_id: resident.first_seen + self._epoch for group_id, resident in residents.items()}

    def begin_poll(self, partitions: Iterable[str], published_version: int | None, *, time: float, now: float) -> None:
        """Begin a round over all partitions. The groups of partitions that are gone count as departed.

        Args:
            partitions: Every partition that exists now.
            published_version: The version that the trainer published, None when it publishes none.
            time: Seconds since the epoch.
            now: Monotonic seconds.
        """
        self._published = published_version
        self._epoch = time - now
        names = set(partitions)
        self._unseen = names if self._unseen is None else self._unseen & names
        for partition in self._partitions.keys() - names:
            self._depart(partition, self._partitions[partition].residents.values(), time)
            del self._partitions[partition]
        self._expire(now)

    def observe(self, partition: str, groups: Sequence[DataPlaneGroupMeta], *, time: float) -> None:
        """Compare a partition's *groups* with its last listing.

        The first listing of a partition that existed at the first poll is a baseline and counts nothing.

        Args:
            partition: Its name.
            groups: All of its groups.
            time: Seconds since the epoch.
        """
        known = self._partitions.get(partition)
        if known is None:
            known = self._partitions[partition] = _Partition(self.label(partition))
        counters = self._counters.setdefault(known.label, _Counters())
        before = known.residents
        now = time - self._epoch
        after: dict[str, _Resident] = {}
        newest: int | None = None
        newest_arrival: int | None = None
        for group in groups:
            version = group.weight_version
            seen = before.get(group.group_id)
            after[group.group_id] = _Resident(now if seen is None else seen.first_seen, group.created_at, version)
            if version is not None:
                newest = version if newest is None or version > newest else newest
                if seen is None:
                    newest_arrival = version if newest_arrival is None or version > newest_arrival else newest_arrival
        _update_newest_seen(known, newest, newest_arrival)
        if self._unseen is not None and partition in self._unseen:
            self._unseen.discard(partition)
        else:
            counters.arrived += len(after.keys() - before.keys())
        self._depart(partition, (before[group_id] for group_id in before.keys() - after.keys()), time)
        known.residents = after

    def lose_all(self) -> None:
        """Count all groups as lost and forget the versions, since a new controller answers."""
        for known in self._partitions.values():
            self._counters[known.label].lost += len(known.residents)
        self._partitions.clear()
        self._published = None
        if self._unseen is not None:
            self._unseen = set()

    def has_any_of(self, group_ids: Mapping[str, Iterable[str]]) -> bool:
        """Return whether any of *group_ids* (by partition) was resident at the last listing."""
        return any(not self._residents(partition).keys().isdisjoint(ids) for partition, ids in group_ids.items())

    def resident_partitions(self) -> set[str]:
        """Return the partitions that had groups at their last listing."""
        return {partition for partition, known in self._partitions.items() if known.residents}

    def flows(self) -> tuple[PartitionFlow, ...]:
        """Return the flow of every label, ordered by name."""
        return tuple(counters.freeze(label) for label, counters in sorted(self._counters.items()))

    def total(self) -> PartitionFlow:
        """Return the flow of all labels together since the start, including labels that are no longer exposed."""
        total = _Counters()
        for counters in (self._expired, *self._counters.values()):
            total.add(counters)
        return total.freeze(ALL_PARTITIONS)

    def _residents(self, partition: str) -> Mapping[str, _Resident]:
        known = self._partitions.get(partition)
        return {} if known is None else known.residents

    def _depart(self, partition: str, residents: Iterable[_Resident], time: float) -> None:
        counters = self._counters[self._partitions[partition].label]
        reference = self.reference(partition)
        for resident in residents:
            counters.departed += 1
            since = resident.first_seen + self._epoch if resident.created_at is None else resident.created_at
            counters.residence.record(max(time - since, 0.0))
            if reference is not None and resident.weight_version is not None:
                counters.departure_lag.record(reference.lag(resident.weight_version))

    def _expire(self, now: float) -> None:
        in_use = {known.label for known in self._partitions.values()}
        for label, counters in list(self._counters.items()):
            if label in in_use:
                counters.idle_since = None
            elif counters.idle_since is None:
                counters.idle_since = now
            elif now - counters.idle_since >= COUNTER_LINGER_S:
                self._expired.add(self._counters.pop(label))


def _update_newest_seen(known: _Partition, newest: int | None, newest_arrival: int | None) -> None:
    """Raise the newest version seen, or lower it when a run was resumed from an older checkpoint.

    New groups that arrive with lower versions are a sign of a resumed run; old groups that remain after newer ones were
    consumed are not. The reference moves after two such polls in a row, so that one late group does not move it.
    """
    if newest is None:
        return
    if known.newest_seen is None or newest >= known.newest_seen:
        known.newest_seen = newest
        known.polls_below = 0
        known.arrived_below = False
        return
    known.polls_below += 1
    known.arrived_below = known.arrived_below or newest_arrival is not None
    if known.arrived_below and known.polls_below >= _POLLS_BEFORE_RESET:
        known.newest_seen = newest
        known.polls_below = 0
        known.arrived_below = False
