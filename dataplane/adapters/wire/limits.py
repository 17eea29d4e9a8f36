"""Limits on a reply's size and rows: the reader bounds what a controller may send."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, Literal

from dataplane.errors import DataPlaneReadError

__all__ = [
    "Allowance",
    "DEFAULT_MAX_REPLY_BYTES",
    "DEFAULT_MAX_ROWS",
    "MAX_ID",
    "MAX_NAMES_BYTES",
    "MAX_STORAGE_BYTES",
    "MAX_TAG_BYTES",
    "MAX_UNCHECKED_BYTES",
    "ReplyLimit",
    "ReplyLimitExceeded",
]

DEFAULT_MAX_REPLY_BYTES: Final = 32 * 2**20
DEFAULT_MAX_ROWS: Final = 1_000_000

# Decoded objects can take 60 times the memory of their bytes: an empty list is one byte, and 56 as an object. So the
# limits are lower where the protocol does not define a value's type.
MAX_NAMES_BYTES: Final = 2**20  # of a list of partitions: enough for 20,000 long names
MAX_UNCHECKED_BYTES: Final = 256 * 2**10  # of a reply that is decoded with unknown types
MAX_STORAGE_BYTES: Final = 16 * 2**10  # of the metrics of a storage unit: a hundred operations
MAX_TAG_BYTES: Final = 64 * 2**10  # of one tag

MAX_ID: Final = 256  # characters of the id that a peer answers under

ReplyLimit = Literal["reply_bytes", "rows", "memory"]

# What a listing takes in memory, measured. Strings are kept of this round and of the last one. Each row is a key and an
# entry. A part is a run of neighbouring rows of one group with equal tags. While a reply is decoded, a row takes more,
# since each may have a tag of its own.
_PER_BYTE: Final = 2
_PER_ROW: Final = 200
_PER_ROW_WHILE_DECODED: Final = 520
_PER_PART: Final = 150
_PER_GROUP: Final = 1050
_PER_PARTITION: Final = 4000


class Allowance:
    """What the listings of one round may take in memory, by estimate. A round begins with the list of partitions.

    Args:
        max_bytes: For a whole round, None for any amount.
    """

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes or 0

    def begin(self, partitions: int) -> None:
        """Begin a round over that many partitions; raises :class:`ReplyLimitExceeded` if they are too many."""
        self._left = self._max_bytes or 0
        cost = _PER_PARTITION * partitions
        self._check(cost, f"a list of {partitions} partitions")
        self._left -= cost

    def rows(self, reply_bytes: int) -> int:
        """Return how many rows a reply of that size may have; raises :class:`ReplyLimitExceeded` if it is too long."""
        if self._max_bytes is None:
            return sys.maxsize
        self._check(_PER_BYTE * reply_bytes, f"a listing of {reply_bytes} bytes")
        return (self._left - _PER_BYTE * reply_bytes) // _PER_ROW_WHILE_DECODED

    def check_rows(self, rows: int, reply_bytes: int = 0) -> None:
        """Raise :class:`ReplyLimitExceeded` unless there is room to decode *rows* or more rows."""
        cost = _PER_BYTE * reply_bytes + _PER_ROW_WHILE_DECODED * rows
        self._check(cost, f"a listing of {rows} or more rows")

    def take(self, reply_bytes: int, rows: int, parts: int, groups: int) -> None:
        """Count a listing that was decoded; raises :class:`ReplyLimitExceeded` if there is no room for its groups."""
        self.check(reply_bytes, rows, parts, groups)
        self._left -= _cost(reply_bytes, rows, parts, groups)

    def check(self, reply_bytes: int, rows: int, parts: int, groups: int) -> None:
        """Raise :class:`ReplyLimitExceeded` unless there is room for a listing. See :meth:`take`."""
        self._check(_cost(reply_bytes, rows, parts, groups), f"a listing of {rows} rows in {groups} groups")

    def _check(self, cost: int, what: str) -> None:
        if self._max_bytes is not None and cost > self._left:
            raise ReplyLimitExceeded(
                f"{what} would take about {cost} bytes of memory, {max(self._left, 0)} of {self._max_bytes} are left",
                limit="memory",
            )


def _cost(reply_bytes: int, rows: int, parts: int, groups: int) -> int:
    return _PER_BYTE * reply_bytes + _PER_ROW * rows + _PER_PART * parts + _PER_GROUP * groups


class ReplyLimitExceeded(DataPlaneReadError):
    """A reply was refused because it is too large.

    Attributes:
        limit: The limit that it exceeds: ``reply_bytes``, ``rows`` or ``memory``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        limit: ReplyLimit,
        operation: str | None = None,
        partition_id: str | None = None,
    ) -> None:
        super().__init__(message, operation=operation, partition_id=partition_id)
        self.limit: ReplyLimit = limit

    def __reduce__(self) -> tuple[Callable[..., ReplyLimitExceeded], tuple[Any, ...]]:
        return _rebuild, (str(self), self.limit, self.operation, self.partition_id)


def _rebuild(message: str, limit: ReplyLimit, operation: str | None, partition_id: str | None) -> ReplyLimitExceeded:
    return ReplyLimitExceeded(message, limit=limit, operation=operation, partition_id=partition_id)
