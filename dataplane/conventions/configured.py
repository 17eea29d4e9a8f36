"""A convention from the names of its tags, for producers that write their own. The exporter's configuration has such.

A part that is not given is read from the common tag of its name: ``group_id``, ``weight_version``, ``created_at``,
``expected_num_keys`` (or ``num_keys``) and ``size_bytes``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from dataplane.conventions.base import COMMON_FIELDS, Account, Convention, KeyRule, Memory
from dataplane.conventions.shipped import shipped
from dataplane.patterns import MAX_NAME, BadPattern, compile_pattern
from dataplane.tags import SCALAR, Tag, field_of, to_bool, to_seconds, to_text

__all__ = ["BadConvention", "ConfiguredConvention", "ConventionTags", "GroupFrom", "TagNamed", "TagWith"]


class TagNamed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tag with a value."""

    tag: str


class TagWith(msgspec.Struct, frozen=True, omit_defaults=True):
    """A statement about a row: its tag has one of these values.

    A bool is compared as :func:`~dataplane.tags.to_bool` reads the tag, a number as a number, also if the tag has it as
    text, and a text with the tag's text.
    """

    tag: str
    values: tuple[bool | int | float | str, ...]


class GroupFrom(msgspec.Struct, frozen=True, omit_defaults=True):
    r"""Where a row's group id is: in a tag, in its key, or in its key when it does not have the tag.

    Attributes:
        tag: The tag.
        key: A regular expression for the whole key, with a group named ``group``, such as ``(?P<group>.+)_s\d+``. A key
            that does not match, or is longer than :data:`~dataplane.patterns.MAX_NAME`, is a group of its own.
    """

    tag: str | None = None
    key: str | None = None


