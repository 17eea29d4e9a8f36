"""The registered conventions, and the schema of the tags that they read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from dataplane.conventions.base import COMMON_FIELDS, Convention
from dataplane.tags import SCALAR, Tag, TagSchema

__all__ = ["AUTO", "Registry"]

AUTO: Final = "auto"
"""The name for the convention that is detected from a partition's tags."""


class Registry:
    """Conventions by rank, the order in which ``auto`` asks them. The last one recognises all partitions.

    Attributes:
        conventions: All of them, in that order.
        schema: The tags that they read. Replaced when a convention is added or removed.
    """

    def __init__(self, conventions: Iterable[Convention]) -> None:
        self._replace(conventions)

    def names(self) -> tuple[str, ...]:
        """Return ``auto`` and the names of all conventions, sorted."""
        return (AUTO, *sorted(convention.name for convention in self.conventions))

    def check(self, name: str) -> None:
        """Raise ValueError when *name* is none of :meth:`names`."""
        if name not in self.names():
            raise ValueError(f"unknown convention {name!r}, choose one of {', '.join(self.names())}")

    def get(self, name: str) -> Convention | None:
        """Return the convention called *name*, None for ``auto``.

        Raises:
            ValueError: There is no such convention.
        """
        self.check(name)
        return next((convention for convention in self.conventions if convention.name == name), None)

    def detect(self, tags: Collection[Tag], known: Convention | None = None) -> Convention:
        """Return the first convention that recognises the *tags* of a partition.

        Args:
            tags: The tags.
            known: What an earlier listing of the partition was recognised as. It stays, unless a convention that is
                asked before it recognises the tags.
        """
        return next(convention for convention in self.conventions if convention is known or convention.recognises(tags))

    def register(self, convention: Convention) -> None:
        """Add a convention, which ``auto`` asks before the others of its rank. Call it before the first listing.

        Raises:
            ValueError: The name is in use.
        """
        if convention.name in self.names():
            raise ValueError(f"there is a convention {convention.name!r} already")
        self._replace((convention, *self.conventions))

    def unregister(self, name: str) -> None:
        """Remove the convention called *name*, if there is one."""
        self._replace(tuple(convention for convention in self.conventions if convention.name != name))

    def _replace(self, conventions: Iterable[Convention]) -> None:
        ordered = tuple(sorted(conventions, key=lambda convention: convention.rank))
        self.schema = _schema(ordered)
        self.conventions = ordered


def _schema(conventions: Iterable[Convention]) -> TagSchema:
    fields: dict[str, Any] = dict(COMMON_FIELDS)
    for convention in conventions:
        for name, kind in convention.fields.items():
            if fields.setdefault(name, kind) != kind:
                fields[name] = SCALAR  # Conventions disagree: any other type would reject the tags of one of them.
    return TagSchema(fields)
