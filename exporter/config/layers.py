"""The three layers of a configuration, each read and checked: file, environment, flags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from exporter.config import values
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
            _unknown(flag, flag, known)
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
            _unknown(name, name, known)
    return layer


def read_file(file: Path) -> tuple[dict[str, Given], dict[str, dict[str, Any]]]:
    """Return the settings and the partitions in a YAML file; a key without a value is "not given".

    Raises:
        ConfigError: The file cannot be read, is no YAML, or has a key that is unknown or cannot be used.
    """
    try:
        source = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(file), "there is no such file", "give the path of a YAML file to --config") from None
    except UnicodeDecodeError:
        raise ConfigError(str(file), "is not text in UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(
            str(file), f"cannot be read ({error.strerror})", "give the path of a readable file"
        ) from error
    tree, lines = _parse_yaml(source, file)

    def origin(*path: str) -> str:
        return f"{file}:{lines[path]}: {'.'.join(path)}" if path in lines else f"{file}: {'.'.join(path)}"

    layer: dict[str, Given] = {}
    partitions: dict[str, dict[str, Any]] = {}
    for name, value in tree.items():
        if name == "partitions":
            partitions = _read_partitions(value, origin)
        elif name in SECTIONS:
            for inner, leaf in _mapping(value, origin(name)).items():
                key = f"{name}.{inner}"
                if key not in BY_KEY:
                    siblings = [other.rpartition(".")[2] for other in BY_KEY if other.startswith(f"{name}.")]
                    _unknown(origin(name, inner), inner, siblings)
                if leaf is not None:
                    layer[key] = _parse(BY_KEY[key].parse, leaf, origin(name, inner))
        elif name in BY_KEY:
            if value is not None:
                layer[name] = _parse(BY_KEY[name].parse, value, origin(name))
        else:
            _unknown(origin(name), name, [*SECTIONS, "partitions", *(key for key in BY_KEY if "." not in key)])
    return layer, partitions


def _read_partitions(value: object, origin: Callable[..., str]) -> dict[str, dict[str, Any]]:
    partitions = {}
    for name, settings in _mapping(value, origin("partitions")).items():
        parsed = {}
        for key, leaf in _mapping(settings, origin("partitions", name)).items():
            where = origin("partitions", name, key)
            if key not in PARTITION_KEYS:
                _unknown(where, key, PARTITION_KEYS)
            if leaf is not None:
                parsed[key] = _parse(PARTITION_KEYS[key], leaf, where).value
        partitions[name] = parsed
    return partitions


def _parse_yaml(source: str, file: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Return the document and the line of every key by its path, refusing keys that are given twice."""
    lines: dict[tuple[str, ...], int] = {}

    def visit(node: yaml.Node, above: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode) or len(above) == 3:
            return
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                continue
            path = (*above, name.value)
            line = name.start_mark.line + 1
            if path in lines:
                where = f"{file}:{line}: {'.'.join(path)}"
                raise ConfigError(where, f"is given twice, first in line {lines[path]}", "remove one")
            lines[path] = line
            visit(value, path)

    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
        if root is not None:
            visit(root, ())
        tree = yaml.safe_load(source)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = f"is not valid YAML ({error.problem or error.context})"
        raise ConfigError(f"{file}:{line}", problem, "check the indentation and the quotes there") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = f"is not valid YAML ({str(error)[:120]})"
        raise ConfigError(str(file), problem, "write plain keys and values") from error
    return _mapping(tree, str(file)), lines


def _mapping(value: object, origin: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(origin, f"{values.show(value)} is not a mapping", "write keys with values below it")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(origin, f"the key {values.show(key)} is not text", "put it in quotes")
    return value


def _parse(parser: Parser, value: object, origin: str) -> Given:
    try:
        return Given(parser(value), origin)
    except BadValue as error:
        raise ConfigError(origin, error.problem, error.remedy) from None


def _unknown(origin: str, name: str, known: Iterable[str]) -> NoReturn:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
    close = difflib.SequenceMatcher(None, name, nearest).ratio() >= 0.6
    remedy = f"did you mean {nearest}?" if close else f"the nearest is {nearest}, docs/configuration.md has them all"
    raise ConfigError(origin, "is not a known key", remedy)
