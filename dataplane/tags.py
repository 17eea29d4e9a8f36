"""Tags: the small dicts that producers write beside their samples, and how each convention means them. Pure, no I/O.

Anything can be in a tag. What follows the conventions decodes into :class:`TagFields`, whose types are checked on the
way in; what does not goes into :class:`LooseTagFields` and is read with care.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "CONVENTIONS",
    "KEY_RULES",
    "NO_MAPPING",
    "Convention",
    "KeyRule",
    "LooseTagFields",
    "Tag",
    "TagFields",
    "detect_convention",
    "is_bare",
    "is_reserved_key",
    "read_tag",
    "read_tags",
    "to_bool",
    "to_count",
    "to_int",
    "to_seconds",
    "to_sorted_dict",
    "to_text",
]

Convention = Literal["auto", "recovery", "nemo-rl", "verl"]

CONVENTIONS: Final[tuple[Convention, ...]] = ("auto", "recovery", "nemo-rl", "verl")

# The integers that a float64, and so a metric sample, holds exactly.
_MIN_INT, _MAX_INT = -(2**53), 2**53

_Int = Annotated[int, msgspec.Meta(ge=_MIN_INT, le=_MAX_INT)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_INT)]
_Seconds = Annotated[float, msgspec.Meta(ge=float(_MIN_INT), le=float(_MAX_INT))]


class TagFields(msgspec.Struct, frozen=True, gc=False):
    """The tags that the conventions read, well-formed. Declared in sorted order, so that they list in it.

    The wire reader decodes straight into this; what is not named here is skipped undecoded.
    """

    committed: bool | UnsetType = UNSET
    created_at: _Seconds | UnsetType = UNSET
    expected_num_keys: _Count | UnsetType = UNSET
    group_id: str | UnsetType = UNSET
    is_prompt: bool | UnsetType = UNSET
    min_global_steps: _Int | UnsetType | None = UNSET
    num_keys: _Count | UnsetType = UNSET
    size_bytes: _Count | UnsetType = UNSET
    status: str | UnsetType = UNSET
    weight_version: _Int | UnsetType = UNSET


# Compared by identity: a value may be an array, whose comparison is no bool.
class LooseTagFields(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The same tags with whatever the producer wrote."""

    committed: Any = UNSET
    created_at: Any = UNSET
    expected_num_keys: Any = UNSET
    group_id: Any = UNSET
    is_prompt: Any = UNSET
    min_global_steps: Any = UNSET
    num_keys: Any = UNSET
    size_bytes: Any = UNSET
    status: Any = UNSET
    weight_version: Any = UNSET


Tag: TypeAlias = TagFields | LooseTagFields

NO_MAPPING: Final = LooseTagFields()
"""Stands, by identity, for a tag that is no mapping."""

_NAMES = frozenset(TagFields.__struct_fields__)


def is_reserved_key(key: str) -> bool:
    """Whether *key* is a framework's placeholder (``__schema__:…``) and never part of a group."""
    return key.startswith("__")


def is_bare(tag: Tag) -> bool:
    """Whether *tag* has none of the fields: TransferQueue lists a key before its tag is written."""
    return all(value is UNSET for value in msgspec.structs.astuple(tag))


def read_tags(rows: Mapping[str, object]) -> Mapping[str, Tag]:
    """Return *rows* with their tags as fields: all at once where all are well-formed, else one by one."""
    if set(map(type, rows.values())) <= {dict}:  # Of anything else, convert would try whether it can be indexed.
        try:
            return msgspec.convert(rows, dict[str, TagFields])
        except msgspec.ValidationError:
            pass
    return {key: read_tag(tag) for key, tag in rows.items()}


def read_tag(tag: object) -> Tag:
    """Return the fields of one tag, as they came; ``NO_MAPPING`` when it is none."""
    if isinstance(tag, TagFields | LooseTagFields):
        return tag
    if not isinstance(tag, Mapping):
        return NO_MAPPING
    return LooseTagFields(**{name: value for name, value in tag.items() if name in _NAMES})


