"""The state of a partition, computed from its groups. Pure functions."""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dataplane.groups import GROUP_STATES, DataPlaneGroupMeta, GroupState
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

__all__ = ["lag_bucket", "merge", "nothing", "summarise"]


def lag_bucket(lag: int | None) -> str:
    """Return the member of :data:`~exporter.model.snapshot.LAG_BUCKETS` that *lag* falls into."""
    if lag is None:
        return "unknown"
    if lag < 0:
        return "ahead"
    if lag <= 4:
        return str(lag)
    return "5-8" if lag <= 8 else "9+"


def summarise(
    partition: str,
    groups: Sequence[DataPlaneGroupMeta],
    *,
    listed_at: float,
    reference: VersionReference | None,
    first_seen: Mapping[str, float],
    max_versions: int,
    role: Role = "train",
    convention: str = "",
    rows: int = 0,
    orphaned: int = 0,
    groups_per_step: int | None = None,
) -> PartitionState:
    """Return the state of *partition*.

    Args:
        partition: Its name.
        groups: All of its groups.
        listed_at: When they were listed, seconds since the epoch.
        reference: What lags are counted from, None when unknown.
        first_seen: Group id to the time when it was first seen, for groups without a creation time.
        max_versions: How many of the newest weight versions keep a count of their own, 0 for none.
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
    oldest: dict[tuple[GroupState, Basis], tuple[float, str]] = {}
    unfinished: list[tuple[float, str, GroupState, Basis]] = [(*_NEVER, "incomplete", "tag")] * MAX_UNFINISHED
    newest_finished: int | None = None
    keys = malformed = bare = 0
    size: int | None = None
    for group in groups:
        if group.bare:
            bare += len(group.keys)
            continue
        state = group.state
        states[state] += 1
        keys += len(group.keys)
        malformed += group.malformed_keys
        if group.size_bytes is not None:
            size = group.size_bytes + (size or 0)
        version = group.weight_version
        versions[version] += 1
        if state != "failed":
            if version is None or reference is None:
                lags["unknown"] += 1
            else:
                resident[version] += 1
        basis: Basis = "first_seen" if group.created_at is None else "tag"
        created_at = first_seen.get(group.group_id) if group.created_at is None else group.created_at
        if created_at is not None:
            if created_at < oldest.get((state, basis), _NEVER)[0]:
                oldest[state, basis] = created_at, group.group_id
            if state in ("uncommitted", "incomplete") and created_at < unfinished[-1][0]:
                insort(unfinished, (created_at, group.group_id, state, basis))
                unfinished.pop()
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
        keys=keys,
        size_bytes=size,
        malformed_rows=malformed,
        weight_versions=_newest_versions(versions, 0, max_versions),
        staleness={bucket: lags[bucket] for bucket in LAG_BUCKETS},
        staleness_max=staleness_max,
        staleness_mean=staleness_mean,
        newest_version=max(known, default=None),
        oldest_version=min(known, default=None),
        newest_finished_version=newest_finished,
        reference_version=None if reference is None else reference.version,
        reference=None if reference is None else reference.kind,
        oldest=_oldest_groups(oldest),
        unfinished=tuple(
            OldestGroup(state, basis, at, bounded_label(group_id))
            for at, group_id, state, basis in unfinished
            if at < math.inf
        ),
        newest_listing=listed_at,
        role=role,
        convention=convention,
        bare_rows=bare,
        rows=rows,
        orphaned=orphaned,
        groups_per_step=groups_per_step,
    )


def nothing(label: str, listed_at: float) -> PartitionState:
    """Return the sum over no partitions: a listing at *listed_at* had none."""
    return summarise(label, (), listed_at=listed_at, reference=None, first_seen={}, max_versions=0)


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
        oldest=_oldest_groups(oldest),
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
        orphaned=sum(part.orphaned for part in parts),
        groups_per_step=max((part.groups_per_step or 0 for part in parts), default=0) or None,
    )


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


def _oldest_groups(oldest: Mapping[tuple[GroupState, Basis], tuple[float, str]]) -> tuple[OldestGroup, ...]:
    return tuple(
        OldestGroup(state, basis, at, bounded_label(group_id))
        for (state, basis), (at, group_id) in sorted(oldest.items())
    )


def _total(sizes: Iterable[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None
