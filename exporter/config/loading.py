"""Merges the layers into one configuration, and writes it back as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from exporter.config.layers import Given, check_convention, known_conventions, read_environment, read_file, read_flags
from exporter.config.model import Config, ConfigError, Ping
from exporter.config.settings import CONFIG_ENV, SETTINGS, WAYS
from exporter.config.values import show_duration

__all__ = ["dump_config", "load_config"]


def load_config(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Config:
    """Return the effective configuration.

    Args:
        flags: Value by flag, for example ``{"--listen": "[::]:9464"}``; None counts as unset.
        environ: The environment; only ``TQ_EXPORTER_*`` is read. ``TQ_EXPORTER_CONFIG`` names the file when
            *file* is None. An empty value counts as unset.
        file: The YAML file, None for none.

    Raises:
        ConfigError: A key is unknown, a value cannot be used, or the file cannot be read.
    """
    if file is None and environ.get(CONFIG_ENV):
        file = Path(environ[CONFIG_ENV])
    given: dict[str, Given] = {}
    for layer in (read_file(file) if file is not None else {}, read_environment(environ), read_flags(flags)):
        _merge(given, layer)
        if "default_convention" in layer:
            default = layer["default_convention"]
            check_convention(default.value, known_conventions(given), default.origin)
    _settle_ping(given)
    return _build(given)


def dump_config(config: Config) -> str:
    """Return *config* as YAML that loads as the same configuration, with the credentials in URLs masked."""
    shown = {setting.key: setting.show(value) for setting in SETTINGS if (value := setting.get(config)) is not None}
    if config.discovery.controller is not None or config.discovery.file is not None:
        del shown["discovery.ray_address"]
    if config.conventions:
        shown["conventions"] = {name: msgspec.to_builtins(tags) for name, tags in config.conventions.items()}
    if config.partitions:
        shown["partitions"] = {
            name: {key: value for key, value in msgspec.structs.asdict(partition).items() if value not in (None, ())}
            for name, partition in config.partitions.items()
        }
    tree = _nest(shown)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    # PyYAML reads U+0085 back as a space unless it is escaped.
    return yaml.safe_dump(tree, sort_keys=False) if "\x85" in text else text


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn values by dotted key into a tree of sections."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        section = tree
        for above in sections:
            section = section.setdefault(above, {})
        section[name] = value
    return tree


def _merge(given: dict[str, Given], layer: Mapping[str, Given]) -> None:
    ways = [way for way in WAYS if way in layer]
    if len(ways) > 1:
        first, second = layer[ways[0]].origin, layer[ways[1]].origin
        raise ConfigError(second, f"and {first} are two ways to find the controller", "keep one of them")
    if ways:
        for way in WAYS:
            given.pop(way, None)
    given.update(layer)


def _settle_ping(given: dict[str, Given]) -> None:
    """Ensure slo <= timeout <= interval. A configured value that breaks this is an error; a default is lowered."""
    limit = given["ping.interval"].value if "ping.interval" in given else Ping().interval
    for name, above, room in (("timeout", "interval", 0.8), ("slo", "timeout", 1.0)):
        key = f"ping.{name}"
        if key not in given:
            given[key] = Given(min(getattr(Ping(), name), round(room * limit, 6), limit), key)
        elif given[key].value > limit:
            problem = f"is longer than the ping {above} of {show_duration(limit)}"
            raise ConfigError(given[key].origin, problem, f"give at most {show_duration(limit)} or a longer {above}")
        limit = given[key].value


def _build(given: Mapping[str, Given]) -> Config:
    tree = _nest({key: item.value for key, item in given.items()})
    convention = {"convention": tree.get("default_convention", Config().default_convention)}
    tree["partitions"] = {name: convention | settings for name, settings in tree.get("partitions", {}).items()}
    if tree.get("reader") == "client":
        for name, settings in tree["partitions"].items():
            if settings.get("tasks"):
                key = f"{given['partitions'].origin}.{name}.tasks"
                raise ConfigError(key, "needs the reader wire", "set reader: wire, or leave tasks out")
    return msgspec.convert(tree, Config)
