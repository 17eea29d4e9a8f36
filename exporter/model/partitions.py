"""What is in the partitions and what passes through them: listings folded into states, flows and their totals."""

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
    """A partition's state with the monotonic time of its listing and for how long that stays true."""

    state: PartitionState
    at: float
    keep_s: float


class Partitions:
    """Folds the rounds over the partitions. Not thread-safe.

    Args:
        clock: Tells the time.
        max_partitions: How many partitions keep a label of their own.
        max_versions: How many weight versions keep a count of their own, per partition.
    """

    def __init__(self, clock: Clock, *, max_partitions: int, max_versions: int) -> None:
        self._clock = clock
        self._max_versions = max_versions
        self._flow = FlowTracker(max_partitions)
        self._listed: dict[str, _Listed] = {}

    def take_in(self, poll: MetadataPoll, *, keep_s: float) -> None:
        """Take in a round; what it listed stays true for *keep_s* seconds."""
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
        """Keep what was last listed of *partition* for *keep_s* seconds: it is listed less often from now on."""
        listed = self._listed.get(partition)
        if listed is not None:
            self._listed[partition] = replace(listed, keep_s=keep_s)

    def has_other_groups(self, poll: MetadataPoll) -> bool | None:
        """Return whether *poll* has none of the groups of the last listings, None while that cannot be told.

        It can be told when every partition that had groups was listed again or is gone. Without groups there is
        nothing to compare, so nothing has changed.
        """
        listed = {listing.partition: (group.group_id for group in listing.groups) for listing in poll.listings}
        if self._flow.has_any_of(listed):
            return False
        if self._flow.resident_partitions() & set(poll.partitions) - set(listed):
            return None
        return bool(self._flow.resident_partitions())

    def lose_all(self) -> None:
        """A new controller answers: what was in the last one is lost."""
        self._flow.lose_all()
        self._listed.clear()

    def forget_listings(self) -> None:
        """What was listed is not true any more, or not of the controller in use."""
        self._listed.clear()

    def drop_stale(self) -> None:
        """Forget the listings that are too old to be true."""
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
        """Return the sum of all *states*; without any it is unknown, unless it is known since when there are none."""
        parts = list(states)
        if parts:
            return self._merge(ALL_PARTITIONS, parts)
        return None if empty_since is None else nothing(ALL_PARTITIONS, empty_since)

    def flows(self) -> tuple[PartitionFlow, ...]:
        """Return the flow under each label, ordered by name."""
        return self._flow.flows()

    def total_flow(self) -> PartitionFlow:
        """Return the flow through all partitions, those that are gone included."""
        return self._flow.total()

    def _merge(self, label: str, parts: list[PartitionState]) -> PartitionState:
        return merge(label, parts, max_versions=self._max_versions)
