"""Reads the section ``conventions`` of a configuration file."""

from __future__ import annotations

import re
from typing import Any, Final, get_args, get_origin

import msgspec

from dataplane import conventions
from dataplane.conventions import BadConvention, ConfiguredConvention, ConventionTags
from dataplane.labels import MIXED_CONVENTIONS
from exporter.config.documents import Document, as_mapping, reject_key
from exporter.config.model import ConfigError
from exporter.config.values import BadValue, show, text

__all__ = ["read_conventions"]

_SECTION: Final = "conventions"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # it becomes a label


def read_conventions(document: Document, value: object) -> dict[str, ConventionTags]:
    """Return the conventions in the section's *value*, by name.

    Raises:
        ConfigError: A name is in use, or a convention cannot be used.
    """
    read = {}
    for name, parts in as_mapping(value, document.origin(_SECTION)).items():
        origin = document.origin(_SECTION, name)
        if name in (*conventions.names(), MIXED_CONVENTIONS):
            raise ConfigError(origin, "is a name in use", "choose another name")
        if not _NAME.fullmatch(name):
            raise ConfigError(origin, "is not a valid name", "use at most 63 letters, digits, dots, - and _")
        read[name] = tags = _read_struct(document, parts, ConventionTags, _SECTION, name)
        try:
            ConfiguredConvention(name, tags)
        except BadConvention as error:
            at = document.origin(_SECTION, name, *filter(None, error.part.split(".")))
            raise ConfigError(at, error.problem, error.remedy) from None
    return read


def _read_struct(document: Document, value: object, kind: Any, *path: str) -> Any:
    origin = document.origin(*path)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    given = {}
    for name, leaf in as_mapping(value, origin).items():
        if name not in fields:
            reject_key(document.origin(*path, name), name, fields)
        if leaf is not None:
            given[name] = _read(document, leaf, fields[name].type, *path, name)
    for name, field in fields.items():
        if field.required and name not in given:
            example = "tag: NAME" if name == "tag" else "values: [VALUE, …]"
            raise ConfigError(origin, f"has no {name}", f"give {example}")
    return kind(**given)


def _read(document: Document, value: object, kind: Any, *path: str) -> Any:
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]
    if get_origin(kind) is not tuple and kind is not str:
        return _read_struct(document, value, kind, *path)
    try:
        return text(value) if kind is str else _values(value)
    except BadValue as error:
        raise ConfigError(document.origin(*path), error.problem, error.remedy) from None


def _values(value: object) -> tuple[bool | int | float | str, ...]:
    if not isinstance(value, list):
        raise BadValue(f"{show(value)} is not a list", "write it as [VALUE, …]")
    for one in value:
        if not isinstance(one, bool | int | float | str):
            raise BadValue(f"{show(one)} is not a text, number or switch", "put it in quotes")
    return tuple(value)
