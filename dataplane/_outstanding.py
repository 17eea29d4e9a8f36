"""What this process has put and not cleared: keys and bytes.

The truth about occupancy is in the data plane, where other processes put and clear too. Noting a put is one
append; which keys are new is settled when somebody asks or clears.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final

__all__ = ["LIMIT", "Figures", "Outstanding"]

LIMIT: Final = 200_000
"""How many keys are tracked. What only other processes clear would otherwise stay for good."""

Figures = dict[str, int]


class _Generation:
    __slots__ = ("bytes", "pending", "shares", "size")

    def __init__(self) -> None:
        self.pending: list[tuple[str, Sequence[Any], int]] = []
        self.shares: dict[str, dict[Any, int]] = {}
        self.size = 0
        self.bytes = 0

    def settle(self, older: _Generation | None) -> None:
        """Give each key of the noted puts its share of the bytes; a key lives in one generation only."""
        pending, self.pending = self.pending, []
        for partition, keys, n_bytes in pending:
            try:
                carried = 0 if older is None else older.take(partition, keys)
                share, rest = divmod(n_bytes + carried, len(keys))
                fresh = dict.fromkeys(keys, share)
            except TypeError:  # a key that cannot be hashed
                self.bytes -= n_bytes
                continue
            self.bytes += carried
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

    def put(self, partition: str, keys: Sequence[Any], n_bytes: int) -> None:
        """Note that *keys* were written with *n_bytes*; a key that is there already gets its share on top."""
        if not keys or type(keys[0]) not in (str, int):
            return
        with self._lock:
            if self._young.size + len(keys) > self._limit:
                self._old, self._young = self._young, _Generation()
            young = self._young
            young.pending.append((partition, tuple(keys), n_bytes))
            young.size += len(keys)
            young.bytes += n_bytes
            self._peak = max(self._peak, young.bytes + self._old.bytes)

    def clear(self, partition: str, keys: Sequence[Any] | None) -> None:
        """Note that *keys* were cleared; None is all keys of the partition."""
        with self._lock:
            self._settle()
            for generation in (self._young, self._old):
                if keys is not None:
                    generation.take(partition, keys)
                else:
                    generation.bytes -= sum(generation.shares.pop(partition, {}).values())

    def figures(self) -> Figures:
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
