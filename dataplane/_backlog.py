"""What calls note for later: appended without a lock, read in order under the reader's."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

__all__ = ["KEY_TYPES", "Backlog"]

KEY_TYPES: Final = (str, int)
"""The types of keys that are kept. One of another type could hold on to data; the first key speaks for all."""

# How many notes are counted at once. Until then the backlog is longer than it says.
_COUNT_EVERY: Final = 128


class Backlog:
    """Batches: a partition, its keys, and what a call told of them.

    :meth:`note` may run in any thread; the rest needs a lock.

    Batches lie flat in one deque, field after field: a tuple for each would keep the garbage collector busy. A
    deque's ``extend`` of a tuple is atomic, an addition to an integer is not, so sizes queue up to be counted too.

    Attributes:
        keys: How many keys are in it, as far as counted.
    """

    def __init__(self, fields: int) -> None:
        self._fields = range(fields)
        self._batches: deque[Any] = deque()
        self._sizes: deque[int] = deque()
        self._note_batch = self._batches.extend
        self._note_size = self._sizes.extend
        self.keys = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def note(self, batch: tuple[Any, ...], n_keys: int, n_bytes: int) -> bool:
        """Append *batch* and return whether it is time to :meth:`count`."""
        self._note_batch(batch)
        self._note_size((n_keys, n_bytes))
        return len(self._sizes) >= 2 * _COUNT_EVERY

    def count(self) -> int:
        """Add up what was noted since the last time and return its bytes."""
        n_bytes = 0
        sizes = self._sizes
        while sizes:
            self.keys += sizes.popleft()
            n_bytes += sizes.popleft()
        return n_bytes

    def pop(self) -> list[Any]:
        """Take out the oldest batch."""
        batch = [self._batches.popleft() for _ in self._fields]
        self.keys -= len(batch[1])
        return batch
