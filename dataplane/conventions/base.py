"""What a tag convention is: how one kind of producer writes keys and tags, and what these say of a group.

A convention is one object, made once and shared by all threads: it keeps nothing between listings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from dataplane.tags import Count, Int, Seconds, Tag, to_count, to_int, to_seconds

__all__ = ["COMMON_FIELDS", "Account", "Convention", "Group", "KeyRule"]

COMMON_FIELDS: Final[Mapping[str, Any]] = {
    "created_at": Seconds,
    "expected_num_keys": Count,
    "group_id": str,
    "num_keys": Count,
    "size_bytes": Count,
    "weight_version": Int,
}
"""The tags that rows may have in any convention, and their types."""


class KeyRule(NamedTuple):
    """How the group of a row whose tag states none is read from its key.

    Attributes:
        group_id: Returns the group id that is in a key; the key itself when there is none. What follows the id and the
            separator is looked at alone: with another id before it, it would be the end of that group's key.
        separator: Stands between the group id and the rest of the key.
    """

    group_id: Callable[[str, Tag], str]
    separator: str


class Group(msgspec.Struct, gc=False):
    """One group while its rows are read. A convention that must remember more of a group derives its own from it.

    Attributes:
        id: The group's id.
        keys: Its keys, in listed order.
        committed: Whether all of its data is written; a convention takes it back.
        failed: Whether the producer gave the group up.
        version: The oldest weight version so far.
        expected: The largest number of keys that was declared.
        created_at: The oldest creation time, in seconds since the epoch.
        size: Sum of the declared sizes, in bytes.
        malformed: How many rows had a tag that could not be read.
    """

    id: str
    keys: list[str]
    committed: bool = True
    failed: bool = False
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
        """Add what *count* rows with the same tag say. A value that is UNSET was not said.

        Args:
            count: How many rows.
            readable: False when something else of the tag could not be read. The rows count as malformed then, as
                they do when one of the values is no number.
            version: Their weight version.
            expected: How many keys the complete group has.
            num_keys: Stands in for *expected* where that was not said.
            created_at: When they were made, in seconds since the epoch.
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
"""Takes *count* rows with the same tag into their group: ``account(group, tag, count, readable)``."""


class Convention(ABC):
    """One convention. The defaults are those of rows with the common tags alone, each committed as soon as listed.

    A value in a tag may be of any type, whatever :attr:`fields` says: methods read it with care and never raise.

    Attributes:
        name: What a configuration calls it.
        rank: ``auto`` asks conventions in ascending order. One that recognises every partition has a high rank.
        fields: The tags that it reads beyond :data:`COMMON_FIELDS`, and their types. No other tag is decoded.
        group_tag: The tag that states a row's group.
        key_rule: Where no tag states it. None makes each such row a group of its own.
        group_type: What its groups are while their rows are read.
    """

    name: str
    rank: int = 0
    fields: Mapping[str, Any] = {}
    group_tag: str = "group_id"
    key_rule: KeyRule | None = None
    group_type: type[Group] = Group

    @abstractmethod
    def recognises(self, tags: Collection[Tag]) -> bool:
        """Whether a partition with these *tags* follows this convention. Asked until a convention says so."""

    def accounting(self, tags: Collection[Tag]) -> Account:
        """Return what accounts for the rows of a listing, whose *tags* may decide what a single one means."""
        return self.account

    def account(self, group: Any, tag: Tag, count: int, readable: bool) -> None:
        """Take *count* rows with the same *tag* into their *group*, which is of :attr:`group_type`.

        Called once for each stretch of equal rows, so it decides what a listing costs.

        Args:
            group: What is known of the group so far.
            tag: The tag.
            count: How many rows have it.
            readable: False when the tag is no mapping, or states a group in a way that cannot be read.
        """
        group.add(
            count, readable, tag.weight_version, tag.expected_num_keys, tag.num_keys, tag.created_at, tag.size_bytes
        )

    def settle(self, group: Any) -> None:  # noqa: B027 - most conventions have decided by then
        """Decide whether *group* is committed and whether it failed, once all of its rows are in."""
