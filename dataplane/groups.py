"""Group metadata: from the rows of a partition (``{key: tag}``) to groups. Pure, no I/O.

A *row* is one sample: its key and its tag, the small dict that a producer wrote beside the tensors. A *group* is the
samples that are trained on together, for example all completions of one prompt. :func:`group_rows` is the hot loop of
the exporter. It never raises on a malformed tag: it reports the field as unknown and counts the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET

from dataplane import conventions
from dataplane.conventions import Convention, Group, KeyRule, Memory, Registry
from dataplane.tags import NO_MAPPING, Tag, is_bare, is_reserved_key, to_sorted_dict, to_text

__all__ = [
    "GROUP_STATES",
    "DataPlaneCapabilities",
    "DataPlaneGroupMeta",
    "GroupState",
    "Listing",
    "count_ready",
    "group_rows",
    "group_tags",
]

GroupState = Literal["ready", "incomplete", "uncommitted", "failed", "taken"]

GROUP_STATES: Final[tuple[GroupState, ...]] = ("ready", "incomplete", "uncommitted", "failed", "taken")


# A struct, not a dataclass: a poll makes one per group, and a frozen dataclass takes 15 times as long to make.
class DataPlaneGroupMeta(msgspec.Struct, frozen=True, gc=False):
    """What the data plane knows about one group of samples. No tensor is read for it.

    Attributes:
        partition_id: The partition of the group.
        group_id: The id in the tag, else the id that the tag convention finds in the key, else the key.
        keys: The group's keys, sorted.
        weight_version: The oldest weight version among the rows (a mixed group is as stale as its oldest
            row), None when no row has a readable one.
        created_at: The oldest creation time in seconds since the epoch, None when unknown.
        committed: True when all of its data is written, according to the tag convention.
        expected_num_keys: Number of keys of the complete group, None when undeclared. Under ``verl``: of sessions.
        size_bytes: Sum over the rows that declare a size, None when none does.
        tags: A copy of the first row's tags, sorted by key. The wire reader keeps only the tags that a convention
            reads, and ``traceparent``.
        failed: True when the producer gave the group up.
        malformed_keys: Number of rows with a tag that could not be read.
        taken: True when a trainer has taken it and its rows are still there.
        bare: True when its only row has neither a tag nor an id: a write in progress or one that failed. The exporter
            counts such rows apart, since their group is not known yet.
        members: How many of the expected members are there, None when that is the number of keys.
        at_least: True when more than the expected number is complete, too.
    """

    partition_id: str
    group_id: str
    keys: list[str]
    weight_version: int | None = None
    created_at: float | None = None
    committed: bool = False
    expected_num_keys: int | None = None
    size_bytes: int | None = None
    tags: dict[str, Any] = msgspec.field(default_factory=dict)
    failed: bool = False
    malformed_keys: int = 0
    taken: bool = False
    bare: bool = False
    members: int | None = None
    at_least: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all expected keys exist; True when no number was declared."""
        expected = self.expected_num_keys
        if expected is None:
            return True
        members = len(self.keys) if self.members is None else self.members
        return members >= expected if self.at_least else members == expected

    @property
    def state(self) -> GroupState:
        """``failed``, else ``taken``, else ``uncommitted``, else ``incomplete``, else ``ready``."""
        if self.failed:
            return "failed"
        if self.taken:
            return "taken"
        if not self.committed:
            return "uncommitted"
        return "ready" if self.is_complete else "incomplete"


@dataclass(frozen=True, slots=True)
class DataPlaneCapabilities:
    """What an adapter supports beyond the contract. An adapter claims only what a test shows.

    Attributes:
        supports_persistent_recovery: The data survives a restart of the data plane.
        supports_server_side_filtering: Listings can be filtered before they reach the client.
        supports_atomic_batch_put: A batch is written as a whole or not at all.
        supports_verified_clear: A clear that returns has removed the data from storage.
    """

    supports_persistent_recovery: bool = False
    supports_server_side_filtering: bool = False
    supports_atomic_batch_put: bool = False
    supports_verified_clear: bool = False


def count_ready(groups: Iterable[DataPlaneGroupMeta]) -> int:
    """Return the depth: the number of *groups* that a trainer can take."""
    return sum(1 for group in groups if group.state == "ready")


