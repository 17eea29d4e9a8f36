"""Group metadata: from the rows of a partition (``{key: tag}``) to groups. Pure, no I/O.

A *row* is one sample: its key and its tag, the small dict that a producer wrote beside the tensors. A
*group* is what trains together, for example all completions of one prompt. :func:`group_rows` is the hot
loop of the exporter; it never raises on a malformed tag, it reports the field as unknown and counts the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET

from dataplane.tags import (
    CONVENTIONS,
    KEY_RULES,
    NO_MAPPING,
    Convention,
    KeyRule,
    Tag,
    detect_convention,
    is_bare,
    is_reserved_key,
    read_tags,
    to_bool,
    to_count,
    to_int,
    to_seconds,
    to_sorted_dict,
    to_text,
)

__all__ = [
    "CONVENTIONS",
    "GROUP_STATES",
    "Convention",
    "DataPlaneCapabilities",
    "DataPlaneGroupMeta",
    "GroupState",
    "count_ready",
    "group_rows",
    "group_tags",
    "is_reserved_key",
]

GroupState = Literal["ready", "incomplete", "uncommitted", "failed"]

GROUP_STATES: Final[tuple[GroupState, ...]] = ("ready", "incomplete", "uncommitted", "failed")


# A struct, not a dataclass: a poll makes one per group, and a frozen dataclass takes 15 times as long to make.
class DataPlaneGroupMeta(msgspec.Struct, frozen=True, gc=False):
    """What the data plane knows of one group of samples, without touching a tensor.

    Attributes:
        partition_id: The partition that holds the group.
        group_id: The ``group_id`` tag, else what the tag convention reads from the key, else the key.
        keys: The group's keys, sorted.
        weight_version: The oldest weight version among the rows (a mixed group is as stale as its oldest
            row), None when no row has a readable one.
        created_at: The oldest creation time in seconds since the epoch, None when unknown.
        committed: True when every row says that its data is written.
        expected_num_keys: How many keys the complete group has, None when undeclared.
        size_bytes: Sum over the rows that declare a size, None when none does.
        tags: A copy of the first row's tags with its keys in sorted order. The wire reader keeps only the
            tags that this module reads.
        failed: True when the producer marked the group as failed (verl's ``failure``).
        malformed_keys: How many of the rows carried a tag that could not be read.
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

    @property
    def is_complete(self) -> bool:
        """Whether all expected keys are there; True when no number was declared."""
        return self.expected_num_keys is None or len(self.keys) == self.expected_num_keys

    @property
    def state(self) -> GroupState:
        """``failed``, else ``uncommitted``, else ``incomplete``, else ``ready``."""
        if self.failed:
            return "failed"
        if not self.committed:
            return "uncommitted"
        return "ready" if self.is_complete else "incomplete"


@dataclass(frozen=True, slots=True)
class DataPlaneCapabilities:
    """What an adapter can do beyond the contract. An adapter claims only what a test shows.

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
    """Return the depth: how many of *groups* are committed, complete and not failed."""
    return sum(1 for group in groups if group.state == "ready")


def group_rows(
    partition_id: str,
    rows: Mapping[str, object],
    *,
    convention: Convention = "auto",
    group_size: int | None = None,
) -> list[DataPlaneGroupMeta]:
    """Turn a partition's rows into groups, in the order in which their first rows are listed.

    Args:
        partition_id: The partition that the rows come from.
        rows: Key to tag. A tag is a mapping or what :mod:`dataplane.tags` made of one; anything else is malformed.
        convention: How producers stamp their tags; ``auto`` decides from the rows.
        group_size: Expected number of keys for groups that declare none.

    Returns:
        One entry per group. Rows whose key starts with ``__`` belong to none.
    """
    tags = read_tags(rows)
    return group_tags(partition_id, tags, originals=rows, convention=convention, group_size=group_size)


def group_tags(
    partition_id: str,
    tags: Mapping[str, Tag],
    *,
    originals: Mapping[str, object] | None = None,
    convention: Convention = "auto",
    group_size: int | None = None,
) -> list[DataPlaneGroupMeta]:
    """Do what :func:`group_rows` does with tags that are read already.

    Args:
        originals: Where the groups' ``tags`` are copied from, by key; None copies what was read of them.
    """
    guess = detect_convention(list(islice(tags.values(), _GUESSED_FROM))) if convention == "auto" else convention
    parts = _parts(tags, guess)
    if convention == "auto":
        convention = detect_convention(parts.tags)
        if convention != guess:
            parts = _parts(tags, convention)
    is_committed = _committed_check(parts.tags, convention)

    groups: dict[str, _Group] = {}
    for group_id, tag, keys in zip(parts.ids, parts.tags, parts.keys, strict=True):
        _add(_join(groups, group_id, keys), tag, len(keys), convention, is_committed)
    source = tags if originals is None else originals
    return [_finish(partition_id, group, source[group.keys[0]], group_size) for group in groups.values()]


_CommittedCheck = Callable[[Tag], bool] | None


class _Group(msgspec.Struct, gc=False):
    """One group while its rows are read; its keys are in listed order."""

    id: str
    keys: list[str]
    version: int | None = None
    created_at: float | None = None
    committed: bool = True
    expected: int | None = None
    size: int | None = None
    failed: bool = False
    malformed: int = 0
    prompt_status: str | None = None


# Rows from which the convention is guessed. Whether the guess is right shows once all rows have been looked at.
_GUESSED_FROM: Final = 64


class _Parts(NamedTuple):
    """Rows that stand together, are of one group and have equal tags: each part's group id, tag and keys.

    A group may have several parts. No part is empty or has reserved keys.
    """

    ids: list[str]
    tags: list[Tag]
    keys: list[list[str]]


def _parts(tags: Mapping[str, Tag], convention: Convention) -> _Parts:
    """Cut rows into parts.

    The rows of a group are mostly written together with equal tags, and a group is mostly made like the one before.
    So each part is first taken to have as many rows, and the same endings of its keys, as the part before, which two
    comparisons of lists confirm.
    """
    rule = KEY_RULES.get(convention)
    keys, values = list(tags), list(tags.values())
    parts = _Parts([], [], [])
    count = 1  # of the last part with a group_id tag
    endings: list[str] = []  # of the last part without one
    start = 0
    while start < len(keys):
        key, tag = keys[start], values[start]
        stated = None if tag.group_id is UNSET else to_text(tag.group_id)
        if stated is not None:
            group_id = stated
            stop = start + (count if values[start : start + count].count(tag) == count else 1)
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
        if part:
            parts.ids.append(group_id)
            parts.tags.append(tag)
            parts.keys.append(part)
        start = stop
    return parts


def _end_of_group(
    keys: list[str], values: list[Tag], start: int, group_id: str, rule: KeyRule, endings: list[str]
) -> tuple[int, list[str]]:
    """Return where the part at *start* ends, and the endings of its keys, which may be those of the part before."""
    key, tag = keys[start], values[start]
    if group_id == key:
        return start + 1, endings
    prefix = group_id + rule.separator
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
        and rule.group_id(keys[stop], tag) == group_id
    ):
        stop += 1
    if not alike or stop > guessed:
        endings = [member[len(prefix) :] for member in keys[start:stop]]
    return stop, endings


def _without_reserved(keys: list[str]) -> list[str]:
    if "__" not in "".join(keys):  # faster than a look at each, and nearly always so
        return keys
    return [key for key in keys if not is_reserved_key(key)]


def _join(groups: dict[str, _Group], group_id: str, keys: list[str]) -> _Group:
    """Add *keys*, which become the group's own, to the group of that id."""
    group = groups.get(group_id)
    if group is None:
        group = groups[group_id] = _Group(group_id, keys)
    else:
        group.keys.extend(keys)
    return group


def _committed_check(tags: Sequence[Tag], convention: Convention) -> _CommittedCheck:
    """Return what a row's tag must fulfil to be committed, None where nothing is asked of single rows.

    A row that lacks what other rows of its partition have is a write in progress, or one that failed. A ``recovery``
    partition in which no row says ``committed`` is of a producer that never does: newer NeMo RL writes ``group_id`` and
    ``weight_version`` alone. There, listed is committed.
    """
    if convention == "recovery":
        if any(tag.committed is not UNSET for tag in tags):
            return lambda tag: to_bool(tag.committed) is True
        return lambda tag: not is_bare(tag)
    if convention == "nemo-rl" and any(tag.weight_version is not UNSET for tag in tags):
        return lambda tag: tag.weight_version is not UNSET
    return None


def _add(group: _Group, tag: Tag, count: int, convention: Convention, is_committed: _CommittedCheck) -> None:
    """Account for *count* rows of *group* with the same tag."""
    readable = tag is not NO_MAPPING
    version = tag.weight_version
    if is_committed is not None and not is_committed(tag):
        group.committed = False
    if convention == "recovery":
        readable = readable and (tag.committed is UNSET or to_bool(tag.committed) is not None)
    elif convention == "verl":
        version = UNSET if tag.min_global_steps is None else tag.min_global_steps  # None: verl does not know.
        status = tag.status if type(tag.status) is str else ""
        if status in _UNFINISHED:
            group.committed = False
        elif status == "failure":
            group.failed = True
        if tag.is_prompt is True:
            group.prompt_status = status
        readable = readable and (status != "" or tag.status is UNSET)

    if version is not UNSET:
        number = to_int(version)
        if number is None:
            readable = False
        elif group.version is None or number < group.version:
            group.version = number

    expected = tag.num_keys if tag.expected_num_keys is UNSET else tag.expected_num_keys
    if expected is not UNSET:
        number = to_count(expected)
        if number is None:
            readable = False
        elif group.expected is None or number > group.expected:
            group.expected = number

    if tag.created_at is not UNSET:
        seconds = to_seconds(tag.created_at)
        if seconds is None:
            readable = False
        elif group.created_at is None or seconds < group.created_at:
            group.created_at = seconds

    if tag.size_bytes is not UNSET:
        number = to_count(tag.size_bytes)
        if number is None:
            readable = False
        else:
            group.size = (group.size or 0) + number * count

    if type(tag.group_id) is not str and tag.group_id is not UNSET and to_text(tag.group_id) is None:
        readable = False
    if not readable:
        group.malformed += count


_UNFINISHED = frozenset({"", "pending", "running"})


def _finish(partition_id: str, group: _Group, first: object, group_size: int | None) -> DataPlaneGroupMeta:
    committed, failed = group.committed, group.failed
    # The trainer that takes a verl group clears the prompt row first; what is left are finished trajectories.
    if group.prompt_status is not None:
        committed, failed = group.prompt_status == "finished", group.prompt_status == "failure"
    if len(group.keys) > 1:
        group.keys.sort()
    return DataPlaneGroupMeta(
        partition_id,
        group.id,
        group.keys,
        group.version,
        group.created_at,
        committed,
        group_size if group.expected is None else group.expected,
        group.size,
        to_sorted_dict(first),
        failed,
        group.malformed,
    )
