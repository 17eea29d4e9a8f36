"""Reads tags: the small dicts that producers write beside their samples. Pure, no I/O.

A tag can contain anything. A :class:`TagSchema` defines which fields are read. A well-formed tag is decoded into its
``checked`` struct, which checks the types. Any other tag goes into its ``loose`` struct, and each value is checked when
it is used.
"""

from __future__ import annotations

import functools
import keyword
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, cast

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "MAX_EXACT_INT",
    "NO_MAPPING",
    "SCALAR",
    "TRACEPARENT",
    "Count",
    "Int",
    "LooseTagFields",
    "Seconds",
    "Tag",
    "TagFields",
    "TagSchema",
    "field_of",
    "is_bare",
    "is_reserved_key",
    "to_bool",
    "to_count",
    "to_int",
    "to_seconds",
    "to_sorted_dict",
    "to_text",
    "to_trace_id",
]

MAX_EXACT_INT: Final = 2**53
"""A float64, and so a metric sample, represents every integer between this and its negative exactly."""

MAX_SECONDS: Final = 253_402_300_799.0
"""The end of the year 9999, in seconds since the epoch. A larger time is none, or in another unit."""

Int = Annotated[int, msgspec.Meta(ge=-MAX_EXACT_INT, le=MAX_EXACT_INT)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXACT_INT)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_SECONDS)]

SCALAR: Final[Any] = bool | int | float | str | None
"""The type of a field that holds more than one of the types above."""


TRACEPARENT: Final = "traceparent"
"""The tag that carries a producer's span across the queue, in W3C Trace Context's text form."""


class TagFields(msgspec.Struct, frozen=True, gc=False):
    """Base of every schema's ``checked`` struct. A field that the tag does not have is ``UNSET``."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


# Compared by identity: a value may be an array, whose comparison is no bool.
class LooseTagFields(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Base of every schema's ``loose`` struct: the same fields with whatever the producer wrote."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


Tag: TypeAlias = TagFields | LooseTagFields


class _NoMapping(LooseTagFields, frozen=True, gc=False, eq=False):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return UNSET


NO_MAPPING: Final = _NoMapping()
"""Marks, by identity, a tag that is no mapping: it has no field of any schema."""


class TagSchema:
    """Which tags are read, and the two structs that they are read into.

    Attributes:
        checked: A struct for well-formed tags. The wire reader decodes directly into it and skips other fields.
        loose: A struct with the same fields that accepts any value.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        # Sorted, so that tags list in sorted order.
        names = self._fields = {name: field_of(name) for name in sorted(fields)}
        typed = [(field, fields[name] | UnsetType, UNSET) for name, field in names.items()]
        untyped = [(field, Any, UNSET) for field in names.values()]
        rename = {field: name for name, field in names.items()}
        self.checked = cast("type[TagFields]", msgspec.defstruct("TagFields", typed, bases=(TagFields,), rename=rename))
        self.loose = cast(
            "type[LooseTagFields]",
            msgspec.defstruct("LooseTagFields", untyped, bases=(LooseTagFields,), rename=rename),
        )

    def read_all(self, rows: Mapping[str, object]) -> Mapping[str, Tag]:
        """Return *rows* with their tags as structs: read all at once if all are well-formed, else one by one."""
        if set(map(type, rows.values())) <= {dict}:  # For other types, convert would try to index them.
            try:
                return msgspec.convert(rows, dict[str, self.checked])  # type: ignore[name-defined]
            except msgspec.ValidationError:
                pass
        return {key: self.read(tag) for key, tag in rows.items()}

    def read(self, tag: object) -> Tag:
        """Return the fields of one tag, unchecked; :data:`NO_MAPPING` when it is no mapping."""
        if isinstance(tag, TagFields | LooseTagFields):
            return tag
        if not isinstance(tag, Mapping):
            return NO_MAPPING
        names = self._fields
        return self.loose(**{names[name]: value for name, value in tag.items() if name in names})


def field_of(name: str) -> str:
    """Return the attribute of a :data:`Tag` that holds the tag called *name*: mostly the name itself."""
    if name.isidentifier() and name.isascii() and not name.startswith("_") and not keyword.iskeyword(name):
        return name
    return f"_{name.encode().hex()}"


