"""The one table of all settings: key, check, flag and environment variable of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from dataplane import conventions
from exporter.config import values
from exporter.config.model import (
    Config,
    Discovery,
    Listen,
    Log,
    LogFormat,
    LogLevel,
    Metadata,
    Otlp,
    OtlpProtocol,
    Ping,
    Reader,
    Storage,
    Web,
)
from exporter.config.values import Parser

__all__ = ["BY_KEY", "CONFIG_ENV", "ENV_PREFIX", "PARTITION_KEYS", "SECTIONS", "SETTINGS", "WAYS", "Setting"]

ENV_PREFIX: Final = "TQ_EXPORTER_"
CONFIG_ENV: Final = f"{ENV_PREFIX}CONFIG"
"""The variable that names the configuration file."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        key: Its dotted key in the file and in :class:`~exporter.config.model.Config`.
        parse: Reads and checks a value; raises :class:`~exporter.config.values.BadValue`.
        flag: Its flag, None when it has none.
        metavar: What the flag's value looks like, None for a switch, which has none.
        help: What the flag does, in half a line.
        show: Writes a value the way ``parse`` reads it.
    """

    key: str
    parse: Parser
    flag: str | None = None
    metavar: str | None = None
    help: str = ""
    show: Callable[[Any], object] = lambda value: value

    @property
    def env(self) -> str:
        """The environment variable: after the flag when there is one, else after the key."""
        name = self.flag.removeprefix("--") if self.flag else self.key
        return ENV_PREFIX + re.sub(r"[^a-z0-9]", "_", name).upper()

    def get(self, config: Config) -> Any:
        """Return the setting's value in *config*."""
        section, _, name = self.key.rpartition(".")
        return getattr(getattr(config, section) if section else config, name)


def _listen(value: object) -> Listen:
    return Listen(*values.host_port(value))


def _path(value: object) -> Path:
    return Path(values.text(value))


def _choice(key: str, kind: Any, flag: str | None = None, help: str = "") -> Setting:
    choices = get_args(kind)
    return Setting(key, values.one_of(*choices), flag, "|".join(choices), help)


def _duration(key: str, low: float, high: float, flag: str | None = None, help: str = "") -> Setting:
    return Setting(key, values.duration(low, high), flag, "DURATION", help, values.show_duration)


def _interval(key: str, flag: str | None = None, help: str = "") -> Setting:
    return _duration(key, 0.1, 86400.0, flag, help)


def _timeout(key: str) -> Setting:
    return _duration(key, 0.01, 3600.0)


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("listen", _listen, "--listen", "ADDRESS:PORT", "where to serve HTTP; port 0 takes any free one", str),
    Setting("run", values.text, "--run", "NAME", "identity of the training run, on every metric's target_info"),
    _choice("reader", Reader, "--reader", "TransferQueue's protocol itself, or its public client"),
    Setting(
        "discovery.controller", values.controller_address, "--controller", "tcp://IP:PORT", "the controller's address"
    ),
    Setting("discovery.file", _path, "--discovery-file", "FILE", "a discovery record that holds the address", str),
    Setting(
        "discovery.ray_address",
        values.ray_address,
        "--ray-address",
        "ADDRESS",
        "the Ray cluster to ask: auto, HOST:PORT or ray://HOST:PORT",
    ),
    _duration("discovery.timeout", 1.0, 600.0),
    _interval("ping.interval", "--ping-interval", "time between two pings, such as 5s or 500ms"),
    _timeout("ping.timeout"),
    _timeout("ping.slo"),
    _interval("metadata.interval", "--metadata-interval", "time between two listings of the partitions"),
    _timeout("metadata.timeout"),
    Setting("metadata.max_controller_share", values.fraction),
    _timeout("metadata.max_controller_stall"),
    Setting("metadata.max_reply_bytes", values.size, show=values.show_size),
    Setting("metadata.max_rows", values.integer(1)),
    Setting("storage.enabled", values.boolean),
    _interval("storage.interval"),
    _timeout("storage.timeout"),
    Setting("default_convention", values.one_of(*conventions.names())),
    Setting("max_partitions", values.integer(1, 1000)),
    Setting("weight_versions", values.integer(0, 16)),
    Setting("otlp.endpoint", values.otlp_url, "--otlp", "URL", "push to this OTLP receiver", values.mask_url),
    _choice("otlp.protocol", OtlpProtocol),
    _interval("otlp.interval"),
    _timeout("otlp.timeout"),
    Setting("web.config_file", _path, "--web.config.file", "FILE", "TLS, users and headers: docs/security.md", str),
    Setting("web.disable_page", values.boolean, "--web.disable-page", None, "leave out the live page at /"),
    _choice("log.format", LogFormat, "--log-format", "how log lines look"),
    _choice("log.level", LogLevel, "--log-level", "the least severe lines to log"),
)
"""Every setting except ``partitions``, which only the file has."""

BY_KEY: Final = {setting.key: setting for setting in SETTINGS}
PARTITION_KEYS: Final[dict[str, Parser]] = {
    "convention": values.one_of(*conventions.names()),
    "group_size": values.integer(1),
}
SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "discovery": Discovery,
    "ping": Ping,
    "metadata": Metadata,
    "storage": Storage,
    "otlp": Otlp,
    "web": Web,
    "log": Log,
}
WAYS: Final = ("discovery.controller", "discovery.file", "discovery.ray_address")
"""The ways to find the controller. One layer may name one; a higher layer's choice replaces a lower one's."""
