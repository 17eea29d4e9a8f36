"""Selects, sorts and describes groups. Reads immutable values only: no poll waits for it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from dataplane import conventions
from dataplane.groups import GroupState
from dataplane.partitions import Role
from exporter.conditions import CONDITIONS, Limits
from exporter.conditions.base import Candidate, Selects
from exporter.groups.query import SELECTING, BadQuery, Query, read_query
from exporter.model.groups import Departed, GroupsView, PartitionGroups, Resident, cut
from exporter.model.snapshot import Basis, Condition, Reference, Snapshot, UnreadableReason
from exporter.model.versions import VersionReference

__all__ = ["MAX_ANSWER_BYTES", "Answer", "Group", "Groups", "PartitionListed"]

MAX_ANSWER_BYTES: Final = 2 * 2**20
_MAX_TEXT: Final = 512
_MAX_KEYS: Final = 3
_MAX_PARTITIONS: Final = 100
_ROOM_FOR_PARTITIONS: Final = 200_000  # encoded: 100 labels and names of bounded length


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group. Ids and keys of more than 512 characters are cut. What is unknown is None.

    Attributes:
        partition: The name of its partition; of one that left, the label.
        label: The label under which the partition is counted.
        group_id: Its id.
        state: Its state; of one that left, its last one.
        version: Its weight version.
        lag: How many versions it is behind the reference; negative when it is ahead.
        keys: Number of its keys.
        first_keys: The first three of them, sorted; of one that left, the first one.
        expected: Number of keys, or of verl's sessions, when it is complete.
        sessions: Number of its sessions, where the tags have them (verl).
        size_bytes: Its declared size.
        created_at: When it was created, seconds since the epoch.
        first_seen: When a listing first had it, likewise.
        state_since: When a listing first had it in this state, likewise.
        age_seconds: Its age when it was last listed; while the listing is valid, its age now.
        age_basis: Whether the age counts from its own tag (``tag``) or from when it was first seen.
        malformed: Rows with a tag that could not be read.
        orphaned: Whether it stays taken although the trainer's version has moved on.
        trace_id: The trace that its first row names.
        conditions: The conditions that hold and are about it.
        departed_at: When a listing first missed it, None while it is there.
        why: Why its departure is unusual, members of :data:`exporter.model.departures.WHY`.
    """

    partition: str
    label: str
    group_id: str
    state: GroupState
    version: int | None = None
    lag: int | None = None
    keys: int = 0
    first_keys: tuple[str, ...] = ()
    expected: int | None = None
    sessions: int | None = None
    size_bytes: int | None = None
    created_at: float | None = None
    first_seen: float
    state_since: float
    age_seconds: float
    age_basis: Basis
    malformed: int = 0
    orphaned: bool = False
    trace_id: str | None = None
    conditions: tuple[str, ...] = ()
    departed_at: float | None = None
    why: tuple[str, ...] = ()


