"""From the configuration to the tag rules of each partition."""

from __future__ import annotations

from typing import NamedTuple

from dataplane.conventions import ConfiguredConvention, Convention
from dataplane.grouping import TagRules
from exporter.config.model import Config

__all__ = ["Rules", "tag_rules"]


class Rules(NamedTuple):
    """How a reader or a :class:`~dataplane.grouping.Grouper` reads the tags of rows.

    Attributes:
        rules: The tag rules of partitions, by name or a regular expression of names.
        default_rules: The tag rules of all other partitions.
        conventions: The configured conventions.
    """

    rules: dict[str, TagRules]
    default_rules: TagRules
    conventions: tuple[Convention, ...]


def tag_rules(config: Config) -> Rules:
    """Return the tag rules in *config*."""
    rules = {
        name: TagRules(
            partition.convention,
            partition.group_size,
            partition.role == "eval" if partition.take_failed is None and partition.role else partition.take_failed,
            partition.committed_by_default,
        )
        for name, partition in config.partitions.items()
    }
    own = tuple(ConfiguredConvention(name, tags) for name, tags in config.conventions.items())
    return Rules(rules, TagRules(config.default_convention), own)
