"""The groups of the last listings, as immutable values.

The poller copies them under its lock when an output asks; the copy is read without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from dataplane.groups import DataPlaneGroupMeta, GroupState
from dataplane.partitions import Role
from dataplane.tags import TRACEPARENT, to_trace_id
from exporter.model.versions import VersionReference

__all__ = ["Departed", "GroupsView", "PartitionGroups", "Resident", "cut", "reside"]

_BETWEEN_KEYS = "\n"


class Resident(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a group between two listings. Times of the exporter are monotonic: the wall clock may jump.

    Attributes:
        first_seen: When a listing first had it.
        since: When a listing first had it in its state.
        created_at: When its oldest row was created, seconds since the epoch, None when unknown.
        weight_version: Its oldest version, None when unknown.
        state: Its state.
        completed: Whether it has ever been ready or taken.
        key_count: Number of its keys.
        packed_keys: The keys as one text, which takes a fifth of the memory of a list. See :attr:`keys`.
        expected: Number of keys, or of verl's sessions, when complete; None when undeclared.
        size_bytes: Its declared size, None when undeclared.
        malformed: Rows with a tag that could not be read.
        trace_id: The trace that its first row names, None without one.
    """

    first_seen: float
    since: float
    created_at: float | None
    weight_version: int | None
    state: GroupState
    completed: bool
    key_count: int
    packed_keys: str | tuple[str, ...]
    expected: int | None = None
    size_bytes: int | None = None
    malformed: int = 0
    trace_id: str | None = None

    @property
    def keys(self) -> Sequence[str]:
        """Its keys, sorted."""
        packed = self.packed_keys
        return packed.split(_BETWEEN_KEYS) if isinstance(packed, str) else packed

    @property
    def key(self) -> str:
        """The first of its keys."""
        packed = self.packed_keys
        return packed.partition(_BETWEEN_KEYS)[0] if isinstance(packed, str) else packed[0]

    def has_key_with(self, text: str) -> bool:
        """Return whether one of its keys contains *text*."""
        if isinstance(self.packed_keys, str) and _BETWEEN_KEYS not in text:
            return text in self.packed_keys
        return any(text in key for key in self.keys)


def reside(
    group: DataPlaneGroupMeta, state: GroupState, *, first_seen: float, since: float, completed: bool
) -> Resident:
    """Return what is kept of *group*. *state* is its state, which takes a while to compute."""
    keys = group.keys
    packed: str | tuple[str, ...] = _BETWEEN_KEYS.join(keys)
    if packed.count(_BETWEEN_KEYS) >= len(keys):  # a key contains the separator
        packed = tuple(keys)
    traceparent = group.tags.get(TRACEPARENT)
    return Resident(
        first_seen,
        since,
        group.created_at,
        group.weight_version,
        state,
        completed,
        len(keys),
        packed,
        group.expected_num_keys,
        group.size_bytes,
        group.malformed_keys,
        None if traceparent is None else to_trace_id(traceparent),
    )


def cut(text: str, length: int) -> str:
    """Return *text* with at most *length* characters; one that was cut ends in an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


@dataclass(frozen=True, slots=True)
class PartitionGroups:
    """The groups of one partition.

    Attributes:
        partition: Its name.
        label: The label under which it is counted.
        role: What it is for.
        convention: The tag convention by which its rows were read.
        listed_at: When they were listed, seconds since the epoch.
        current: Whether that listing is still valid.
        groups: The groups by id.
        orphaned: The ids of those that stay taken although the trainer's version has moved on.
        epoch: The wall clock's time when the monotonic clock was 0.
    """

    partition: str
    label: str
    role: Role
    convention: str
    listed_at: float
    current: bool
    groups: Mapping[str, Resident]
    orphaned: frozenset[str]
    epoch: float


class Departed(msgspec.Struct, frozen=True):
    """A group that left in an unusual way. Its texts are bounded.

    Attributes:
        partition: The label of its partition.
        group_id: Its id.
        departed_at: When a listing first missed it, seconds since the epoch.
        why: Why its departure is unusual, members of :data:`exporter.model.departures.WHY`.
        state: Its last state.
        since: When it was first seen in that state, seconds since the epoch.
        first_seen: When it was first seen, likewise.
        created_at: When it was created, likewise; None when unknown.
        version: Its weight version, None when unknown.
        lag: Its lag at departure, None when unknown.
        key_count: Number of its keys.
        key: The first of them.
        size_bytes: Its declared size, None when undeclared.
        trace_id: The trace that its first row names, None without one.
    """

    partition: str
    group_id: str
    departed_at: float
    why: tuple[str, ...]
    state: GroupState
    since: float
    first_seen: float
    created_at: float | None
    version: int | None
    lag: int | None
    key_count: int
    key: str
    size_bytes: int | None
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class GroupsView:
    """All groups that the last listings had, and those that left in an unusual way, the last one first.

    ``reference`` is what lags are counted from, None when unknown.
    """

    partitions: tuple[PartitionGroups, ...] = ()
    departed: tuple[Departed, ...] = ()
    reference: VersionReference | None = None
