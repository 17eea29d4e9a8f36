"""The partitions' states, flows and readability, and their totals, computed from the listings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from dataplane.partitions import ROLES, ByName, Role, bounded_label
from exporter.clock import Clock
from exporter.config.model import Partition
from exporter.model.estimates import ListedRows
from exporter.model.flow import FlowTracker
from exporter.model.groups import Departed, GroupsView
from exporter.model.occupancy import Occupancy, merge, nothing
from exporter.model.results import Failed, MetadataPoll, PartitionFailure, PartitionListing
from exporter.model.snapshot import (
    ALL_PARTITIONS,
    PartitionFlow,
    PartitionState,
    PartitionStatus,
    RoleFlow,
    UnreadableReason,
)
from exporter.model.versions import Versions

__all__ = ["Partitions"]

_REASONS: Final[dict[str, UnreadableReason]] = {
    "DataPlaneTimeout": "timeout",
    "DataPlaneUnavailable": "unavailable",
}


@dataclass(frozen=True, slots=True)
class _Listed:
    """A partition's state, the monotonic time of its listing, and for how many seconds it stays valid."""

    state: PartitionState
    at: float
    keep_s: float


@dataclass(slots=True)
class _Readability:
    """Why a partition that exists cannot be read, None when it can, and when it was last listed (epoch seconds)."""

    reason: UnreadableReason | None = "pending"
    listed_at: float | None = None
    had_rows: bool = False