def is_reserved_key(key: str) -> bool:
    """Whether *key* is a framework's placeholder (``__schema__:…``) and never part of a group."""
    return key.startswith("__")


def is_bare(tag: Tag) -> bool:
    """Whether *tag* has none of the fields: TransferQueue lists a key before its tag is written."""
    if isinstance(tag, TagFields):
        return tag == _without_fields(type(tag))
    return all(value is UNSET for value in msgspec.structs.astuple(tag)) and tag is not NO_MAPPING


@functools.lru_cache(maxsize=4)
def _without_fields(kind: type[TagFields]) -> TagFields:
    return kind()


def to_text(value: object) -> str | None:
    """Return a string, number or bool as text, else None."""
    if type(value) is str:
        return value
    if type(value) not in _PLAIN:
        value = _to_plain(value)
        if value is None:
            return None
    try:
        return str(value)
    except ValueError:  # An integer of thousands of digits.
        return None


def to_int(value: object) -> int | None:
    """Return *value* as an integer that a metric represents exactly, else None. ``"4"`` and ``4.0`` are integers."""
    if type(value) is int:
        return value if -MAX_EXACT_INT <= value <= MAX_EXACT_INT else None
    if type(value) is float:
        return to_int(int(value)) if value.is_integer() else None
    number = _to_number(value)
    return None if number is None else to_int(number)


def to_count(value: object) -> int | None:
    """Return *value* as an integer that is not negative, else None."""
    number = to_int(value)
    return None if number is None or number < 0 else number


def to_seconds(value: object) -> float | None:
    """Return *value* as seconds since the epoch, None when it is no number, NaN, or not a time."""
    if type(value) is float:
        return value if 0.0 <= value <= MAX_SECONDS else None
    if type(value) is int:
        return float(value) if 0 <= value <= MAX_SECONDS else None
    other = _to_number(value)
    return None if other is None else to_seconds(other)


def _to_number(value: object) -> int | float | None:
    """Return a number that was written as decimal text or as a numpy or torch scalar, else None."""
    if type(value) is not str:
        value = _to_plain(value)
    if type(value) is str:
        if not _DECIMAL.fullmatch(value):
            return None
        return float(value) if set(value) & {".", "e", "E"} else int(value)
    return value if type(value) in (int, float) else None  # type: ignore[return-value]


def _to_plain(value: object) -> object:
    """Return the Python value of a numpy or torch scalar, else None."""
    if type(value) in _PLAIN or getattr(value, "shape", None) != ():
        return None
    try:
        plain = value.item()  # type: ignore[attr-defined]
    except Exception:  # A tag may hold any object.
        return None
    return plain if type(plain) in _PLAIN else None


def to_trace_id(traceparent: object) -> str | None:
    """Return the trace id, 32 hexadecimal digits, in a W3C ``traceparent``, None when it has no valid one."""
    match = _TRACEPARENT.match(traceparent) if type(traceparent) is str else None
    return None if match is None or match[1] == _NO_TRACE else match[1]


_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?=\Z|-)")
_NO_TRACE: Final = 32 * "0"
_PLAIN: Final = frozenset({str, int, float, bool})
_DECIMAL: Final = re.compile(r"\s*[+-]?\d{1,20}(\.\d{0,20})?([eE][+-]?\d{1,3})?\s*", re.ASCII)
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no", ""})


def to_bool(value: object) -> bool | None:
    """Return *value* as a bool. It may be a bool, 0, 1, a word for true or false or a scalar of those; else None."""
    if type(value) is bool:
        return value
    if type(value) not in _PLAIN:
        value = _to_plain(value)
    if type(value) is bool:
        return value
    if type(value) is int and value in (0, 1):
        return value == 1
    if type(value) is str:
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def to_sorted_dict(tag: object) -> dict[str, Any]:
    """Return a copy of a tag with its keys in sorted order; an empty dict when it is no mapping."""
    if isinstance(tag, TagFields):
        present: dict[str, Any] = msgspec.to_builtins(tag)
        return present
    if isinstance(tag, LooseTagFields):
        values = zip(tag.__struct_encode_fields__, msgspec.structs.astuple(tag), strict=True)
        return {name: value for name, value in values if value is not UNSET and type(value) is not msgspec.msgpack.Ext}
    if isinstance(tag, Mapping):
        return {name: tag[name] for name in sorted(tag, key=str)}
    return {}
