"""Limits on a reply's size and rows: the reader bounds what a controller may send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from dataplane.errors import DataPlaneReadError

__all__ = [
    "DEFAULT_MAX_REPLY_BYTES",
    "DEFAULT_MAX_ROWS",
    "MAX_NAMES_BYTES",
    "MAX_TAG_BYTES",
    "MAX_UNCHECKED_BYTES",
    "ReplyLimit",
    "ReplyLimitExceeded",
]

DEFAULT_MAX_REPLY_BYTES: Final = 256 * 2**20
DEFAULT_MAX_ROWS: Final = 1_000_000

# Decoded objects can take 60 times the memory of their bytes: an empty list is one byte, and 56 as an object. So the
# limits are lower where the protocol does not define a value's type.
MAX_NAMES_BYTES: Final = 4 * 2**20  # of a list of partitions: enough for 100,000 long names
MAX_UNCHECKED_BYTES: Final = 16 * 2**20  # of a listing whose tags are decoded with unknown types
MAX_TAG_BYTES: Final = 64 * 2**10  # of one tag

ReplyLimit = Literal["reply_bytes", "rows"]


class ReplyLimitExceeded(DataPlaneReadError):
    """A reply was refused because it is too large.

    Attributes:
        limit: The limit that it exceeds: ``reply_bytes`` or ``rows``.
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
