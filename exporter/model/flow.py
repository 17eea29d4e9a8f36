"""What happens to groups, counted by comparing each listing of a partition with the one before.

A group that lives for less than the time between two listings is never seen, so all counts are lower bounds. Listings
cannot tell trained from evicted groups: both count as departed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from dataplane.groups import Change, DataPlaneGroupMeta, Listing, changed_since
from dataplane.partitions import ROLES, ByName, Role, role_of
from exporter.config.model import Partition
from exporter.model.counters import FlowCounters
from exporter.model.departures import MAX_DEPARTED, Departures
from exporter.model.groups import PartitionGroups, Resident, reside
from exporter.model.labels import Labels
from exporter.model.snapshot import ALL_PARTITIONS, PartitionFlow, RoleFlow
from exporter.model.versions import VersionReference

__all__ = ["COUNTER_LINGER_S", "FlowTracker"]

COUNTER_LINGER_S: Final = 600.0
"""How long the counters of a partition that is gone are still exposed, in seconds."""

_COMPLETE: Final = frozenset({"ready", "taken"})
_LISTINGS_BEFORE_ORPHANED: Final = 2


class _Taken:
    """A group that a trainer has taken: the trainer's version then, and in how many listings it was newer since."""

    __slots__ = ("listings_beyond", "version")

    def __init__(self) -> None:
        self.version: int | None = None
        self.listings_beyond = 0


class _Difference(NamedTuple):
    """What a listing shows: the groups that are gone, how many are new, and how many are complete for the first time.

    ``complete_at_once`` are those that are new and complete already, ``completed`` all others.
    """

    gone: dict[str, Resident]
    new: int
    completed: int
    complete_at_once: int


class _Partition:
    """A partition that exists: its groups at the last listing, and who listed them."""

    def __init__(self, name: str, role: Role) -> None:
        self.name = name
        self.role = role
        self.residents: dict[str, Resident] = {}
        self.taken: dict[str, _Taken] = {}
        self.versions: Counter[int | None] = Counter()
        # The keys of bare rows, and the groups that are no longer listed and are there since one of these was theirs.
        self.bare: set[str] = set()
        self.without_tags: set[str] = set()
        self.token: object = None  # of the last listing
        self.stated: int | None = None
        self.sender_id: str | None = None
        self.convention = ""
        self.listed_at = 0.0
        self.orphaned: frozenset[str] = frozenset()

    def compare(self, groups: Sequence[DataPlaneGroupMeta], now: float) -> _Difference:
        """Compare all *groups* with the last listing. It costs what changed, if the listing tells what that is."""
        change = changed_since(groups, self.token)
        self.token = None
        before, taken = self._take_out(change)
        after: dict[str, Resident] = {}
        changed: list[DataPlaneGroupMeta] = []
        completed = 0
        for group in groups if change is None else change.new:
            if group.bare:
                self.bare.update(group.keys)
                continue
            group_id, state, keys = group.group_id, group.state, group.keys
            seen = before.get(group_id)
            complete = state in _COMPLETE
            if seen is None:
                first_seen = since = now
                changed.append(group)
            else:
                first_seen, since = seen.first_seen, seen.since if seen.state == state else now
                if complete and not seen.completed:
                    completed += 1
                complete = complete or seen.completed
                if len(keys) > seen.key_count:
                    changed.append(group)
            if state == "taken":
                self.taken[group_id] = taken.get(group_id) or _Taken()
            after[group_id] = reside(group, state, first_seen=first_seen, since=since, completed=complete)
        # A group whose keys are still there has not departed, also when nothing tells any more that they are its keys.
        bare = self.bare
        without_tags = {group_id: old for group_id, old in before.items() if old.key in bare and group_id not in after}
        self.without_tags = set(without_tags)
        after.update(without_tags)
        gone = before.keys() - after.keys()
        new = {group.group_id for group in changed} - before.keys()
        if gone and changed:
            completed += _follow_keys(gone, new, changed, before, after)
        self.residents.update(after)
        self.versions.update(resident.weight_version for resident in after.values())
        self.token = groups.token if isinstance(groups, Listing) else None
        at_once = sum(after[group_id].completed for group_id in new)
        left = {group_id: old for group_id, old in before.items() if group_id in gone} if gone else {}
        return _Difference(left, len(new), completed, at_once)

    def _take_out(self, change: Change | None) -> tuple[dict[str, Resident], dict[str, _Taken]]:
        """Take out and return the groups that may have changed, and those of them that were taken."""
        if change is None:
            before, self.residents = self.residents, {}
            taken, self.taken = self.taken, {}
            self.versions.clear()
            self.bare.clear()
            return before, taken
        # In the order of the listing.
        ids = dict.fromkeys([*(group.group_id for group in change.gone if not group.bare), *sorted(self.without_tags)])
        before = {group_id: self.residents.pop(group_id) for group_id in ids if group_id in self.residents}
        taken = {group_id: self.taken.pop(group_id) for group_id in ids if group_id in self.taken}
        self.bare.difference_update(key for group in change.gone if group.bare for key in group.keys)
        for resident in before.values():
            self.versions[resident.weight_version] -= 1
            if not self.versions[resident.weight_version]:
                del self.versions[resident.weight_version]
        return before, taken


