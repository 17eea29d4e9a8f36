"""Groups the rows of a data plane's partitions by their rules, and remembers what each partition showed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from dataplane import conventions
from dataplane.conventions import Convention, Memory, Registry
from dataplane.groups import Grouped, Listing, group_listed, group_rows
from dataplane.partitions import ByName, role_of
from dataplane.tags import Tag

__all__ = ["DEFAULT_TAG_RULES", "Grouper", "TagRules"]

_MAX_REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class TagRules:
    """How a partition's tags are read.

    Attributes:
        convention: The name of a convention.
        group_size: Smallest number of keys of a complete group that declares none, None when groups may have any size.
        take_failed: Whether its trainer takes failed groups as well. None: in partitions whose name says evaluation.
        committed_by_default: False makes a row without the convention's mark of a committed row uncommitted from the
            start. True does so once a row has had that mark.
    """

    convention: str = conventions.AUTO
    group_size: int | None = None
    take_failed: bool | None = None
    committed_by_default: bool = True


DEFAULT_TAG_RULES: Final = TagRules()


class _How(TypedDict):
    """The arguments of :func:`group_rows` and :func:`group_listed`."""

    convention: str
    group_size: int | None
    take_failed: bool
    memory: Memory
    registry: Registry


class Grouper:
    """Turns listings of one data plane into groups.

    Args:
        rules: How the tags of a partition are read, by its name or a regular expression of names.
        default: The same for all other partitions.
        more: Conventions that ``auto`` asks before those that are registered, in this order.

    Raises:
        ValueError: A rule names a convention that does not exist.
    """

    def __init__(
        self,
        rules: Mapping[str, TagRules] | None = None,
        default: TagRules = DEFAULT_TAG_RULES,
        more: Iterable[Convention] = (),
    ) -> None:
        self._rules = ByName(rules or {})
        self._default = default
        self._more = tuple(more)
        for rule in (*(rules or {}).values(), default):
            self.registry.check(rule.convention)
        self._memories: dict[str, Memory] = {}

    @property
    def registry(self) -> Registry:
        """All conventions that may be used."""
        return conventions.registry(self._more)

    def group_rows(self, partition_id: str, rows: Mapping[str, object]) -> Listing:
        """See :func:`dataplane.groups.group_rows`."""
        return group_rows(partition_id, rows, **self._how(partition_id))

    def group_listed(
        self,
        partition_id: str,
        keys: Sequence[str],
        tags: Sequence[Tag],
        admit: Callable[[int, int], None] | None = None,
        memory: Memory | None = None,
    ) -> Grouped:
        """See :func:`dataplane.groups.group_listed`. *memory* takes the place of the partition's own."""
        how = self._how(partition_id)
        if memory is not None:
            how["memory"] = memory
        return group_listed(partition_id, keys, tags, admit=admit, **how)

    def memory(self, partition_id: str) -> Memory | None:
        """Return what the earlier listings of a partition showed, None if they are not remembered."""
        return self._memories.get(partition_id)

    def rules(self, partition_id: str) -> TagRules:
        """Return how the tags of a partition are read."""
        return self._rules.get(partition_id) or self._default

    def _how(self, partition_id: str) -> _How:
        rules = self.rules(partition_id)
        memory = self._memories.pop(partition_id, None) or Memory(flagged=not rules.committed_by_default)
        self._memories[partition_id] = memory  # the least recently listed one comes first
        if len(self._memories) > _MAX_REMEMBERED:
            self._memories.pop(next(iter(self._memories)), None)
        take_failed = role_of(partition_id) == "eval" if rules.take_failed is None else rules.take_failed
        return {
            "convention": rules.convention,
            "group_size": rules.group_size,
            "take_failed": take_failed,
            "memory": memory,
            "registry": self.registry,
        }
