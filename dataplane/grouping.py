"""Groups the rows of a data plane's partitions by their rules, and remembers what each partition showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dataplane import conventions
from dataplane.conventions import Memory
from dataplane.groups import Listing, group_rows, group_tags
from dataplane.partitions import ByName, role_of
from dataplane.tags import Tag

__all__ = ["DEFAULT_TAG_RULES", "Grouper", "TagRules"]

_MAX_REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class TagRules:
    """How a partition's tags are read.

    Attributes:
        convention: One of :func:`dataplane.conventions.names`.
        group_size: Smallest number of keys of a complete group that declares none, None when groups may have any size.
        take_failed: Whether its trainer takes failed groups as well. None: in partitions whose name says evaluation.
        committed_by_default: False makes a row without the convention's mark of a committed row uncommitted from the
            start. True does so once a row has had that mark.

    Raises:
        ValueError: There is no such convention.
    """

    convention: str = conventions.AUTO
    group_size: int | None = None
    take_failed: bool | None = None
    committed_by_default: bool = True

    def __post_init__(self) -> None:
        conventions.check(self.convention)


DEFAULT_TAG_RULES: Final = TagRules()


class Grouper:
    """Turns listings of one data plane into groups.

    Args:
        rules: How the tags of a partition are read, by its name or a regular expression of names.
        default: The same for all other partitions.
    """

    def __init__(self, rules: Mapping[str, TagRules] | None = None, default: TagRules = DEFAULT_TAG_RULES) -> None:
        self._rules = ByName(rules or {})
        self._default = default
        self._memories: dict[str, Memory] = {}

    def group_rows(self, partition_id: str, rows: Mapping[str, object]) -> Listing:
        """See :func:`dataplane.groups.group_rows`."""
        convention, group_size, take_failed, memory = self._how(partition_id)
        return group_rows(
            partition_id, rows, convention=convention, group_size=group_size, take_failed=take_failed, memory=memory
        )

    def group_tags(self, partition_id: str, tags: Mapping[str, Tag]) -> Listing:
        """See :func:`dataplane.groups.group_tags`."""
        convention, group_size, take_failed, memory = self._how(partition_id)
        return group_tags(
            partition_id, tags, convention=convention, group_size=group_size, take_failed=take_failed, memory=memory
        )

    def _how(self, partition_id: str) -> tuple[str, int | None, bool, Memory]:
        rules = self._rules.get(partition_id) or self._default
        memory = self._memories.pop(partition_id, None) or Memory(flagged=not rules.committed_by_default)
        self._memories[partition_id] = memory  # the least recently listed one comes first
        if len(self._memories) > _MAX_REMEMBERED:
            self._memories.pop(next(iter(self._memories)), None)
        take_failed = role_of(partition_id) == "eval" if rules.take_failed is None else rules.take_failed
        return rules.convention, rules.group_size, take_failed, memory
