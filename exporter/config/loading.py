"""From the layers to one configuration, and back to YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from exporter.config.layers import Given, read_environment, read_file, read_flags
from exporter.config.model import Config, ConfigError, Partition, Ping
from exporter.config.settings import CONFIG_ENV, SECTIONS, SETTINGS, WAYS
from exporter.config.values import show_duration

__all__ = ["dump_config", "load_config"]


def load_config(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Config:
    """Return the effective configuration.

    Args:
        flags: Value by flag, for example ``{"--listen": ":9464"}``; None is "not given".
        environ: The environment; of it only ``TQ_EXPORTER_*`` is read. ``TQ_EXPORTER_CONFIG`` names the file when
            *file* is None. An empty variable is "not given".
        file: The YAML file, None for none.

    Raises:
        ConfigError: A key is unknown, a value cannot be used, or the file cannot be read.
    """
    if file is None and environ.get(CONFIG_ENV):
        file = Path(environ[CONFIG_ENV])
    from_file, partitions = read_file(file) if file is not None else ({}, {})
    given: dict[str, Given] = {}
    for layer in (from_file, read_environment(environ), read_flags(flags)):
        _merge(given, layer)
    _settle_ping(given)
    return _build(given, partitions)


def dump_config(config: Config) -> str:
    """Return *config* as the YAML that gives it again; the credentials in a URL are masked."""
    tree: dict[str, Any] = {}
    for setting in SETTINGS:
        section, _, name = setting.key.rpartition(".")
        value = setting.get(config)
        if value is None or (setting.key in WAYS and setting.key != _way(config)):
            continue
        (tree.setdefault(section, {}) if section else tree)[name] = setting.show(value)
    if config.partitions:
        tree["partitions"] = {
            name: {key: value for key, value in msgspec.structs.asdict(partition).items() if value is not None}
            for name, partition in config.partitions.items()
        }
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    # PyYAML reads U+0085 back as a space unless it is escaped.
    return yaml.safe_dump(tree, sort_keys=False) if "\x85" in text else text


def _way(config: Config) -> str:
    if config.discovery.controller is not None:
        return WAYS[0]
    return WAYS[1] if config.discovery.file is not None else WAYS[2]


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
    """Keep slo <= timeout <= interval: a given value that breaks it is an error, a default gives way."""
    defaults = Ping()
    interval = given["ping.interval"].value if "ping.interval" in given else defaults.interval
    timeout = given.get("ping.timeout")
    if timeout is None:
        timeout = given["ping.timeout"] = Given(min(defaults.timeout, round(0.8 * interval, 6)), "ping.timeout")
    elif timeout.value > interval:
        limit = f"give at most {show_duration(interval)} or ping less often"
        raise ConfigError(timeout.origin, f"is longer than the ping interval of {show_duration(interval)}", limit)
    slo = given.get("ping.slo")
    if slo is None:
        given["ping.slo"] = Given(min(defaults.slo, timeout.value), "ping.slo")
    elif slo.value > timeout.value:
        limit = f"give at most {show_duration(timeout.value)}"
        raise ConfigError(slo.origin, f"is longer than the ping timeout of {show_duration(timeout.value)}", limit)


def _build(given: Mapping[str, Given], partitions: Mapping[str, Mapping[str, Any]]) -> Config:
    top: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for key, item in given.items():
        section, _, name = key.rpartition(".")
        (sections[section] if section else top)[name] = item.value
    top.update((name, SECTIONS[name](**fields)) for name, fields in sections.items())
    config = Config(**top)
    settled = {
        name: Partition(settings.get("convention", config.default_convention), settings.get("group_size"))
        for name, settings in partitions.items()
    }
    return msgspec.structs.replace(config, partitions=settled)