class PartitionListed(msgspec.Struct, frozen=True):
    """A partition that the question covers.

    Attributes:
        partition: Its name; its label where it was never listed.
        label: The label under which it is counted.
        role: What it is for.
        groups: Number of its groups, None when it was never listed.
        listed_at: When it was last listed, seconds since the epoch, None when never.
        current: Whether that listing is still valid.
        reason: Why it cannot be read now, None when it can.
    """

    partition: str
    label: str
    role: Role
    groups: int | None
    listed_at: float | None
    current: bool
    reason: UnreadableReason | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a question about groups.

    Attributes:
        taken_at: Up to when the exporter's knowledge goes, seconds since the epoch.
        up: Whether the controller answers.
        known: Whether the partitions are known: then none listed means that there are none.
        reference_version: The version that lags count from, None when unknown.
        reference: Where it comes from.
        trace_url: Where a trace can be seen, with ``{trace_id}`` in it; None when that is not configured.
        partitions: The partitions that the question covers, at most 100.
        partitions_left_out: How many more there are.
        matched: Number of all groups that match.
        groups: The first of them.
        cut: Whether there are fewer than asked for, since the answer would be larger than 2 MB.
    """

    taken_at: float
    up: bool
    known: bool
    reference_version: int | None
    reference: Reference | None
    trace_url: str | None = None
    partitions: tuple[PartitionListed, ...] = ()
    partitions_left_out: int = 0
    matched: int = 0
    groups: tuple[Group, ...] = ()
    cut: bool = False


class _Found(msgspec.Struct, gc=False):
    """A group that matches."""

    part: PartitionGroups
    group_id: str
    group: Resident
    age_s: float
    lag: int | None


_Selector = Callable[[Candidate], bool]


@dataclass(frozen=True)
class Groups:
    """Answers questions about groups. Thread-safe.

    Args:
        view: Returns the groups as of now.
        snapshot: Returns the latest snapshot.
        limits: What the conditions are judged by.
        trace_url: See :class:`Answer`.
    """

    view: Callable[[], GroupsView]
    snapshot: Callable[[], Snapshot]
    limits: Limits
    trace_url: str | None = None

    def encode(self, parameters: list[tuple[str, str]]) -> bytes:
        """Return the answer to a URL's parameters as JSON; raises :class:`~exporter.groups.query.BadQuery`."""
        return msgspec.json.encode(self.answer(read_query(parameters)))

    def about(self, condition: str | None, limit: int) -> list[dict[str, Any]] | None:
        """Return groups that a condition is about, or the oldest of all; None where a condition is about no groups."""
        wanted = [("limit", str(limit))] + ([] if condition is None else [("condition", condition)])
        try:
            query = read_query(wanted)
        except BadQuery:
            return None
        return [msgspec.to_builtins(group) for group in self.answer(query).groups]

    def answer(self, query: Query) -> Answer:
        """Return the answer to *query*."""
        view, snapshot = self.view(), self.snapshot()
        covered = [part for part in view.partitions if query.partition in (None, part.partition, part.label)]
        partitions = [*_listed(covered, snapshot), *_never_listed(view, snapshot, query)]
        if query.departed:
            matched, described = _departed(view, query)
        else:
            matched, described = self._resident(view.reference, covered, snapshot, query)
        groups: list[Group] = []
        room = MAX_ANSWER_BYTES - _ROOM_FOR_PARTITIONS
        cut_short = False
        for group in described:
            room -= len(msgspec.json.encode(group)) + 1
            if room < 0:
                cut_short = True
                break
            groups.append(group)
        return Answer(
            taken_at=snapshot.taken_at,
            up=snapshot.up,
            known=snapshot.total is not None or bool(view.partitions),
            reference_version=None if view.reference is None else view.reference.version,
            reference=None if view.reference is None else view.reference.kind,
            trace_url=self.trace_url,
            partitions=tuple(partitions[:_MAX_PARTITIONS]),
            partitions_left_out=max(len(partitions) - _MAX_PARTITIONS, 0),
            matched=matched,
            groups=tuple(groups),
            cut=cut_short,
        )

    def _resident(
        self, reference: VersionReference | None, covered: list[PartitionGroups], snapshot: Snapshot, query: Query
    ) -> tuple[int, Iterator[Group]]:
        conditions = {one.name: one for one in snapshot.conditions}
        selectors = [self._selector(*one, conditions) for one in SELECTING.get(query.condition or "", ())]
        found = [
            one
            for part in covered
            for one in _matching(part, reference, snapshot.taken_at, query)
            if not selectors or _is_about(selectors, _candidate(one))
        ]
        first = heapq.nsmallest(query.limit, found, key=_ORDER[query.sort or "age"])
        about = {
            rule.name: self._selector(rule.name, rule.selects, conditions)
            for rule in CONDITIONS
            if rule.selects is not None and rule.name in conditions and conditions[rule.name].holds
        }
        return len(found), (_describe(one, about) for one in first)

    def _selector(self, name: str, selects: Selects, conditions: Mapping[str, Condition]) -> _Selector:
        condition = conditions.get(name)
        evidence = {} if condition is None else condition.evidence
        return lambda candidate: selects(candidate, self.limits, evidence)


def _listed(covered: list[PartitionGroups], snapshot: Snapshot) -> Iterator[PartitionListed]:
    reasons = {one.partition: one.reason for one in snapshot.statuses}
    for part in covered:
        yield PartitionListed(
            cut(part.partition, _MAX_TEXT),
            part.label,
            part.role,
            len(part.groups),
            part.listed_at,
            part.current and snapshot.up,
            reasons.get(part.label),
        )