class Listing(list[DataPlaneGroupMeta]):
    """The groups of a partition, and what its rows say beyond them.

    Attributes:
        convention: Name of the tag convention by which the rows were read.
        rows: Number of all rows, those included that belong to no group.
        stated_version: The newest weight version that the trainer has finished according to the rows, None if none say.
    """

    __slots__ = ("convention", "rows", "stated_version")

    def __init__(
        self, groups: Iterable[DataPlaneGroupMeta] = (), *, convention: str, rows: int, stated_version: int | None
    ) -> None:
        super().__init__(groups)
        self.convention = convention
        self.rows = rows
        self.stated_version = stated_version


def group_rows(
    partition_id: str,
    rows: Mapping[str, object],
    *,
    convention: str = conventions.AUTO,
    group_size: int | None = None,
    take_failed: bool = False,
    memory: Memory | None = None,
    registry: Registry | None = None,
) -> Listing:
    """Turn a partition's rows into groups, in the order in which their first rows are listed.

    Args:
        partition_id: The partition that the rows come from.
        rows: Key to tag. A tag is a mapping or what :mod:`dataplane.tags` made of one; anything else is malformed.
        convention: The name of a convention in *registry*; ``auto`` decides from the rows.
        group_size: Minimum number of keys of a complete group that declares none.
        take_failed: Whether trainers of this partition take failed groups as well.
        memory: What earlier listings of the partition showed; updated. None begins without any.
        registry: The conventions that there are, by default :func:`dataplane.conventions.registry`.

    Returns:
        One entry per group. Rows whose key starts with ``__``, and rows that are no samples, belong to none.

    Raises:
        ValueError: There is no such convention.
    """
    registry = registry or conventions.registry()
    tags = registry.schema.read_all(rows)
    return group_tags(
        partition_id,
        tags,
        originals=rows,
        convention=convention,
        group_size=group_size,
        take_failed=take_failed,
        memory=memory,
        registry=registry,
    )


def group_tags(
    partition_id: str,
    tags: Mapping[str, Tag],
    *,
    originals: Mapping[str, object] | None = None,
    convention: str = conventions.AUTO,
    group_size: int | None = None,
    take_failed: bool = False,
    memory: Memory | None = None,
    registry: Registry | None = None,
    admit: Callable[[int, int], None] | None = None,
) -> Listing:
    """Do the same as :func:`group_rows` for tags that are already read.

    Args:
        partition_id: The partition that the tags come from.
        tags: Key to tag.
        originals: By key, the tags that the groups' ``tags`` are copied from; None copies the fields that were read.
        convention: See :func:`group_rows`, also for the other arguments.
        group_size: Likewise.
        take_failed: Likewise.
        memory: Likewise.
        registry: Likewise.
        admit: Called before any group is made, with the number of runs of neighbouring rows of one group with equal
            tags, and that of groups. May raise.
    """
    memory = Memory() if memory is None else memory
    registry = registry or conventions.registry()
    chosen = registry.get(convention)
    guess = chosen or registry.detect(list(islice(tags.values(), _GUESSED_FROM)), memory.convention)
    parts = _parts(tags, guess)
    if chosen is None:
        chosen = registry.detect(parts.tags, memory.convention)
        if chosen is not guess:
            parts = _parts(tags, chosen)
        if parts.tags:
            memory.convention = chosen
    if admit is not None:
        admit(len(parts.ids), len(set(parts.ids)))
    account, new_group = chosen.accounting(parts.tags, memory), chosen.group_type

    groups: dict[str, Group] = {}
    for group_id, tag, keys, readable, bare in zip(*parts, strict=True):
        group = groups.get(group_id)
        if group is None:
            group = groups[group_id] = new_group(group_id, keys)
        else:
            group.keys.extend(keys)
        if not bare:
            group.bare = False
        account(group, tag, len(keys), readable)
    settle, source = chosen.settle, tags if originals is None else originals
    found = Listing(convention=chosen.name, rows=len(tags), stated_version=chosen.stated_version(parts.tags))
    for group in groups.values():
        first = source[group.keys[0]]
        settle(group)
        if group.empty and group.committed:
            continue
        failed = group.failed and (group.empty or not take_failed)
        declared = group.expected is not None
        expected = group.expected if declared else group_size
        members = None if expected is None else chosen.members(group)
        if len(group.keys) > 1:
            group.keys.sort()
        found.append(
            DataPlaneGroupMeta(
                partition_id,
                group.id,
                group.keys,
                group.version,
                group.created_at,
                (group.committed or (group.failed and not failed)) and not group.bare,
                expected,
                group.size,
                to_sorted_dict(first),
                failed,
                group.malformed,
                group.taken,
                group.bare,
                members,
                expected is not None and not (declared and chosen.exact),
            )
        )
    return found


