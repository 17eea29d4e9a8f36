"""What this process has put and not cleared: keys and bytes.

The truth about occupancy is in the data plane, where other processes put and clear too. Noting a put is one
append that takes no lock; which of its keys are new is settled when somebody clears or asks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final

__all__ = ["LIMIT", "Outstanding"]

LIMIT: Final = 200_000
"""How many keys are tracked. What only other processes clear would otherwise stay for good."""

# A key of another type could hold on to data.
_KEY_TYPES = (str, int)


class _Generation:
    __slots__ = ("bytes", "note", "pending", "shares", "size")

    def __init__(self) -> None:
        # Partition, keys and bytes of one put after the other, flat: a tuple for each would keep the garbage
        # collector busy.
        self.pending: deque[Any] = deque()
        self.note = self.pending.extend
        self.shares: dict[str, dict[Any, int]] = {}
        self.size = 0  # how many keys were noted, nearly: threads may lose an addition
        self.bytes = 0  # of what is settled

    def settle(self, older: _Generation | None) -> None:
        """Give each key of the noted puts its share of the bytes; a key lives in one generation only."""
        next_of = self.pending.popleft
        while self.pending:
            partition, keys, n_bytes = next_of(), next_of(), next_of()
            try:
                carried = 0 if older is None else older.take(partition, keys)
                share, rest = divmod(n_bytes + carried, len(keys))
                fresh = dict.fromkeys(keys, share)
            except TypeError:  # a key that cannot be hashed
                continue
            self.bytes += n_bytes + carried
            fresh[keys[0]] += rest + share * (len(keys) - len(fresh))
            shares = self.shares.setdefault(partition, {})
            if not shares.keys().isdisjoint(fresh):
                for key in shares.keys() & fresh.keys():
                    fresh[key] += shares[key]
            shares.update(fresh)

    def take(self, partition: str, keys: Sequence[Any]) -> int:
        """Forget *keys* and return the bytes they had."""
        shares = self.shares.get(partition)
        if not shares:
            return 0
        taken = sum(map(shares.pop, keys, repeat(0)))
        self.bytes -= taken
        return taken


class Outstanding:
    """Keys and bytes outstanding from this process's own calls. Past the limit the oldest half is forgotten."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = max(1, limit // 2)
        self.reset()

    def reset(self) -> None:
        """Start from nothing; also what a forked child does, whose lock another thread may hold."""
        self._lock = threading.Lock()
        self._young = _Generation()
        self._old = _Generation()
        self._peak = 0

    def put(self, partition: str, keys: tuple[Any, ...], n_bytes: int) -> None:
        """Note that *keys* were written with *n_bytes*; a key that is there already gets its share on top."""
        if type(keys[0]) in _KEY_TYPES:
            young = self._young
            young.note((partition, keys, n_bytes))
            young.size += len(keys)
            if young.size >= self._limit:
                self._rotate()

    def clear(self, partition: str, keys: Sequence[Any] | None) -> None:
        """Note that *keys* were cleared; None is all keys of the partition."""
        with self._lock:
            self._settle()
            for generation in (self._young, self._old):
                if keys is None:
                    generation.bytes -= sum(generation.shares.pop(partition, {}).values())
                    continue
                try:
                    generation.take(partition, keys)
                except TypeError:  # a key that cannot be hashed was never noted
                    continue

    def figures(self) -> dict[str, int]:
        """Return ``bytes_outstanding``, ``peak_bytes_outstanding`` and ``n_keys_outstanding``."""
        with self._lock:
            self._settle()
            return {
                "bytes_outstanding": self._young.bytes + self._old.bytes,
                "peak_bytes_outstanding": self._peak,
                "n_keys_outstanding": sum(
                    len(shares) for generation in (self._young, self._old) for shares in generation.shares.values()
                ),
            }

    def _settle(self) -> None:
        self._old.settle(None)
        self._young.settle(self._old)
        self._young.size = sum(map(len, self._young.shares.values()))
        # Since the last clear, which settles too, there were only puts: this is the highest since then.
        self._peak = max(self._peak, self._young.bytes + self._old.bytes)

    def _rotate(self) -> None:
        with self._lock:
            if self._young.size >= self._limit:
                # What was never asked for is only added up.
                noted = sum(list(self._young.pending)[2::3]) + sum(list(self._old.pending)[2::3])
                self._peak = max(self._peak, self._young.bytes + self._old.bytes + noted)
                self._old, self._young = self._young, _Generation()
