"""Converts a value from YAML, a variable or a flag to a checked value of a declared type.

Ranges and choices are declared in the type, with :class:`msgspec.Meta` and :data:`typing.Literal`. A :class:`Form` in
the type's Meta says how to write values that YAML has no syntax for, such as a duration.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

__all__ = [
    "BadValue",
    "Duration",
    "FilePath",
    "FolderPath",
    "Form",
    "RecordingSize",
    "RunId",
    "Size",
    "Text",
    "describe",
    "parse",
    "show",
    "show_duration",
    "show_size",
    "text",
]

_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h)?")
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_SIZE = re.compile(r"(\d{1,30})\s*(B|KiB|MiB|GiB)?")
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SWITCHES = {"yes": True, "on": True, "no": False, "off": False}


class BadValue(ValueError):
    """A value that cannot be used: what is wrong with it, and what to write instead."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Form:
    """How the values of a type are written.

    Attributes:
        metavar: What a flag's value looks like in ``--help``.
        read: Returns the typed value of what was given; raises :class:`BadValue`.
        show: Writes a value the way ``read`` reads it.
        noun: What the type is, for "give … from 1s to 5s".
    """

    metavar: str
    read: Callable[[object], Any]
    show: Callable[[Any], object] = lambda value: value
    noun: str = "a value"


def parse(value: object, kind: Any) -> Any:
    """Return *value* as the type *kind*.

    Raises:
        BadValue: It is not of that type, or out of the range that *kind* declares.
    """
    plain, metas, form = describe(kind)
    given = form.read(value) if form else _plain(value, plain)
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(given, kind, strict=False)
    if plain is bool:
        raise BadValue(f"{show(value)} is not true or false", "write true or false")
    if get_origin(plain) is Literal:
        raise BadValue(f"{show(value)} is not known", f"choose one of {', '.join(get_args(plain))}")
    noun = form.noun if form else "a whole number" if plain is int else "a number"
    try:
        msgspec.convert(given, plain, strict=False)
        problem = "is out of range"
    except msgspec.ValidationError:
        problem = f"is not {noun}"
    raise BadValue(f"{show(value)} {problem}", f"give {noun} {_limits(metas, form.show if form else str)}")


def describe(kind: Any) -> tuple[Any, tuple[Meta, ...], Form | None]:
    """Return what *kind* is without None and Meta, its Metas, and its form when it has one."""
    kind = get_args(kind)[0] if type(None) in get_args(kind) else kind
    metas: tuple[Meta, ...] = getattr(kind, "__metadata__", ())
    form = next((meta.extra["form"] for meta in metas if meta.extra), None)
    return kind.__origin__ if metas else kind, metas, form


def _plain(value: object, plain: Any) -> object:
    if not isinstance(value, str):
        return value
    word = value.strip()
    return _SWITCHES.get(word.lower(), word) if plain is bool else word


def _limits(metas: Iterable[Meta], shown: Callable[[Any], object]) -> str:
    found = {name: limit for meta in metas for name in ("gt", "ge", "le") if (limit := getattr(meta, name)) is not None}
    low, to = (f"above {shown(found['gt'])}", "and up to") if "gt" in found else (f"from {shown(found['ge'])}", "to")
    return f"{low} {to} {shown(found['le'])}" if "le" in found else f"{low} up"


def text(value: object) -> str:
    """Return a non-empty text."""
    if not isinstance(value, str):
        raise BadValue(f"{show(value)} is not text", "put it in quotes")
    if not value.strip():
        raise BadValue("is empty", "give a text or leave the key out")
    return value


def _duration(value: object) -> float:
    """Return seconds: a number, or a text such as ``250ms``, ``5s``, ``2m``."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(Decimal(match[1]) * _SECONDS[match[2] or "s"])
    try:
        seconds = msgspec.convert(value, float, strict=False)
    except msgspec.ValidationError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise BadValue(f"{show(value)} is not a duration", "write it as 250ms, 5s, 2m or a number of seconds")
    return seconds


def show_duration(seconds: float) -> str:
    """Return *seconds* in the form of a :data:`Duration`, with enough digits to read back the same value."""
    exact = Decimal(repr(seconds))
    number, unit = (exact.scaleb(3), "ms") if 0 < seconds < 1 else (exact, "s")
    return f"{number.normalize():f}{unit}"


def _size(value: object) -> int:
    """Return a number of bytes: a number, or a text such as ``256MiB``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        return int(match[1]) * _BYTES[match[2] or "B"]
    raise BadValue(f"{show(value)} is not a size", "write it as 256MiB, 1GiB or a number of bytes")


def show_size(count: int) -> str:
    """Return *count* bytes in the form of a :data:`Size`."""
    unit = next((unit for unit in ("GiB", "MiB", "KiB") if count % _BYTES[unit] == 0), "B")
    return f"{count // _BYTES[unit]}{unit}"


def show(value: object) -> str:
    """Return *value* for a one-line message: quoted, without line breaks, cut to a short length."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


Text = Annotated[str, Meta(extra={"form": Form("NAME", text)})]
RunId = Annotated[str, Meta(extra={"form": Form("RUN_ID", text)})]
FilePath = Annotated[Path, Meta(extra={"form": Form("FILE", lambda value: Path(text(value)), str)})]
FolderPath = Annotated[Path, Meta(extra={"form": Form("DIR", lambda value: Path(text(value)), str)})]
Duration = Annotated[float, Meta(extra={"form": Form("DURATION", _duration, show_duration, "a duration")})]
"""Seconds."""
_SIZE_FORM = Form("SIZE", _size, show_size, "a size")
Size = Annotated[int, Meta(ge=1, extra={"form": _SIZE_FORM})]
"""Bytes."""
RecordingSize = Annotated[int, Meta(ge=8 * 2**20, extra={"form": _SIZE_FORM})]
"""Bytes of a recording: with less, its write-ahead log would take most of it."""