def detect_convention(tags: Collection[Tag]) -> Convention:
    """Return the convention that a partition's *tags* follow: ``verl``, ``recovery`` or ``nemo-rl``.

    verl's prompt marker or step range settles it, then any tag that only ``recovery`` has; a partition with
    neither is NeMo RL's, whose rows carry a ``weight_version`` or nothing.
    """
    for tag in tags:
        if tag.is_prompt is not UNSET or tag.min_global_steps is not UNSET:
            return "verl"
    for tag in tags:
        if (
            tag.group_id is not UNSET
            or tag.committed is not UNSET
            or tag.expected_num_keys is not UNSET
            or tag.num_keys is not UNSET
            or tag.created_at is not UNSET
        ):
            return "recovery"
    return "nemo-rl"


def _nemo_rl_id(key: str, tag: Tag) -> str:
    head, _, index = key.rpartition("_g")
    return head if head and index.isdecimal() else key


def _verl_id(key: str, tag: Tag) -> str:
    if tag.is_prompt is True:
        return key
    head, _, index = key.rpartition("_")
    uid, _, session = head.rpartition("_")
    return uid if uid and index.isdecimal() and session.isdecimal() else key


class KeyRule(NamedTuple):
    """How a convention reads the group of a row that has no ``group_id`` tag from its key.

    Attributes:
        group_id: Returns the group id that is in a key; the key itself when there is none. What follows the id and the
            separator is looked at alone: with another id before it, it would be the end of that group's key.
        separator: Stands between the group id and the rest of the key.
    """

    group_id: Callable[[str, Tag], str]
    separator: str


KEY_RULES: Final[Mapping[Convention, KeyRule]] = {"nemo-rl": KeyRule(_nemo_rl_id, "_g"), "verl": KeyRule(_verl_id, "_")}
"""By convention. In the others, such a row is a group of its own."""


def to_text(value: object) -> str | None:
    """Return a string, number or bool as text, else None."""
    if type(value) is str:
        return value
    if type(value) not in (int, float, bool):
        return None
    try:
        return str(value)
    except ValueError:  # An integer of thousands of digits.
        return None


def to_int(value: object) -> int | None:
    """Return *value* as an integer that a metric can hold exactly, else None. Strings are not numbers."""
    if type(value) is int:
        return value if _MIN_INT <= value <= _MAX_INT else None
    return to_int(int(value)) if type(value) is float and value.is_integer() else None


def to_count(value: object) -> int | None:
    """Return *value* as an integer that is not negative, else None."""
    number = to_int(value)
    return None if number is None or number < 0 else number


def to_seconds(value: object) -> float | None:
    """Return *value* as seconds since the epoch, None when it is no number, NaN, infinite or beyond all time."""
    if type(value) is float:
        return value if _MIN_INT <= value <= _MAX_INT else None
    number = to_int(value)
    return None if number is None else float(number)


_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no", ""})


def to_bool(value: object) -> bool | None:
    """Return *value* as a bool, None when it is no bool, 0, 1 or word for one."""
    if type(value) is bool:
        return value
    if type(value) is int and value in (0, 1):
        return value == 1
    if type(value) is str:
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def to_sorted_dict(tag: object) -> dict[str, Any]:
    """Return a copy of a tag with its keys in sorted order; what is no mapping gives an empty one."""
    if type(tag) is TagFields:
        present: dict[str, Any] = msgspec.to_builtins(tag)
        return present
    if type(tag) is LooseTagFields:
        values = zip(tag.__struct_fields__, msgspec.structs.astuple(tag), strict=True)
        return {name: value for name, value in values if value is not UNSET and type(value) is not msgspec.msgpack.Ext}
    if isinstance(tag, Mapping):
        return {name: tag[name] for name in sorted(tag, key=str)}
    return {}