# Number of rows from which the convention is guessed. The guess is checked once all rows have been read.
_GUESSED_FROM: Final = 64


class _Parts(NamedTuple):
    """Consecutive rows of one group with equal tags: each part's group id, tag and keys.

    A part is not readable when its tag is no mapping or has an unreadable group id. It is bare when it has neither tag
    nor id. A group may have several parts. No part is empty or has reserved keys.
    """

    ids: list[str]
    tags: list[Tag]
    keys: list[list[str]]
    readable: list[bool]
    bare: list[bool]


def _parts(tags: Mapping[str, Tag], convention: Convention) -> _Parts:
    """Cut rows into parts.

    The rows of a group are usually written together with equal tags, and usually resemble the group before. So each
    part is first assumed to have the same number of rows and the same key endings as the part before. Two list
    comparisons confirm that.
    """
    rule, group_tag = convention.key_rule, attrgetter(convention.group_tag)
    ignores = None if type(convention).ignores is Convention.ignores else convention.ignores
    keys, values = list(tags), list(tags.values())
    parts = _Parts([], [], [], [], [])
    count = 1  # of the last part whose tag has its group id
    endings: list[str] = []  # of the last part without one
    start = 0
    while start < len(keys):
        key, tag = keys[start], values[start]
        raw = group_tag(tag)
        stated = None if raw is UNSET else to_text(raw)
        if stated is not None:
            group_id = stated
            alike = count > 1 and values[start : start + count].count(tag) == count
            stop = start + (count if alike else 1)
            while stop < len(keys) and (values[stop] is tag or values[stop] == tag):
                stop += 1
            count = stop - start
            part = _without_reserved(keys[start:stop])
        elif is_reserved_key(key):
            stop, group_id, part = start + 1, key, []
        elif rule is None:
            stop, group_id, part = start + 1, key, [key]
        else:
            group_id = rule.group_id(key, tag)
            stop, endings = _end_of_group(keys, values, start, group_id, rule, endings)
            part = keys[start:stop]
        if part and not (ignores and ignores(key, tag)):
            parts.ids.append(group_id)
            parts.tags.append(tag)
            parts.keys.append(part)
            parts.readable.append(tag is not NO_MAPPING and (stated is not None or raw is UNSET))
            parts.bare.append(stated is None and group_id == key and is_bare(tag))
        start = stop
    return parts


def _end_of_group(
    keys: list[str], values: list[Tag], start: int, group_id: str, rule: KeyRule, endings: list[str]
) -> tuple[int, list[str]]:
    """Return the end of the part at *start*, and its key endings, which may be those of the part before."""
    key, tag = keys[start], values[start]
    if group_id == key:
        return start + 1, endings
    read_group_id, separator = rule
    if separator is None:
        stop = start + 1
        while (
            stop < len(keys)
            and (values[stop] is tag or values[stop] == tag)
            and not is_reserved_key(keys[stop])
            and read_group_id(keys[stop], tag) == group_id
        ):
            stop += 1
        return stop, endings
    prefix = group_id + separator
    if len(endings) < 2 and (start + 1 == len(keys) or values[start + 1] != tag):
        return start + 1, [key[len(prefix) :]]
    stop = start + len(endings)
    alike = (
        bool(endings)
        and keys[start:stop] == [prefix + ending for ending in endings]
        and values[start:stop].count(tag) == len(endings)
    )
    guessed = stop = stop if alike else start + 1
    while (
        stop < len(keys)
        and (values[stop] is tag or values[stop] == tag)
        and keys[stop].startswith(prefix)
        and read_group_id(keys[stop], tag) == group_id
    ):
        stop += 1
    if not alike or stop > guessed:
        endings = [member[len(prefix) :] for member in keys[start:stop]]
    return stop, endings


def _without_reserved(keys: list[str]) -> list[str]:
    if "__" not in "".join(keys):  # faster than checking each key, and nearly always true
        return keys
    return [key for key in keys if not is_reserved_key(key)]
