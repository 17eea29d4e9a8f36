"""The partitions' states and flows, and their totals, computed from the listings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from exporter.clock import Clock
from exporter.model.flow import FlowTracker
from exporter.model.occupancy import merge, nothing, summarise
from exporter.model.results import MetadataPoll
from exporter.model.snapshot import ALL_PARTITIONS, PartitionFlow, PartitionState

__all__ = ["Partitions"]


@dataclass(frozen=True, slots=True)
class _Listed:
    """A partition's state, the monotonic time of its listing, and for how many seconds it stays valid."""

    state: PartitionState
    at: float
    keep_s: float


class Partitions:
    """Adds up the results of the metadata polls. Not thread-safe.

    Args:
        clock: The clock.
        max_partitions: How many partitions keep a label of their own.
        max_versions: How many weight versions keep a count of their own, per partition.
    """

    def __init__(self, clock: Clock, *, max_partitions: int, max_versions: int) -> None:
        self._clock = clock
        self._max_versions = max_versions
        self._flow = FlowTracker(max_partitions)
        self._listed: dict[str, _Listed] = {}

    def take_in(self, poll: MetadataPoll, *, keep_s: float) -> None:
        """Process one poll. Its listings stay valid for *keep_s* seconds."""
        now, time = self._clock.monotonic(), self._clock.time()
        self._flow.begin_poll(poll.partitions, poll.published_version, time=time, now=now)
        for listing in poll.listings:
            self._flow.observe(listing.partition, listing.groups, time=time)
            state = summarise(
                listing.partition,
                listing.groups,
                listed_at=time,
                reference=self._flow.reference(listing.partition),
                first_seen=self._flow.first_seen(listing.partition),
                max_versions=self._max_versions,
            )
            self._listed[listing.partition] = _Listed(state, now, keep_s)
        for partition in self._listed.keys() - set(poll.partitions):
            del self._listed[partition]

    def hold(self, partition: str, keep_s: float) -> None:
        """Keep the last listing of *partition* valid for *keep_s* seconds, since it is listed less often now."""
        listed = self._listed.get(partition)
        if listed is not None:
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
        """Count all groups as lost and forget the listings, since a new controller answers."""
        self._flow.lose_all()
        self._listed.clear()

    def forget_listings(self) -> None:
        """Forget all listings, which are too old or another controller's."""
        self._listed.clear()

    def drop_stale(self) -> None:
        """Forget the listings that are no longer valid."""
        now = self._clock.monotonic()
        self._listed = {name: listed for name, listed in self._listed.items() if now - listed.at <= listed.keep_s}

    def states(self) -> tuple[PartitionState, ...]:
        """Return the state under each label, ordered by name."""
        by_label: dict[str, list[PartitionState]] = {}
        for name, listed in sorted(self._listed.items()):
            by_label.setdefault(self._flow.label(name), []).append(listed.state)
        return tuple(
            parts[0] if len(parts) == 1 and parts[0].partition == label else self._merge(label, parts)
            for label, parts in sorted(by_label.items())
        )

    def total(self, states: Iterable[PartitionState], empty_since: float | None) -> PartitionState | None:
        """Return the sum of all *states*. Without states it is None, or all zero if *empty_since* is known."""
        parts = list(states)
        if parts:
            return self._merge(ALL_PARTITIONS, parts)
        return None if empty_since is None else nothing(ALL_PARTITIONS, empty_since)

    def flows(self) -> tuple[PartitionFlow, ...]:
        """Return the flow under each label, ordered by name."""
        return self._flow.flows()

    def total_flow(self) -> PartitionFlow:
        """Return the flow through all partitions, including those that are gone."""
        return self._flow.total()

    def _merge(self, label: str, parts: list[PartitionState]) -> PartitionState:
        return merge(label, parts, max_versions=self._max_versions)
