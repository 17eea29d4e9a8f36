"""The three layers of a configuration, each read and checked: file, environment, flags."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from dataplane import conventions
from dataplane.environment import CLIENT_VARIABLES
from dataplane.partitions import check_pattern
from dataplane.patterns import BadPattern
from exporter.config.addresses import otlp_base
from exporter.config.conventions import read_conventions
from exporter.config.documents import Document, as_mapping, read_document, reject_key
from exporter.config.model import Config, ConfigError, Partition
from exporter.config.settings import CONFIG_ENV, ENV_PREFIX, SETTINGS, Setting, is_section
from exporter.config.values import BadValue, parse, show

__all__ = [
    "ConfigNote",
    "Given",
    "check_convention",
    "known_conventions",
    "read_environment",
    "read_file",
    "read_flags",
]

OTLP_KIND: Final = next(setting.kind for setting in SETTINGS if setting.key == "otlp.endpoint")
# Kubernetes adds these to a pod's environment for a service named tq-exporter. They are ignored.
_SERVICE_LINK: Final = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")


class ConfigNote(UserWarning):
    """A value was changed before it is used: the text says how."""


@dataclass(frozen=True, slots=True)
class Given:
    """A checked value and its origin: the flag, the variable, or file, line and key."""

    value: Any
    origin: str


def read_flags(flags: Mapping[str, object]) -> dict[str, Given]:
    """Return the settings in *flags*, value by flag; None counts as unset.

    Raises:
        ConfigError: A flag is unknown or its value cannot be used.
    """
    known = {setting.flag: setting for setting in SETTINGS if setting.flag}
    return _read_names(known, {flag: value for flag, value in flags.items() if value is not None})


def read_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the settings in ``TQ_EXPORTER_*``; an empty value counts as unset.

    The variables of the instrumentation, which runs in other programs, are ignored.

    Raises:
        ConfigError: A variable with our prefix is unknown or its value cannot be used.
    """
    known = {setting.env: setting for setting in SETTINGS}
    ours = {name: value for name, value in sorted(environ.items()) if name.startswith(ENV_PREFIX) and value != ""}
    for name in ours.keys() - known.keys():
        if name == CONFIG_ENV or name in CLIENT_VARIABLES or _SERVICE_LINK.search(name):
            del ours[name]
    return _read_names(known, ours)


def read_file(file: Path) -> dict[str, Given]:
    """Return the settings in a YAML file, with its ``conventions`` and ``partitions``; a key without a value is unset.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has a key that is unknown or cannot be used.
    """
    document = read_document(file, "--config")
    given = dict(_read_mapping(document, document.tree, Config))
    known = known_conventions(given)
    for name, settings in given["partitions"].value.items() if "partitions" in given else ():
        if "convention" in settings:
            check_convention(settings["convention"], known, document.origin("partitions", name, "convention"))
    return given


def known_conventions(given: Mapping[str, Given]) -> tuple[str, ...]:
    """Return the names of all conventions that a configuration with these settings may use."""
    own = given["conventions"].value if "conventions" in given else ()
    return tuple(sorted({*conventions.names(), *own}))


def check_convention(name: str, known: Collection[str], origin: str) -> None:
    """Raise the ConfigError for a convention that is not *known*."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(origin, f"{show(name)} is not known", f"{guess}choose one of {', '.join(known)}")


def _read_names(known: Mapping[str, Setting], given: Mapping[str, object]) -> dict[str, Given]:
    layer = {}
    for name, value in given.items():
        if name not in known:
            reject_key(name, name, known)
        layer[known[name].key] = _parse(value, known[name].kind, name)
    return layer


def _read_mapping(
    document: Document, value: object, kind: type[msgspec.Struct], *path: str
) -> Iterator[tuple[str, Given]]:
    """Yield the settings in the mapping *value* at *path*, by dotted key below *path*."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name, leaf in as_mapping(value, document.origin(*path)).items():
        here = (*path, name)
        origin = document.origin(*here)
        if name not in kinds:
            reject_key(origin, name, kinds)
        if here == ("conventions",):
            yield name, Given(read_conventions(document, leaf), origin)
        elif here == ("partitions",):
            yield name, Given(_read_partitions(document, leaf), origin)
        elif is_section(kinds[name]):
            for key, given in _read_mapping(document, leaf, kinds[name], *here):
                yield f"{name}.{key}", given
        elif leaf is not None:
            yield name, _parse(leaf, kinds[name], origin)


def _read_partitions(document: Document, value: object) -> dict[str, dict[str, Any]]:
    read = {}
    for name, settings in as_mapping(value, document.origin("partitions")).items():
        try:
            check_pattern(name)
        except BadPattern as error:
            raise ConfigError(document.origin("partitions", name), error.problem, error.remedy) from None
        read[name] = {
            key: given.value for key, given in _read_mapping(document, settings, Partition, "partitions", name)
        }
    return read


def _parse(value: object, kind: Any, origin: str) -> Given:
    try:
        if kind == OTLP_KIND and isinstance(value, str) and otlp_base(value) != value:
            dropped = value.removeprefix(otlp_base(value))
            warnings.warn(f"{origin}: {dropped} is left out, it is added for each signal", ConfigNote, stacklevel=2)
        return Given(parse(value, kind), origin)
    except BadValue as error:
        raise ConfigError(origin, error.problem, error.remedy) from None