def _never_listed(view: GroupsView, snapshot: Snapshot, query: Query) -> Iterator[PartitionListed]:
    """Yield the partitions that exist and were never listed."""
    listed = {part.label for part in view.partitions}
    for one in snapshot.statuses:
        if one.partition not in listed and query.partition in (None, one.partition):
            yield PartitionListed(one.partition, one.partition, one.role, None, one.listed_at, False, one.reason)


def _matching(part: PartitionGroups, reference: VersionReference | None, now: float, query: Query) -> Iterator[_Found]:
    state, search = query.state, query.search
    until = now if part.current else part.listed_at
    for group_id, group in part.groups.items():
        if state is not None and group.state != state:
            continue
        if search and search not in group_id and not group.has_key_with(search):
            continue
        since = group.first_seen + part.epoch if group.created_at is None else group.created_at
        version = group.weight_version
        lag = None if reference is None or version is None else reference.lag(version)
        yield _Found(part, group_id, group, max(until - since, 0.0), lag)


_ORDER: Final[Mapping[str, Callable[[_Found], tuple[float, str, str]]]] = {
    "age": lambda one: (-one.age_s, one.part.partition, one.group_id),
    "lag": lambda one: (math.inf if one.lag is None else -one.lag, one.part.partition, one.group_id),
    "keys": lambda one: (-one.group.key_count, one.part.partition, one.group_id),
}
_DEPARTED_ORDER: Final[Mapping[str, Callable[[Departed], float]]] = {
    "age": lambda one: -_age_at_departure(one),
    "lag": lambda one: math.inf if one.lag is None else -one.lag,
    "keys": lambda one: -one.key_count,
}


def _candidate(one: _Found) -> Candidate:
    group, part = one.group, one.part
    return Candidate(part.role, group.state, one.lag, one.age_s, one.group_id in part.orphaned, group.malformed)


def _is_about(selectors: Iterable[_Selector], candidate: Candidate) -> bool:
    return any(selects(candidate) for selects in selectors)


def _describe(one: _Found, about: Mapping[str, _Selector]) -> Group:
    part, group = one.part, one.group
    keys = group.keys
    candidate = _candidate(one)
    return Group(
        partition=cut(part.partition, _MAX_TEXT),
        label=part.label,
        group_id=cut(one.group_id, _MAX_TEXT),
        state=group.state,
        version=group.weight_version,
        lag=one.lag,
        keys=group.key_count,
        first_keys=tuple(cut(key, _MAX_TEXT) for key in keys[:_MAX_KEYS]),
        expected=group.expected,
        sessions=_sessions(part.convention, keys),
        size_bytes=group.size_bytes,
        created_at=group.created_at,
        first_seen=group.first_seen + part.epoch,
        state_since=group.since + part.epoch,
        age_seconds=one.age_s,
        age_basis="first_seen" if group.created_at is None else "tag",
        malformed=group.malformed,
        orphaned=candidate.orphaned,
        trace_id=group.trace_id,
        conditions=tuple(name for name, selects in about.items() if selects(candidate)),
    )


def _sessions(convention: str, keys: Sequence[str]) -> int | None:
    try:
        found = conventions.get(convention)
    except ValueError:  # one of the configuration's own, or of a reader of another kind
        return None
    return None if found is None else found.sessions(keys)


def _departed(view: GroupsView, query: Query) -> tuple[int, Iterator[Group]]:
    found = [
        one
        for one in view.departed
        if query.partition in (None, one.partition)
        and query.state in (None, one.state)
        and (query.search in one.group_id or query.search in one.key)
    ]
    if query.sort is not None:
        found.sort(key=_DEPARTED_ORDER[query.sort])
    return len(found), (_describe_departed(one) for one in found[: query.limit])


def _describe_departed(one: Departed) -> Group:
    return Group(
        partition=one.partition,
        label=one.partition,
        group_id=one.group_id,
        state=one.state,
        version=one.version,
        lag=one.lag,
        keys=one.key_count,
        first_keys=(one.key,),
        size_bytes=one.size_bytes,
        created_at=one.created_at,
        first_seen=one.first_seen,
        state_since=one.since,
        age_seconds=_age_at_departure(one),
        age_basis="first_seen" if one.created_at is None else "tag",
        trace_id=one.trace_id,
        departed_at=one.departed_at,
        why=one.why,
    )


def _age_at_departure(one: Departed) -> float:
    return max(one.departed_at - (one.first_seen if one.created_at is None else one.created_at), 0.0)
