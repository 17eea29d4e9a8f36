"""The state of a partition, computed from its groups."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dataplane.groups import GROUP_STATES, Change, DataPlaneGroupMeta, GroupState, Listing, changed_since
from dataplane.partitions import ROLES, Role, bounded_label
from exporter.model.snapshot import (
    LAG_BUCKETS,
    MAX_UNFINISHED,
    MIXED_CONVENTIONS,
    Basis,
    OldestGroup,
    PartitionState,
)
from exporter.model.versions import VersionReference

__all__ = ["Occupancy", "lag_bucket", "merge", "nothing"]


def lag_bucket(lag: int | None) -> str:
    """Return the member of :data:`~exporter.model.snapshot.LAG_BUCKETS` that *lag* falls into."""
    if lag is None:
        return "unknown"
    if lag < 0:
        return "ahead"
    if lag <= 4:
        return str(lag)
    return "5-8" if lag <= 8 else "9+"


class Occupancy:
    """The groups of one partition, added up. Adding and removing groups costs what these groups cost."""

    def __init__(self) -> None:
        self._token: object = None  # of the last listing
        self._counts: Counter[tuple[GroupState, int | None]] = Counter()  # by state and version
        self._since: dict[tuple[GroupState, Basis], dict[str, float]] = {}  # when each group began, by its id
        self._keys = self._malformed = self._bare = 0
        self._size = self._sized = 0  # the sum of what is declared, and how many groups declare it

    def after(self, groups: Sequence[DataPlaneGroupMeta], first_seen: Callable[[str], float | None]) -> Occupancy:
        """Return the sum of all *groups* of a later listing. This one must not be used any more.

        Args:
            groups: All groups. What is the same as in the last listing costs nothing, if the listing tells.
            first_seen: Returns when a group was first seen, for groups without a creation time.
        """
        change = changed_since(groups, self._token)
        if change is None:
            return Occupancy()._changed_by(Change(None, (), groups), groups, first_seen)
        return self._changed_by(change, groups, first_seen)

    def _changed_by(
        self, change: Change, groups: Sequence[DataPlaneGroupMeta], first_seen: Callable[[str], float | None]
    ) -> Occupancy:
        self._token = None
        for group in change.gone:
            self._remove(group)
        for group in change.new:
            self._add(group, first_seen)
        self._token = groups.token if isinstance(groups, Listing) else None
        return self

    def _add(self, group: DataPlaneGroupMeta, first_seen: Callable[[str], float | None]) -> None:
        if group.bare:
            self._bare += len(group.keys)
            return
        state, created_at = group.state, group.created_at
        self._count(group, state, 1)
        basis: Basis = "first_seen" if created_at is None else "tag"
        since = first_seen(group.group_id) if created_at is None else created_at
        if since is not None:
            self._since.setdefault((state, basis), {})[group.group_id] = since

    def _remove(self, group: DataPlaneGroupMeta) -> None:
        if group.bare:
            self._bare -= len(group.keys)
            return
        state = group.state
        self._count(group, state, -1)
        where: tuple[GroupState, Basis] = state, "first_seen" if group.created_at is None else "tag"
        self._since.get(where, {}).pop(group.group_id, None)

    def _count(self, group: DataPlaneGroupMeta, state: GroupState, sign: int) -> None:
        self._keys += sign * len(group.keys)
        self._malformed += sign * group.malformed_keys
        if group.size_bytes is not None:
            self._size += sign * group.size_bytes
            self._sized += sign
        where = state, group.weight_version
        self._counts[where] += sign
        if not self._counts[where]:
            del self._counts[where]

    def state(
        self,
        partition: str,
        *,
        listed_at: float,
        reference: VersionReference | None,
        max_versions: int,
        epoch: float = 0.0,
        role: Role = "train",
        convention: str = "",
        rows: int = 0,
        orphaned: int | None = 0,
        groups_per_step: int | None = None,
    ) -> PartitionState:
        """Return the state of *partition*.

        Args:
            partition: Its name.
            listed_at: When its groups were listed, seconds since the epoch.
            reference: What lags are counted from, None when unknown.
            max_versions: How many of the newest weight versions keep a count of their own, 0 for none.
            epoch: When ``first_seen`` was 0, seconds since the epoch.
            role: See :class:`~exporter.model.snapshot.PartitionState`, also for the other arguments.
            convention: Likewise.
            rows: Likewise.
            orphaned: Likewise.
            groups_per_step: Likewise.
        """
        states: Counter[GroupState] = Counter()
        versions: Counter[int | None] = Counter()
        lags: Counter[str] = Counter()
        resident: Counter[int] = Counter()
        newest_finished: int | None = None
        for (state, version), count in self._counts.items():
            states[state] += count
            versions[version] += count
            if state != "failed":
                if version is None or reference is None:
                    lags["unknown"] += count
                else:
                    resident[version] += count
            if (
                version is not None
                and state in ("ready", "taken")
                and (newest_finished is None or version > newest_finished)
            ):
                newest_finished = version
        staleness_max: int | None = None
        staleness_mean: float | None = None
        if reference is not None and resident:
            for version, count in resident.items():
                lags[lag_bucket(reference.lag(version))] += count
            behind = {lag: count for version, count in resident.items() if (lag := reference.lag(version)) >= 0}
            if behind:
                staleness_max = max(behind)
                staleness_mean = sum(lag * count for lag, count in behind.items()) / sum(behind.values())
        known = [version for version in versions if version is not None]
        return PartitionState(
            partition=partition,
            listed_at=listed_at,
            groups={state: states[state] for state in GROUP_STATES},
            keys=self._keys,
            size_bytes=self._size if self._sized else None,
            malformed_rows=self._malformed,
            weight_versions=_newest_versions(versions, 0, max_versions),
            staleness={bucket: lags[bucket] for bucket in LAG_BUCKETS},
            staleness_max=staleness_max,
            staleness_mean=staleness_mean,
            newest_version=max(known, default=None),
            oldest_version=min(known, default=None),
            newest_finished_version=newest_finished,
            reference_version=None if reference is None else reference.version,
            reference=None if reference is None else reference.kind,
            oldest=self._oldest(epoch),
            unfinished=self._unfinished(epoch),
            newest_listing=listed_at,
            role=role,
            convention=convention,
            bare_rows=self._bare,
            rows=rows,
            orphaned=orphaned,
            groups_per_step=groups_per_step,
        )

    def _oldest(self, epoch: float) -> tuple[OldestGroup, ...]:
        found: list[OldestGroup] = []
        for (state, basis), since in sorted(self._since.items()):
            if since:
                at, group_id = min(zip(since.values(), since, strict=True))
                found.append(_oldest_group(state, basis, at, group_id, epoch))
        return tuple(found)

    def _unfinished(self, epoch: float) -> tuple[OldestGroup, ...]:
        found = [
            _oldest_group(state, basis, at, group_id, epoch)
            for (state, basis), since in sorted(self._since.items())
            if state in _UNFINISHED
            for at, group_id in heapq.nsmallest(MAX_UNFINISHED, zip(since.values(), since, strict=True))
        ]
        return tuple(heapq.nsmallest(MAX_UNFINISHED, found, key=lambda group: (group.created_at, group.group_id)))


_UNFINISHED: Final = frozenset({"uncommitted", "incomplete"})


def _oldest_group(state: GroupState, basis: Basis, at: float, group_id: str, epoch: float) -> OldestGroup:
    created_at = at + epoch if basis == "first_seen" else at
    return OldestGroup(state, basis, created_at, bounded_label(group_id))


def nothing(label: str, listed_at: float) -> PartitionState:
    """Return the sum over no partitions: a listing at *listed_at* had none."""
    return Occupancy().state(label, listed_at=listed_at, reference=None, max_versions=0)


def merge(label: str, parts: Sequence[PartitionState], *, max_versions: int) -> PartitionState:
    """Return the sum of several partitions under one label.

    The reference is the highest one among the partitions: of a partition that was listed earlier it may be lower.
    """
    versions: Counter[int | None] = Counter()
    conventions = {part.convention for part in parts}
    older = 0
    oldest: dict[tuple[GroupState, Basis], tuple[float, str]] = {}
    for part in parts:
        for name, count in part.weight_versions:
            if name == "older":
                older += count
            else:
                versions[None if name == "unknown" else int(name)] += count
        for group in part.oldest:
            where = (group.state, group.basis)
            oldest[where] = min((group.created_at, group.group_id), oldest.get(where, _NEVER))
    means = [
        (part.staleness_mean, sum(part.staleness.values()) - part.staleness["unknown"] - part.staleness["ahead"])
        for part in parts
        if part.staleness_mean is not None
    ]
    weight = sum(count for _, count in means)
    leading = max(
        (part for part in parts if part.reference_version is not None),
        key=lambda part: part.reference_version or 0,
        default=None,
    )
    return PartitionState(
        partition=label,
        listed_at=min(part.listed_at for part in parts),
        groups={state: sum(part.groups[state] for part in parts) for state in GROUP_STATES},
        keys=sum(part.keys for part in parts),
        size_bytes=_total(part.size_bytes for part in parts),
        malformed_rows=sum(part.malformed_rows for part in parts),
        weight_versions=_newest_versions(versions, older, max_versions),
        staleness={bucket: sum(part.staleness[bucket] for part in parts) for bucket in LAG_BUCKETS},
        staleness_max=max((part.staleness_max for part in parts if part.staleness_max is not None), default=None),
        staleness_mean=sum(mean * count for mean, count in means) / weight if weight else None,
        newest_version=max((part.newest_version for part in parts if part.newest_version is not None), default=None),
        oldest_version=min((part.oldest_version for part in parts if part.oldest_version is not None), default=None),
        newest_finished_version=max(
            (part.newest_finished_version for part in parts if part.newest_finished_version is not None), default=None
        ),
        reference_version=None if leading is None else leading.reference_version,
        reference=None if leading is None else leading.reference,
        oldest=tuple(
            OldestGroup(state, basis, at, group_id) for (state, basis), (at, group_id) in sorted(oldest.items())
        ),
        unfinished=tuple(
            heapq.nsmallest(
                MAX_UNFINISHED,
                (group for part in parts for group in part.unfinished),
                key=lambda group: (group.created_at, group.group_id),
            )
        ),
        newest_listing=max(part.newest_listing for part in parts),
        role=min((part.role for part in parts), key=ROLES.index),
        convention=conventions.pop() if len(conventions) == 1 else MIXED_CONVENTIONS,
        bare_rows=sum(part.bare_rows for part in parts),
        rows=sum(part.rows for part in parts),
        orphaned=_sum_known(part.orphaned for part in parts),
        groups_per_step=max((part.groups_per_step or 0 for part in parts), default=0) or None,
    )


def _sum_known(values: Iterable[int | None]) -> int | None:
    """Return the sum, None if a value is unknown."""
    known = list(values)
    return None if None in known else sum(value or 0 for value in known)


def _newest_versions(versions: Counter[int | None], older: int, max_versions: int) -> tuple[tuple[str, int], ...]:
    if max_versions == 0:
        return ()
    known = sorted((version for version in versions if version is not None), reverse=True)
    counts = [(str(version), versions[version]) for version in known[:max_versions]]
    older += sum(versions[version] for version in known[max_versions:])
    if older:
        counts.append(("older", older))
    if versions[None]:
        counts.append(("unknown", versions[None]))
    return tuple(counts)


_NEVER: Final = (float("inf"), "")


def _total(sizes: Iterable[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None
