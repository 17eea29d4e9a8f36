"""The base class of tag conventions: how one kind of producer writes keys and tags, and what they mean for a group.

A convention is one object, shared by all threads, so it keeps no state between listings. What earlier listings of a
partition showed is in its :class:`Memory`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from dataplane.tags import TRACEPARENT, Count, Int, Seconds, Tag, to_count, to_int, to_seconds

__all__ = ["COMMON_FIELDS", "Account", "Convention", "Group", "KeyRule", "Memory"]

COMMON_FIELDS: Final[Mapping[str, Any]] = {
    "client_counts": str,  # only in the rows that clients publish; see :mod:`dataplane.counts`
    "created_at": Seconds,
    "expected_num_keys": Count,
    "group_id": str,
    "groups_per_step": Count,  # only in the row that a trainer publishes
    "num_keys": Count,
    "size_bytes": Count,
    TRACEPARENT: str,  # names the trace that a group comes from; no convention reads it
    "weight_version": Int,
}
"""The tags that rows may have in any convention, and their types."""


class KeyRule(NamedTuple):
    """How to find a row's group id in its key when its tag has none.

    Attributes:
        group_id: Returns the group id in a key; the key itself when there is none.
        separator: Stands between the group id, with which the key begins, and the rest of the key. The rest must not
            depend on the id: after another id it would be the end of that group's key. None when the keys are not of
            that form: each key is then asked, which is slower.
    """

    group_id: Callable[[str, Tag], str]
    separator: str | None


class Memory(msgspec.Struct):
    """What the earlier listings of one partition showed. A convention reads and updates it.

    Attributes:
        convention: The convention that was detected, None before the first listing with rows.
        flagged: Whether a row has had the tag by which this convention knows a committed row. A row without it is then
            not committed. True from the start when the configuration says so.
    """

    convention: Convention | None = None
    flagged: bool = False


class Group(msgspec.Struct, gc=False):
    """One group while its rows are read. A convention that needs more data per group derives a class from it.

    Attributes:
        id: The group's id.
        keys: Its keys, in listed order.
        committed: Whether all of its data is written. True until the convention sets it to False.
        failed: Whether the producer gave the group up.
        taken: Whether a trainer has taken it.
        empty: Whether it has no sample to train on. A group that is committed and empty is left out.
        bare: Whether none of its rows has an id or a tag.
        version: The oldest weight version so far.
        expected: The largest number of keys that was declared.
        created_at: The oldest creation time, in seconds since the epoch.
        size: Sum of the declared sizes, in bytes.
        malformed: Number of rows with a tag that could not be read.
    """

    id: str
    keys: list[str]
    committed: bool = True
    failed: bool = False
    taken: bool = False
    empty: bool = False
    bare: bool = True
    version: int | None = None
    expected: int | None = None
    created_at: float | None = None
    size: int | None = None
    malformed: int = 0

    def add(
        self,
        count: int,
        readable: bool,
        version: object,
        expected: object,
        num_keys: object,
        created_at: object,
        size: object,
    ) -> None:
        """Add the values of *count* rows with the same tag. UNSET means that the tag has no such value.

        Args:
            count: How many rows.
            readable: False when another part of the tag could not be read. The rows then count as malformed, and also
                when one of the values is no number.
            version: Their weight version.
            expected: Number of keys of the complete group.
            num_keys: Used in place of *expected* where that is UNSET.
            created_at: When they were created, in seconds since the epoch.
            size: The size of each row in bytes.
        """
        if version is not UNSET:
            number = to_int(version)
            if number is None:
                readable = False
            elif self.version is None or number < self.version:
                self.version = number

        if expected is UNSET:
            expected = num_keys
        if expected is not UNSET:
            number = to_count(expected)
            if number is None:
                readable = False
            elif self.expected is None or number > self.expected:
                self.expected = number

        if created_at is not UNSET:
            seconds = to_seconds(created_at)
            if seconds is None:
                readable = False
            elif self.created_at is None or seconds < self.created_at:
                self.created_at = seconds

        if size is not UNSET:
            number = to_count(size)
            if number is None:
                readable = False
            else:
                self.size = (self.size or 0) + number * count

        if not readable:
            self.malformed += count


Account: TypeAlias = Callable[[Any, Tag, int, bool], None]
"""Adds *count* rows with the same tag to their group: ``account(group, tag, count, readable)``."""


class Convention(ABC):
    """One convention. The defaults are for rows with only the common tags, which are committed once listed.

    A value in a tag may be of any type, not only that in :attr:`fields`: methods check it and never raise.

    Attributes:
        name: Its name in a configuration.
        rank: ``auto`` asks conventions in ascending order. One that recognises every partition has a high rank.
        fields: The tags that it reads beyond :data:`COMMON_FIELDS`, and their types. No other tag is decoded.
        group_tag: The tag with a row's group id.
        key_rule: Used for rows without that tag. None makes each such row a group of its own.
        group_type: The class of its groups while their rows are read.
        exact: Whether a declared number of keys is exact. False makes it a minimum.
        by_tag: Whether it looks at each tag by itself, so that a listing can be read from what changed in it: it
            recognises tags, and ``accounting`` notes in the memory what it finds, if it does so for any one of them;
            the version that several tags state is the newest that any of them states; and ``settle`` and ``members``
            depend on the group alone. False for a convention that was not written with that in mind: listings of a
            partition that has it, or about which ``auto`` must ask it, are then decoded as a whole.
    """

    name: str
    rank: int = 0
    fields: Mapping[str, Any] = {}
    group_tag: str = "group_id"
    key_rule: KeyRule | None = None
    group_type: type[Group] = Group
    exact: bool = True
    by_tag: bool = False

    @abstractmethod
    def recognises(self, tags: Collection[Tag]) -> bool:
        """Whether a partition with these *tags* follows this convention. The first that returns True is used."""

    def ignores(self, key: str, tag: Tag) -> bool:
        """Whether the row is no sample at all, for example padding.

        Called once per run of rows of one group with equal tags. If the tag names the group, the key decides nothing.
        """
        return False

    def stated_version(self, tags: Collection[Tag]) -> int | None:
        """Return the newest weight version that the trainer has finished according to the rows, None if none say."""
        return None

    def accounting(self, tags: Collection[Tag], memory: Memory) -> Account:
        """Return the function that accounts for the rows of a listing.

        Args:
            tags: All tags of the listing.
            memory: What earlier listings showed; updated.
        """
        return self.account

    def account(self, group: Any, tag: Tag, count: int, readable: bool) -> None:
        """Add *count* rows with the same *tag* to their *group*, which is of :attr:`group_type`.

        Called once per run of rows with equal tags, so it dominates the cost of a listing.

        Args:
            group: The group so far.
            tag: The tag.
            count: Number of rows with this tag.
            readable: False when the tag is no mapping or has an unreadable group id.
        """
        group.add(
            count, readable, tag.weight_version, tag.expected_num_keys, tag.num_keys, tag.created_at, tag.size_bytes
        )

    def settle(self, group: Any) -> None:  # noqa: B027 - most conventions have decided before
        """Decide whether *group* is committed, failed, taken or empty, after all of its rows were added."""

    def members(self, group: Any) -> int | None:
        """Return how many of the *group*'s expected members are there, None to count its keys."""
        return None

    def sessions(self, keys: Sequence[str]) -> int | None:
        """Return how many sessions the *keys* of a group are of, None where groups have none. For display only."""
        return None
