"""What this process has put and not cleared: keys and bytes.

The truth about occupancy is in the data plane, where other processes put and clear too. Noting a put takes no lock;
which of its keys are new is settled when somebody clears or asks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final

from dataplane.observability.backlog import Backlog

__all__ = ["LIMIT", "Outstanding"]

LIMIT: Final = 100_000
"""How many keys are tracked. What only other processes clear would otherwise stay for good."""

# By partition, the bytes of each key.
_Shares = dict[str, dict[Any, int]]


class Outstanding:
    """Keys and bytes outstanding from this process's own calls. Past the limit the oldest are forgotten."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.reset()

    def reset(self) -> None:
        """Start from nothing; also what a forked child does, whose lock another thread may hold."""
        self._lock = threading.Lock()
        self._puts = Backlog(fields=3)
        self._young: _Shares = {}
        self._old: _Shares = {}
        self._bytes = 0
        self._peak = 0

    def put(self, partition: str, keys: tuple[Any, ...], n_bytes: int) -> None:
        """Note that *keys* (of :data:`KEY_TYPES`) were written with *n_bytes*; a known key gets its share on top."""
        if self._puts.note((partition, keys, n_bytes)):
            with self._lock:
                self._count()
                for block in self._puts.trim(self._limit):  # nobody ever asked: the oldest go as they came
                    self._bytes -= sum(block[2::3])

    def clear(self, partition: str, keys: Sequence[Any] | None) -> None:
        """Note that *keys* were cleared; None is all keys of the partition."""
        with self._lock:
            self._settle()
            for shares in (self._young, self._old):
                if keys is None:
                    self._bytes -= sum(shares.pop(partition, {}).values())
                else:
                    self._bytes -= _take(shares, partition, keys)

    def figures(self) -> dict[str, int]:
        """Return ``bytes_outstanding``, ``peak_bytes_outstanding`` and ``n_keys_outstanding``."""
        with self._lock:
            self._settle()
            return {
                "bytes_outstanding": self._bytes,
                "peak_bytes_outstanding": self._peak,
                "n_keys_outstanding": _size(self._young) + _size(self._old),
            }

    def _count(self) -> None:
        # A clear settles, so since the last time there were only puts: their sum is the highest it was.
        self._bytes += sum(self._puts.cut()[2::3])
        self._peak = max(self._peak, self._bytes)

    def _settle(self) -> None:
        """Give each key of the noted puts its share of the bytes."""
        self._count()
        for partition, keys, n_bytes in self._puts.drain():
            try:
                # A key is young or old, never both.
                share, rest = divmod(n_bytes + _take(self._old, partition, keys), len(keys))
                fresh = dict.fromkeys(keys, share)
            except TypeError:  # a key that cannot be hashed names nothing, and was not among the old
                self._bytes -= n_bytes
                continue
            fresh[keys[0]] += rest + share * (len(keys) - len(fresh))
            shares = self._young.setdefault(partition, {})
            if not shares.keys().isdisjoint(fresh):
                for key in shares.keys() & fresh.keys():
                    fresh[key] += shares[key]
            shares.update(fresh)
            if _size(self._young) >= self._limit // 2:
                self._bytes -= sum(sum(known.values()) for known in self._old.values())
                self._old, self._young = self._young, {}


def _take(shares: _Shares, partition: str, keys: Sequence[Any]) -> int:
    """Forget *keys* and return the bytes they had."""
    known = shares.get(partition)
    if not known:
        return 0
    try:
        return sum(map(known.pop, keys, repeat(0)))
    except TypeError:  # a key that cannot be hashed was never noted
        return 0


def _size(shares: _Shares) -> int:
    return sum(map(len, shares.values()))
