"""The three layers of a configuration, each read and checked: file, environment, flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporter.config.documents import as_mapping, read_document, reject_key
from exporter.config.model import ConfigError
from exporter.config.settings import BY_KEY, CONFIG_ENV, ENV_PREFIX, PARTITION_KEYS, SECTIONS, SETTINGS
from exporter.config.values import BadValue, Parser

__all__ = ["Given", "read_environment", "read_file", "read_flags"]

# What Kubernetes adds to a pod's environment for a service named tq-exporter: not ours to judge.
_SERVICE_LINK: Final = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")


@dataclass(frozen=True, slots=True)
class Given:
    """A checked value and the name under which its author gave it."""

    value: Any
    origin: str


def read_flags(flags: Mapping[str, object]) -> dict[str, Given]:
    """Return the settings in *flags*, value by flag; None is "not given".

    Raises:
        ConfigError: A flag is unknown or its value cannot be used.
    """
    known = {setting.flag: setting for setting in SETTINGS if setting.flag}
    given = {flag: value for flag, value in flags.items() if value is not None}
    for flag in given:
        if flag not in known:
            reject_key(flag, flag, known)
    return {known[flag].key: _parse(known[flag].parse, value, flag) for flag, value in given.items()}


def read_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the settings in ``TQ_EXPORTER_*``; an empty variable is "not given".

    Raises:
        ConfigError: A variable with our prefix is unknown or its value cannot be used.
    """
    known = {setting.env: setting for setting in SETTINGS}
    layer = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX) or value == "":
            continue
        if name in known:
            layer[known[name].key] = _parse(known[name].parse, value, name)
        elif name != CONFIG_ENV and not _SERVICE_LINK.search(name):
            reject_key(name, name, known)
    return layer


def read_file(file: Path) -> tuple[dict[str, Given], dict[str, dict[str, Any]]]:
    """Return the settings and the partitions in a YAML file; a key without a value is "not given".

    Raises:
        ConfigError: The file cannot be read, is no YAML, or has a key that is unknown or cannot be used.
    """
    document = read_document(file, "--config")
    origin = document.origin
    layer: dict[str, Given] = {}
    partitions: dict[str, dict[str, Any]] = {}
    for name, value in document.tree.items():
        if name == "partitions":
            partitions = _read_partitions(value, origin)
        elif name in SECTIONS:
            for inner, leaf in as_mapping(value, origin(name)).items():
                key = f"{name}.{inner}"
                if key not in BY_KEY:
                    siblings = [other.rpartition(".")[2] for other in BY_KEY if other.startswith(f"{name}.")]
                    reject_key(origin(name, inner), inner, siblings)
                if leaf is not None:
                    layer[key] = _parse(BY_KEY[key].parse, leaf, origin(name, inner))
        elif name in BY_KEY:
            if value is not None:
                layer[name] = _parse(BY_KEY[name].parse, value, origin(name))
        else:
            reject_key(origin(name), name, [*SECTIONS, "partitions", *(key for key in BY_KEY if "." not in key)])
    return layer, partitions


def _read_partitions(value: object, origin: Callable[..., str]) -> dict[str, dict[str, Any]]:
    partitions = {}
    for name, settings in as_mapping(value, origin("partitions")).items():
        parsed = {}
        for key, leaf in as_mapping(settings, origin("partitions", name)).items():
            where = origin("partitions", name, key)
            if key not in PARTITION_KEYS:
                reject_key(where, key, PARTITION_KEYS)
            if leaf is not None:
                parsed[key] = _parse(PARTITION_KEYS[key], leaf, where).value
        partitions[name] = parsed
    return partitions


def _parse(parser: Parser, value: object, origin: str) -> Given:
    try:
        return Given(parser(value), origin)
    except BadValue as error:
        raise ConfigError(origin, error.problem, error.remedy) from None
