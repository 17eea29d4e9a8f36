"""The configuration: flags over environment over a YAML file over defaults.

Every setting is declared once, as a field of :class:`Config` or of a section of it: the file's keys, the environment
variables, their checks and ``check-config`` follow from its type. :mod:`exporter.config.settings` adds the flags.
"""

from exporter.config.addresses import Listen
from exporter.config.layers import ConfigNote
from exporter.config.loading import dump_config, load_config
from exporter.config.model import (
    Config,
    ConfigError,
    DiscoverySettings,
    Log,
    Metadata,
    Otlp,
    Partition,
    Ping,
    Storage,
    Thresholds,
    TqMetrics,
    Traces,
    Web,
)
from exporter.config.settings import CONFIG_ENV, SETTINGS, Setting

__all__ = [
    "CONFIG_ENV",
    "SETTINGS",
    "Config",
    "ConfigError",
    "ConfigNote",
    "DiscoverySettings",
    "Listen",
    "Log",
    "Metadata",
    "Otlp",
    "Partition",
    "Ping",
    "Setting",
    "Storage",
    "Thresholds",
    "TqMetrics",
    "Traces",
    "Web",
    "dump_config",
    "load_config",
]