class ConventionTags(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tags of a convention. ``group`` or ``weight_version`` must be given.

    Attributes:
        group: Where the group id is.
        weight_version: The weight version.
        committed: A group is committed when each of its rows says so. In a partition where no row has ever had the tag,
            rows are committed once listed. None: when each of its rows has a weight version.
        failed: The producer gave the group up; one row is enough.
        taken: A trainer has taken the group; one row is enough.
        created_at: The time of creation, seconds since the epoch.
        expected_num_keys: The number of keys of the complete group.
        size_bytes: The size of a row in bytes.
        ignore: The row is no sample.
    """

    group: GroupFrom | None = None
    weight_version: TagNamed | None = None
    committed: TagWith | None = None
    failed: TagWith | None = None
    taken: TagWith | None = None
    created_at: TagNamed | None = None
    expected_num_keys: TagNamed | None = None
    size_bytes: TagNamed | None = None
    ignore: TagWith | None = None


class BadConvention(ValueError):
    """A convention that cannot be used.

    Attributes:
        part: Where: a dotted name such as ``group.key``; empty for the convention as a whole.
        problem: What is wrong with it.
        remedy: What to write instead.
    """

    def __init__(self, part: str, problem: str, remedy: str) -> None:
        super().__init__(f"{part}{': ' if part else ''}{problem}; {remedy}")
        self.part, self.problem, self.remedy = part, problem, remedy


class _Statement:
    """Whether a row says something."""

    def __init__(self, part: str, given: TagWith | None) -> None:
        self._field = None if given is None else field_of(given.tag)
        values = () if given is None else given.values
        if given is not None and not values:
            raise BadConvention(f"{part}.values", "is empty", "name at least one value")
        numbers = [to_seconds(value) for value in values if type(value) in (int, float)]
        if None in numbers:
            raise BadConvention(f"{part}.values", "has a number that is out of range", "put it in quotes")
        self._texts = frozenset(value for value in values if type(value) is str)
        self._numbers = frozenset(numbers)
        self._bools = frozenset(value for value in values if type(value) is bool)

    def value(self, tag: Tag) -> object:
        """Return the value of the tag, UNSET when the row does not have it."""
        return UNSET if self._field is None else getattr(tag, self._field)

    def made_by(self, tag: Tag) -> bool:
        """Return whether the row with this tag makes the statement."""
        value = self.value(tag)
        if value is UNSET:
            return False
        if type(value) is str and value in self._texts:
            return True
        return (
            to_text(value) in self._texts
            or (bool(self._bools) and to_bool(value) in self._bools)
            or (bool(self._numbers) and to_seconds(value) in self._numbers)
        )

    def readable_in(self, tag: Tag) -> bool:
        """Return whether the tag is absent or has a value of a plain type."""
        value = self.value(tag)
        return type(value) is str or value is UNSET or to_text(value) is not None


class ConfiguredConvention(Convention):
    """A convention from the names of its tags.

    ``auto`` asks it before those that ship. It recognises a partition by any tag that it names and that no convention
    that ships reads. If it names no such tag, ``auto`` never chooses it, and a partition has to name it.

    Args:
        name: Its name.
        tags: Its tags.

    Raises:
        BadConvention: It cannot be used. A ``ValueError``.
    """

    by_tag = True

    def __init__(self, name: str, tags: ConventionTags) -> None:
        if tags.group is None and tags.weight_version is None:
            raise BadConvention("", "says neither group nor weight_version", "name the tag of one of them")
        group = tags.group or GroupFrom()
        if tags.group is not None and group.tag is None and group.key is None:
            raise BadConvention("group", "is empty", "name a tag or a regular expression as key")
        named = set(_named(tags))
        if not all(tag and tag.isprintable() and not {'"', "\\"} & set(tag) for tag in named):
            remedy = 'give each tag a name without ", \\ and control characters'
            raise BadConvention("", "names a tag that cannot be read", remedy)
        self.name = name
        self._committed = _Statement("committed", tags.committed)
        self._failed = _Statement("failed", tags.failed)
        self._taken = _Statement("taken", tags.taken)
        self._ignore = _Statement("ignore", tags.ignore)
        self.group_tag = field_of(group.tag or "group_id")
        if group.key is not None:
            self.key_rule = KeyRule(_key_reader(group.key), None)
        self._version = _field(tags.weight_version, "weight_version")
        self._expected = _field(tags.expected_num_keys, "expected_num_keys")
        self._num_keys = _field(tags.expected_num_keys, "num_keys")
        self._created_at = _field(tags.created_at, "created_at")
        self._size = _field(tags.size_bytes, "size_bytes")
        self.fields = dict.fromkeys(sorted(named - COMMON_FIELDS.keys()), SCALAR)
        others = {tag for convention in shipped() for tag in convention.fields}
        self._markers = tuple(field_of(tag) for tag in self.fields if tag not in others)
        self._by_version = tags.committed is None
        self._mark = self._version if tags.committed is None else field_of(tags.committed.tag)

    def recognises(self, tags: Collection[Tag]) -> bool:
        """See :class:`Convention`."""
        return any(getattr(tag, field) is not UNSET for tag in tags for field in self._markers)

    def ignores(self, key: str, tag: Tag) -> bool:
        """See :class:`Convention`."""
        return self._ignore.made_by(tag)

    def accounting(self, tags: Collection[Tag], memory: Memory) -> Account:
        """See :class:`Convention`."""
        memory.flagged = memory.flagged or any(getattr(tag, self._mark) is not UNSET for tag in tags)
        return self._account_flagged if memory.flagged else self.account

    def account(self, group: Any, tag: Tag, count: int, readable: bool) -> None:
        """See :class:`Convention`."""
        group.failed = group.failed or self._failed.made_by(tag)
        group.taken = group.taken or self._taken.made_by(tag)
        group.add(
            count,
            readable and all(said.readable_in(tag) for said in (self._committed, self._failed, self._taken)),
            getattr(tag, self._version),
            getattr(tag, self._expected),
            getattr(tag, self._num_keys),
            getattr(tag, self._created_at),
            getattr(tag, self._size),
        )

    def _account_flagged(self, group: Any, tag: Tag, count: int, readable: bool) -> None:
        if not (getattr(tag, self._version) is not UNSET if self._by_version else self._committed.made_by(tag)):
            group.committed = False
        self.account(group, tag, count, readable)


def _field(given: TagNamed | None, common: str) -> str:
    return field_of(common if given is None else given.tag)


def _named(tags: ConventionTags) -> Iterator[str]:
    """Yield the tags that are named."""
    for part in msgspec.structs.astuple(tags):
        if part is not None and part.tag is not None:
            yield part.tag


def _key_reader(pattern: str) -> Any:
    part, example = "group.key", r"write it like '(?P<group>.+)_s\d+'"
    try:
        expression = compile_pattern(pattern, example)
    except BadPattern as error:
        raise BadConvention(part, error.problem, error.remedy) from None
    if "group" not in expression.groupindex:
        raise BadConvention(part, "has no group named group", example)
    match = expression.fullmatch

    def group_id(key: str, tag: Tag) -> str:
        found = match(key) if len(key) <= MAX_NAME else None
        return (found["group"] or key) if found else key

    return group_id
