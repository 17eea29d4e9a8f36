"""What calls note for later: appended without a lock, read in order under the reader's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["KEY_TYPES", "Backlog"]

KEY_TYPES: Final = (str, int)
"""The types of keys that are kept. One of another type could hold on to data; the first key speaks for all."""

# How many batches become a block, and so by how much the backlog is longer than it says.
_BLOCK: Final = 64


class Backlog:
    """Batches: a partition, a tuple of its keys, and what a call told of them.

    :meth:`note` may run in any thread; the rest needs a lock.

    Batches lie flat in a list, field after field: extending it by a tuple is atomic, and a tuple kept for each would
    keep the garbage collector busy. From time to time they are cut off into a block, whose sizes are summed at once.

    Attributes:
        keys: How many keys are in the blocks.
    """

    def __init__(self, fields: int) -> None:
        self._fields = fields
        self._full = fields * _BLOCK
        self._noted: list[Any] = []
        self._note = self._noted.extend
        self._blocks: deque[tuple[int, list[Any]]] = deque()  # each with its number of keys
        self.keys = 0

    def __bool__(self) -> bool:
        return bool(self._noted or self._blocks)

    def note(self, batch: tuple[Any, ...]) -> bool:
        """Append *batch* and return whether it is time to :meth:`cut`."""
        self._note(batch)
        return len(self._noted) >= self._full

    def cut(self) -> list[Any]:
        """Make a block of what was noted since the last time and return it."""
        block = self._noted[:]
        del self._noted[: len(block)]  # other threads may have appended to it since
        if block:
            n_keys = sum(map(len, block[1 :: self._fields]))
            self._blocks.append((n_keys, block))
            self.keys += n_keys
        return block

    def trim(self, limit: int) -> Iterator[list[Any]]:
        """Take out and yield the oldest blocks for as long as the others have *limit* keys."""
        while self._blocks and self.keys - self._blocks[0][0] >= limit:
            yield self._pop()

    def drain(self) -> Iterator[tuple[Any, ...]]:
        """Take out all blocks and yield their batches, the oldest first."""
        while self._blocks:
            fields = iter(self._pop())
            yield from zip(*[fields] * self._fields, strict=True)

    def _pop(self) -> list[Any]:
        n_keys, block = self._blocks.popleft()
        self.keys -= n_keys
        return block