class FlowTracker:
    """Remembers the last listing of each partition and counts what changed. Not thread-safe.

    Args:
        settings: Settings by partition name.
        max_partitions: How many partitions keep a label of their own; more are counted under ``other``.
        window: Largest acceptable lag, see :class:`~exporter.model.departures.Departures`.

    Attributes:
        arrived: Whether a group has arrived in a partition that trains since :meth:`begin_poll`.
        departures: The departures that were unusual.
    """

    def __init__(self, settings: ByName[Partition], max_partitions: int, window: float = math.inf) -> None:
        self._settings = settings
        self._labels = Labels(settings, max_partitions)
        self._partitions: dict[str, _Partition] = {}
        self._counters: dict[str, FlowCounters] = {}
        self._expired = FlowCounters()  # the sum of the counters that are no longer exposed
        self._roles = {role: FlowCounters() for role in ROLES}
        self._epoch = 0.0  # the wall clock's time when the monotonic clock was 0, as of the last poll
        self._polled_at: float | None = None  # seconds since the epoch
        self._polled_before: float | None = None
        self._sender_id: str | None = None
        # Partitions whose next listing is a baseline: they existed at the first poll. None before that poll.
        self._unseen: set[str] | None = None
        # Partitions whose next listing shows groups that came with a checkpoint.
        self._restored: set[str] = set()
        self.arrived = False
        self.departures = Departures(window)

    def label(self, partition: str) -> str:
        """Return the label that a partition is counted under, as of the last poll."""
        return self._labels[partition]

    def role(self, partition: str) -> Role:
        """Return what *partition* is for: as configured, else by its name."""
        known = self._partitions.get(partition)
        if known is not None:  # every snapshot asks, and a name may be long
            return known.role
        settings = self._settings.get(partition)
        return role_of(partition) if settings is None or settings.role is None else settings.role

    def newest(self) -> int | None:
        """Return the newest version of a group in a partition that trains, None when no version is known."""
        versions = (
            version for known in self._partitions.values() if known.role == "train" for version in known.versions
        )
        return max((version for version in versions if version is not None), default=None)

    def stated(self) -> int | None:
        """Return the newest version that rows say the trainer has finished, None if none say."""
        versions = (known.stated for known in self._partitions.values())
        return max((version for version in versions if version is not None), default=None)

    @property
    def epoch(self) -> float:
        """The wall clock's time when the monotonic clock was 0, as of the last poll: seconds since the epoch."""
        return self._epoch

    def first_seen(self, partition: str, group_id: str) -> float:
        """Return when a group of the last listing was first seen, in monotonic seconds."""
        return self._residents(partition)[group_id].first_seen

    def groups(self, current: Collection[str]) -> tuple[PartitionGroups, ...]:
        """Return the groups of the last listings. Those of the partitions in *current* are still valid."""
        return tuple(
            PartitionGroups(
                name,
                self._labels[name],
                known.role,
                known.convention,
                known.listed_at,
                name in current,
                known.residents.copy(),
                known.orphaned,
                self._epoch,
            )
            for name, known in self._partitions.items()
        )

    def begin_poll(
        self,
        partitions: Collection[str],
        *,
        time: float,
        now: float,
        sender_id: str | None = None,
        reference: VersionReference | None = None,
    ) -> bool:
        """Begin a round over all partitions. The groups of partitions that are gone have departed.

        Args:
            partitions: Every partition that exists now.
            time: Seconds since the epoch.
            now: Monotonic seconds.
            sender_id: The controller that named them, None when unknown.
            reference: The trainer's version as of the last poll.

        Returns:
            Whether a checkpoint was loaded: the same controller answers under another id. What is gone is lost then.
        """
        self._epoch = time - now
        self._polled_before, self._polled_at = self._polled_at, time
        self.arrived = False
        names = set(partitions)
        loaded = None not in (sender_id, self._sender_id) and sender_id != self._sender_id
        self._sender_id = sender_id or self._sender_id
        self._unseen = set(names) if self._unseen is None else self._unseen & names
        self._restored &= names
        if loaded:
            self._restored |= names - self._partitions.keys() - self._unseen
        for name in self._partitions.keys() - names:
            known = self._partitions.pop(name)
            if loaded and known.sender_id != sender_id:
                self._lose(known, known.residents, time)
            else:
                self._depart(known, known.residents, time, reference)
        for old, new in self._labels.assign(partitions, self._counters).items():
            if old in self._counters:
                self._counters_under(new).add(self._counters.pop(old))
        self._expire(now, {self._labels[name] for name in names})
        return loaded

    def observe(
        self,
        partition: str,
        groups: Sequence[DataPlaneGroupMeta],
        *,
        time: float,
        sender_id: str | None = None,
        stated: int | None = None,
        reference: VersionReference | None = None,
        convention: str = "",
    ) -> None:
        """Compare a partition's *groups* with its last listing.

        The first listing of a partition that existed at the first poll is a baseline and counts nothing.

        Args:
            partition: Its name.
            groups: All of its groups.
            time: Seconds since the epoch.
            sender_id: The controller that listed them, None when unknown.
            stated: The newest version that the rows say the trainer has finished, None if they say none.
            reference: The trainer's version as of the last poll.
            convention: The tag convention by which the rows were read.
        """
        known = self._partitions.get(partition)
        restored = partition in self._restored
        self._restored.discard(partition)
        if known is None:
            known = self._partitions[partition] = _Partition(partition, self.role(partition))
        elif None not in (sender_id, known.sender_id) and sender_id != known.sender_id:
            restored = True
        known.sender_id = sender_id or known.sender_id
        known.stated, known.convention, known.listed_at = stated, convention, time
        found = known.compare(groups, time - self._epoch)
        if known.taken:
            self.departures.takes(known.role)
        for counters in self._counters_of(known):
            counters.completed += found.completed
        if restored:
            self._lose(known, found.gone, time)
            for counters in self._counters_of(known):
                counters.restored += found.new
            return
        self._depart(known, found.gone, time, reference)
        if self._unseen is not None and partition in self._unseen:
            self._unseen.discard(partition)
            return
        self.arrived = self.arrived or (found.new > 0 and known.role == "train")
        for counters in self._counters_of(known):
            counters.arrived += found.new
            counters.completed += found.complete_at_once

    def count_orphaned(self, partition: str, reference: VersionReference | None) -> int | None:
        """Note one more listing, and return how many groups stay taken although the trainer's version has increased.

        It counts listings: call it exactly once for each. None while the trainer's version is unknown and groups are
        taken. A trainer clears what it took at about the time at which its version increases, so one listing is not
        enough.
        """
        known = self._partitions.get(partition)
        if known is None or not known.taken:
            return 0
        if reference is None:
            return None
        orphaned: list[str] = []
        for group_id, taken in known.taken.items():
            if taken.version is None or reference.version <= taken.version:
                taken.version = reference.version
                taken.listings_beyond = 0
                continue
            taken.listings_beyond += 1
            if taken.listings_beyond >= _LISTINGS_BEFORE_ORPHANED:
                orphaned.append(group_id)
        known.orphaned = frozenset(orphaned)
        return len(orphaned)

    def lose_all(self, time: float) -> None:
        """Count all groups as lost, since a new controller answers at *time*, seconds since the epoch."""
        for known in self._partitions.values():
            self._lose(known, known.residents, time)
        self._partitions.clear()
        self._restored.clear()
        self._sender_id = None
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
        return tuple(counters.of_label(label) for label, counters in sorted(self._counters.items()))

    def total(self) -> PartitionFlow:
        """Return the flow of all labels together since the start, including labels that are no longer exposed."""
        total = FlowCounters()
        for counters in (self._expired, *self._counters.values()):
            total.add(counters)
        return total.of_label(ALL_PARTITIONS)

    @property
    def events(self) -> int:
        """How often a group arrived, was completed, departed, was lost or was restored since the exporter started."""
        return sum(counters.events for counters in self._roles.values())

    def by_role(self) -> tuple[RoleFlow, ...]:
        """Return the flow of each role since the exporter started."""
        return tuple(counters.of_role(role) for role, counters in self._roles.items())

    def _residents(self, partition: str) -> Mapping[str, Resident]:
        known = self._partitions.get(partition)
        return {} if known is None else known.residents

    def _counters_of(self, known: _Partition) -> tuple[FlowCounters, FlowCounters]:
        """Return the counters that an event in a partition counts in: those of its label and of its role."""
        return self._counters_under(self._labels[known.name]), self._roles[known.role]

    def _counters_under(self, label: str) -> FlowCounters:
        """Return the counters of *label*. New ones were 0 at the last poll, when nothing was counted under it."""
        counters = self._counters.get(label)
        if counters is None:
            counters = self._counters[label] = FlowCounters(self._polled_before)
        return counters

    def _lose(self, known: _Partition, residents: Mapping[str, Resident], time: float) -> None:
        for counters in self._counters_of(known):
            counters.lost += len(residents)
        for group_id, resident in islice(residents.items(), MAX_DEPARTED):
            self.departures.note(self._labels[known.name], group_id, resident, ["lost"], time, self._epoch, None)

    def _depart(
        self, known: _Partition, residents: Mapping[str, Resident], time: float, reference: VersionReference | None
    ) -> None:
        label, (of_label, of_role) = self._labels[known.name], self._counters_of(known)
        for group_id, resident in residents.items():
            since = resident.first_seen + self._epoch if resident.created_at is None else resident.created_at
            age_s = max(time - since, 0.0)
            lag = None
            if reference is not None and resident.weight_version is not None:
                lag = reference.lag(resident.weight_version)
            if why := self.departures.why(known.role, resident, age_s, lag, of_label):
                self.departures.note(label, group_id, resident, why, time, self._epoch, lag)
            of_label.departed_one(resident.state, age_s, lag)
            of_role.departed_one(resident.state, age_s, lag)

    def _expire(self, now: float, in_use: Collection[str]) -> None:
        for label, counters in list(self._counters.items()):
            if label in in_use:
                counters.idle_since = None
            elif counters.idle_since is None:
                counters.idle_since = now
            elif now - counters.idle_since >= COUNTER_LINGER_S:
                self._expired.add(self._counters.pop(label))


def _follow_keys(
    gone: set[str],
    new: set[str],
    changed: Iterable[DataPlaneGroupMeta],
    before: Mapping[str, Resident],
    after: dict[str, Resident],
) -> int:
    """Follow keys that moved to another group: the old group has not departed, and the new one has not arrived.

    Updates *gone*, *new* and *after*. Returns how many of the new groups are complete and their predecessors were not.
    """
    group_of = {key: group.group_id for group in changed for key in group.keys}
    completed = 0
    for group_id in list(gone):
        old = before[group_id]
        successor = group_of.get(old.key)
        if successor is None:
            continue
        gone.discard(group_id)
        resident = after[successor]
        if successor in new:
            new.discard(successor)
            completed += resident.completed and not old.completed
            after[successor] = msgspec.structs.replace(
                resident,
                first_seen=old.first_seen,
                since=old.since if old.state == resident.state else resident.since,
                completed=resident.completed or old.completed,
            )
    return completed