class Partitions:
    """Adds up the results of the metadata polls. Not thread-safe.

    Args:
        clock: The clock.
        settings: Settings by partition name.
        max_partitions: How many partitions keep a label of their own.
        max_versions: How many weight versions keep a count of their own, per partition.
        window: Largest acceptable lag, in versions.
        names_groups: Whether states name single groups.

    Attributes:
        versions: The trainer's weight version.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        settings: ByName[Partition],
        max_partitions: int,
        max_versions: int,
        window: float = math.inf,
        names_groups: bool = True,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._max_versions = max_versions
        self._names_groups = names_groups
        self._flow = FlowTracker(settings, max_partitions, window)
        self._occupancies: dict[str, Occupancy] = {}
        self._listed: dict[str, _Listed] = {}
        self._known: dict[str, _Readability] = {}  # every partition that exists
        self.versions = Versions()

    def take_in(self, poll: MetadataPoll, *, keep_s: float) -> int:
        """Process one poll. Its listings stay valid for *keep_s* seconds.

        Returns:
            How often a group arrived, was completed, departed, was lost or was restored.
        """
        events_before = self._flow.events
        now, time = self._clock.monotonic(), self._clock.time()
        before = self.versions.reference
        loaded = self._flow.begin_poll(
            poll.partitions, time=time, now=now, sender_id=poll.names_sender_id, reference=before
        )
        for listing in poll.listings:
            self._flow.observe(
                listing.partition,
                listing.groups,
                time=time,
                sender_id=listing.sender_id,
                stated=listing.stated_version,
                reference=before,
                convention=listing.convention,
            )
        if loaded:
            self.versions.restart()
        self.versions.update(
            published=poll.published_version,
            stated=self._flow.stated(),
            newest=self._flow.newest(),
            arrived=self._flow.arrived,
            time=time,
        )
        for listing in poll.listings:
            self._listed[listing.partition] = _Listed(self._state(listing, poll.groups_per_step, time), now, keep_s)
        for partition in self._listed.keys() - set(poll.partitions):
            del self._listed[partition]
        for partition in self._occupancies.keys() - set(poll.partitions):
            del self._occupancies[partition]
        self._note_readable(poll, time)
        return self._flow.events - events_before

    def failed(self, failure: Failed) -> None:
        """Note that the partitions could not even be named: none of those that were named last can be read."""
        for known in self._known.values():
            known.reason = _REASONS.get(failure.error_type, "error")

    def label(self, partition: str) -> str:
        """Return the label of a partition, also of one that no listing has named."""
        return self._flow.label(partition) if partition in self._known else bounded_label(partition)

    def unread(self) -> tuple[str, ...]:
        """Return the partitions whose last listing failed."""
        return tuple(
            name for name, known in self._known.items() if known.reason not in (None, "not_listable", "pending")
        )

    def hold(self, partition: str, keep_s: float) -> None:
        """Keep the last listing of *partition* valid for *keep_s* seconds, since it is listed less often now."""
        listed = self._listed.get(partition)
        if listed is not None and listed.keep_s < keep_s:
            self._listed[partition] = replace(listed, keep_s=keep_s)

    def has_other_groups(self, poll: MetadataPoll) -> bool | None:
        """Return whether *poll* has none of the groups of the last listings, None while that is unknown.

        It is known once every partition that had groups was listed again or is gone. If there were no groups, the
        result is False.
        """
        listed = {listing.partition: (group.group_id for group in listing.groups) for listing in poll.listings}
        if self._flow.has_any_of(listed):
            return False
        if self._flow.resident_partitions() & set(poll.partitions) - set(listed):
            return None
        return bool(self._flow.resident_partitions())

    def lose_all(self) -> None:
        """Count all groups as lost and forget listings and versions, since a new controller answers."""
        self._flow.lose_all(self._clock.time())
        self.versions.restart()
        self.forget_listings()

    def forget_listings(self) -> None:
        """Forget all listings and names, which are another controller's."""
        self._occupancies.clear()
        self._listed.clear()
        self._known.clear()

    def drop_all(self) -> None:
        """Forget all listings, which are too old."""
        self._listed.clear()

    def drop_stale(self) -> None:
        """Forget the listings that are no longer valid."""
        now = self._clock.monotonic()
        self._listed = {name: listed for name, listed in self._listed.items() if now - listed.at <= listed.keep_s}

    def states(self) -> tuple[PartitionState, ...]:
        """Return the state under each label, ordered by name."""
        by_label: dict[str, list[PartitionState]] = {}
        for name, listed in sorted(self._listed.items()):
            if self._known[name].reason != "not_listable":
                by_label.setdefault(self._flow.label(name), []).append(listed.state)
        return tuple(
            parts[0] if len(parts) == 1 and parts[0].partition == label else self._merge(label, parts)
            for label, parts in sorted(by_label.items())
        )

    def statuses(self) -> tuple[PartitionStatus, ...]:
        """Return whether the partitions under each label can be read, ordered by label."""
        by_label: dict[str, list[str]] = {}
        for name in sorted(self._known):
            by_label.setdefault(self._flow.label(name), []).append(name)
        return tuple(
            _status(label, [self._known[name] for name in names], min(map(self._flow.role, names), key=ROLES.index))
            for label, names in sorted(by_label.items())
        )

    def note_samples_without_keys(self, keys: int | None, samples: Mapping[str, int]) -> None:
        """Note which samples are in no listing, since they were put without keys.

        A partition that has never listed a row is not known to be empty while it has samples, or may have some.

        Args:
            keys: How many keys the storage units hold beyond what partitions list, None when unknown.
            samples: The number of samples of each partition for which it is known.
        """
        for name, known in self._known.items():
            if not known.had_rows and known.reason in (None, "not_listable"):
                known.reason = "not_listable" if samples.get(name, keys) else None

    def total(self, states: Iterable[PartitionState], empty_since: float | None) -> PartitionState | None:
        """Return the sum of all *states*. Without states it is None, or all zero if *empty_since* is known."""
        parts = list(states)
        if parts:
            return self._merge(ALL_PARTITIONS, parts)
        return None if empty_since is None or self._known else nothing(ALL_PARTITIONS, empty_since)

    def trained(self, empty_since: float | None) -> PartitionState | None:
        """Return the sum over the partitions that train, None while one of them cannot be read."""
        train = [name for name in self._known if self._flow.role(name) == "train"]
        if any(self._known[name].reason is not None or name not in self._listed for name in train):
            return None
        if train:
            return self._merge(ALL_PARTITIONS, [self._listed[name].state for name in train])
        return None if empty_since is None else nothing(ALL_PARTITIONS, empty_since)

    def flows(self) -> tuple[PartitionFlow, ...]:
        """Return the flow under each label, ordered by name."""
        return self._flow.flows()

    def total_flow(self) -> PartitionFlow:
        """Return the flow through all partitions, including those that are gone."""
        return self._flow.total()

    def role_flows(self) -> tuple[RoleFlow, ...]:
        """Return the flow through the partitions of each role, including those that are gone."""
        return self._flow.by_role()

    def groups(self) -> GroupsView:
        """Return the groups of the last listings, also of those that are too old, and the unusual departures."""
        return GroupsView(self._flow.groups(self._listed.keys()), self.departed(), self.versions.reference)

    def departed(self) -> tuple[Departed, ...]:
        """Return the groups that left in an unusual way, the last one first."""
        return self._flow.departures.newest_first()

    def names(self) -> tuple[str, ...]:
        """Return the names of all partitions that exist."""
        return tuple(self._known)

    def listed_rows(self) -> dict[str, ListedRows]:
        """Return the rows of each partition whose last listing is still valid."""
        return {name: ListedRows(one.state.rows, one.state.listed_at) for name, one in self._listed.items()}

    def rows(self) -> int | None:
        """Return the number of all rows in all partitions, None while a partition is not known."""
        if self._known.keys() - self._listed.keys():
            return None
        return sum(listed.state.rows for listed in self._listed.values())

    def _state(self, listing: PartitionListing, published_per_step: int | None, time: float) -> PartitionState:
        partition, reference = listing.partition, self.versions.reference
        settings, role = self._settings.get(partition), self._flow.role(partition)
        per_step = None if settings is None else settings.groups_per_step
        if per_step is None and role == "train":
            per_step = published_per_step
        before = self._occupancies.pop(partition, None) or Occupancy()
        occupancy = before.after(listing.groups, lambda group_id: self._flow.first_seen(partition, group_id))
        self._occupancies[partition] = occupancy
        state = occupancy.state(
            partition,
            listed_at=time,
            reference=reference,
            max_versions=self._max_versions,
            epoch=self._flow.epoch,
            role=role,
            convention=listing.convention,
            rows=listing.rows,
            orphaned=self._flow.count_orphaned(partition, reference),
            groups_per_step=per_step,
        )
        return state if self._names_groups else _without_ids(state)

    def _note_readable(self, poll: MetadataPoll, time: float) -> None:
        self._known = {name: self._known.get(name) or _Readability() for name in poll.partitions}
        for listing in poll.listings:
            known = self._known[listing.partition]
            known.reason, known.listed_at = None, time
            known.had_rows = known.had_rows or listing.rows > 0
        for failure in poll.failures:
            if failure.partition in self._known:
                self._known[failure.partition].reason = _reason(failure)
        for name in poll.held:
            known = self._known[name]
            if known.reason is not None:
                known.reason = "held"

    def _merge(self, label: str, parts: list[PartitionState]) -> PartitionState:
        return merge(label, parts, max_versions=self._max_versions)


def _without_ids(state: PartitionState) -> PartitionState:
    return replace(state, oldest=tuple(replace(one, group_id="") for one in state.oldest), unfinished=())


def _reason(failure: PartitionFailure) -> UnreadableReason:
    return "refused" if failure.limit is not None else _REASONS.get(failure.error_type, "error")


def _status(label: str, parts: list[_Readability], role: Role) -> PartitionStatus:
    reason = next((part.reason for part in parts if part.reason is not None), None)
    times = [part.listed_at for part in parts]
    oldest = None if None in times else min(time for time in times if time is not None)
    return PartitionStatus(label, reason is None, reason, oldest, role)
