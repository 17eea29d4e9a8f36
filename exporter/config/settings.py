"""All settings: key, type, flag and environment variable of each, from the types in :mod:`exporter.config.model`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

import msgspec

from exporter.config import values
from exporter.config.model import Config

__all__ = ["CONFIG_ENV", "ENV_PREFIX", "FILE_ONLY", "SETTINGS", "WAYS", "Setting", "is_section"]

ENV_PREFIX: Final = "TQ_EXPORTER_"
CONFIG_ENV: Final = f"{ENV_PREFIX}CONFIG"
"""The variable that names the configuration file."""

_FLAGS: Final = {
    "listen": ("--listen", "where to serve HTTP; port 0 takes any free one"),
    "run": ("--run", "identity of the training run, on every metric's target_info"),
    "reader": ("--reader", "wire: speak TransferQueue's protocol; client: use its public client"),
    "discovery.controller": ("--controller", "the controller's address"),
    "discovery.file": ("--discovery-file", "file with the discovery record that names the controller"),
    "discovery.ray_address": ("--ray-address", "the Ray cluster to ask: auto, HOST:PORT or ray://HOST:PORT"),
    "ping.interval": ("--ping-interval", "time between two pings, such as 5s or 500ms"),
    "metadata.interval": ("--metadata-interval", "time between two listings of the partitions"),
    "otlp.endpoint": ("--otlp", "push to this OTLP receiver"),
    "tracking.tensorboard": ("--tensorboard", "write TensorBoard's event files below this folder"),
    "tracking.wandb.run_id": ("--wandb", "log into the Weights & Biases run with this id, from the run's URL"),
    "tracking.mlflow.uri": ("--mlflow", "log to this MLflow tracking store"),
    "tracking.rl_insight": ("--register", "have this RL-Insight server scrape the exporter"),
    "web.config_file": ("--web.config.file", "TLS, users and headers: docs/security.md"),
    "web.disable_page": ("--web.disable-page", "do not serve the live page at /"),
    "web.disable_groups": ("--web.disable-groups", "show no group ids and keys: the page and the API have no groups"),
    "web.allowed_hosts": ("--web.allowed-hosts", "further host names that clients may use for this exporter"),
    "history.file": ("--history-file", "keep the run on disk in this file: docs/recorder.md"),
    "log.format": ("--log-format", "format of the log lines"),
    "log.level": ("--log-level", "lowest level that is logged"),
}
"""Key to its flag and the flag's help text."""

WAYS: Final = ("discovery.controller", "discovery.file", "discovery.ray_address")
"""The ways to find the controller. One layer may name one; a higher layer's choice replaces a lower one's."""


FILE_ONLY: Final = ("conventions", "partitions")
"""Sections whose keys are names of your own. Only the file has them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        key: Its dotted key in the file and in :class:`~exporter.config.model.Config`.
        kind: The type of its value.
        flag: Its flag, None when it has none.
        help: The flag's help text.
    """

    key: str
    kind: Any
    flag: str | None = None
    help: str = ""

    @property
    def env(self) -> str:
        """The environment variable, named after the flag when there is one, else after the key."""
        name = self.flag.removeprefix("--") if self.flag else self.key
        return ENV_PREFIX + re.sub(r"[^a-z0-9]", "_", name).upper()

    @property
    def metavar(self) -> str | None:
        """The placeholder for the flag's value in ``--help``, None for a switch."""
        plain, _, form = values.describe(self.kind)
        return form.metavar if form else "|".join(get_args(plain)) or None

    def parse(self, value: object) -> Any:
        """Return the checked *value*; raises :class:`~exporter.config.values.BadValue`."""
        return values.parse(value, self.kind)

    def show(self, value: Any) -> object:
        """Return *value* the way :meth:`parse` reads it, the credentials in a URL masked."""
        form = values.describe(self.kind)[2]
        return form.show(value) if form else value

    def get(self, config: Config) -> Any:
        """Return the setting's value in *config*."""
        return functools.reduce(getattr, self.key.split("."), config)


def is_section(kind: Any) -> bool:
    """Return whether a key of this type is a section with further keys."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _settings(kind: type[msgspec.Struct], above: str = "") -> Iterator[Setting]:
    for field in msgspec.structs.fields(kind):
        key = above + field.name
        if is_section(field.type):
            yield from _settings(field.type, f"{key}.")
        elif key not in FILE_ONLY:
            yield Setting(key, field.type, *_FLAGS.get(key, ()))


SETTINGS: Final = tuple(_settings(Config))
"""Every setting except those in :data:`FILE_ONLY`."""
