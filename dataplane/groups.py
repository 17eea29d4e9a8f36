"""Group metadata: from the rows of a partition (``{key: tag}``) to groups. Pure, no I/O.

A *row* is one sample: its key and its tag, the small dict that a producer wrote beside the tensors. A *group* is the
samples that are trained on together, for example all completions of one prompt. :func:`group_rows` is the hot loop of
the exporter. It never raises on a malformed tag: it reports the field as unknown and counts the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import msgspec

from dataplane import conventions
from dataplane.conventions import Account, Convention, Group, Memory, Registry
from dataplane.parts import Parts, cut
from dataplane.tags import Tag, to_sorted_dict

__all__ = [
    "GROUP_STATES",
    "Change",
    "DataPlaneCapabilities",
    "DataPlaneGroupMeta",
    "GroupState",
    "Grouped",
    "Listing",
    "changed_since",
    "count_ready",
    "group_listed",
    "group_rows",
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


class Change(NamedTuple):
    """What is different from an earlier listing: the groups that it had alone, and those that only this one has.

    A group that is not in either is the same object in both. ``since`` is the earlier listing's ``token``.
    """

    since: object
    gone: Sequence[DataPlaneGroupMeta]
    new: Sequence[DataPlaneGroupMeta]


class Listing(list[DataPlaneGroupMeta]):
    """The groups of a partition, and what its rows say beyond them.

    Attributes:
        convention: Name of the tag convention by which the rows were read.
        rows: Number of all rows, those included that belong to no group.
        stated_version: The newest weight version that the trainer has finished according to the rows, None if none say.
        token: Identifies these groups: listings with the same token have the same groups. None if nobody compares them.
        change: What changed since the listing before, None if that is not known.
    """

    __slots__ = ("change", "convention", "rows", "stated_version", "token")

    def __init__(
        self,
        groups: Iterable[DataPlaneGroupMeta] = (),
        *,
        convention: str,
        rows: int,
        stated_version: int | None,
        token: object = None,
        change: Change | None = None,
    ) -> None:
        super().__init__(groups)
        self.convention = convention
        self.rows = rows
        self.stated_version = stated_version
        self.token = token
        self.change = change


def changed_since(groups: Sequence[DataPlaneGroupMeta], token: object) -> Change | None:
    """Return what *groups* changed since the listing with *token*, None if that is not known."""
    if token is None or not isinstance(groups, Listing):
        return None
    if groups.token is token:
        return Change(token, (), ())
    return groups.change if groups.change is not None and groups.change.since is token else None


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
    return group_listed(
        partition_id,
        list(tags),
        list(tags.values()),
        originals=rows,
        convention=convention,
        group_size=group_size,
        take_failed=take_failed,
        memory=memory,
        registry=registry,
    ).listing


class Grouped(NamedTuple):
    """A listing, and how it came about.

    Attributes:
        listing: The groups.
        convention: The convention by which the rows were read.
        account: The function that accounted for them.
        parts: The rows' parts.
        left_out: By id, the keys of groups that the listing leaves out.
    """

    listing: Listing
    convention: Convention
    account: Account
    parts: Parts
    left_out: Mapping[str, list[str]]


def group_listed(
    partition_id: str,
    keys: Sequence[str],
    tags: Sequence[Tag],
    *,
    originals: Mapping[str, object] | None = None,
    convention: str = conventions.AUTO,
    group_size: int | None = None,
    take_failed: bool = False,
    memory: Memory | None = None,
    registry: Registry | None = None,
    admit: Callable[[int, int], None] | None = None,
) -> Grouped:
    """Do the same as :func:`group_rows` for tags that are already read.

    Args:
        partition_id: The partition that the tags come from.
        keys: The rows' keys, no two of them equal.
        tags: Their tags.
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
    guess = chosen or registry.detect(tags[:_GUESSED_FROM], memory.convention)
    parts = cut(keys, tags, guess)
    if chosen is None:
        chosen = registry.detect(parts.seen, memory.convention)
        if chosen is not guess:
            parts = cut(keys, tags, chosen)
        if parts.seen:
            memory.convention = chosen
    if admit is not None:
        admit(len(parts.ids), len(set(parts.ids)))
    account, new_group = chosen.accounting(parts.tags, memory), chosen.group_type

    groups: dict[str, Group] = {}
    firsts: dict[str, Tag] = {}
    for group_id, tag, own, readable, bare in zip(*parts[:5], strict=True):
        count = len(own)
        group = groups.get(group_id)
        if group is None:
            group = groups[group_id] = new_group(group_id, own)
            firsts[group_id] = tag
        else:
            group.keys.extend(own)
        if not bare:
            group.bare = False
        account(group, tag, count, readable)
    settle = chosen.settle
    left_out: dict[str, list[str]] = {}
    found = Listing(convention=chosen.name, rows=len(keys), stated_version=chosen.stated_version(parts.tags))
    for group, first in zip(groups.values(), firsts.values(), strict=True):
        settle(group)
        if group.empty and group.committed:
            left_out[group.id] = group.keys
            continue
        failed = group.failed and (group.empty or not take_failed)
        declared = group.expected is not None
        expected = group.expected if declared else group_size
        members = None if expected is None else chosen.members(group)
        source = first if originals is None else originals[group.keys[0]]
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
                to_sorted_dict(source),
                failed,
                group.malformed,
                group.taken,
                group.bare,
                members,
                expected is not None and not (declared and chosen.exact),
            )
        )
    return Grouped(found, chosen, account, parts, left_out)


# Number of rows from which the convention is guessed. The guess is checked once all rows have been read.
_GUESSED_FROM: Final = 64
