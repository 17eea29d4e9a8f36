"""The configuration: flags over environment over a YAML file over defaults.

Every setting is declared once, in :data:`SETTINGS`; flags, environment variables, the file's keys, their
checks and ``check-config`` follow from that table.
"""

from exporter.config.loading import dump_config, load_config
from exporter.config.model import (
    Config,
    ConfigError,
    Discovery,
    Listen,
    Log,
    Metadata,
    Otlp,
    Partition,
    Ping,
    Storage,
    Web,
)
from exporter.config.settings import CONFIG_ENV, SETTINGS, Setting

__all__ = [
    "CONFIG_ENV",
    "SETTINGS",
    "Config",
    "ConfigError",
    "Discovery",
    "Listen",
    "Log",
    "Metadata",
    "Otlp",
    "Partition",
    "Ping",
    "Setting",
    "Storage",
    "Web",
    "dump_config",
    "load_config",
]
