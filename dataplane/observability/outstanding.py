"""What this process has put and not cleared: keys and bytes.

The truth about occupancy is in the data plane, where other processes put and clear too. A put or clear is only noted.
The notes are played back when somebody asks or when there are many. A batch whose keys are in no other batch stays
whole, so that its clear costs nothing per key; all others are divided among their keys.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import islice, repeat
from typing import Any, Final

__all__ = ["LIMIT", "Outstanding"]

LIMIT: Final = 100_000
"""How many keys are tracked. A key that only another process clears would otherwise stay for ever."""

_Note = tuple[str, tuple[Any, ...] | None, int | None]


class Outstanding:
    """Keys and bytes outstanding from this process's own calls. Past the limit the oldest are forgotten."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._at_once = max(1, limit // 10)
        self.reset()

    def reset(self) -> None:
        """Start from nothing; also what a forked child does, whose lock another thread may hold."""
        self._lock = threading.Lock()
        self._notes: list[_Note] = []  # partition, keys (None is all) and bytes (None is a clear), in order
        self._keys_noted = 0
        self._only_puts = True
        self._partitions: dict[str, _Partition] = {}
        self._bytes = 0
        self._peak = 0

    def put(self, partition: str, keys: tuple[Any, ...], n_bytes: int) -> None:
        """Note that *keys* were written with *n_bytes*. A key that is known gets its share on top."""
        self._lock.acquire()  # a with statement takes 0.1 us longer, a thirtieth of what a whole call may take
        try:
            if partition not in self._partitions:
                self._partitions[partition] = _Partition()
            self._notes.append((partition, keys, n_bytes))
            self._keys_noted += len(keys)
            if self._keys_noted > (self._limit if self._only_puts else self._at_once):
                self._make_room()
        finally:
            self._lock.release()

    def clear(self, partition: str, keys: Sequence[Any] | None) -> None:
        """Note that *keys* were cleared; None is all keys of the partition."""
        if partition not in self._partitions:  # nothing of it was put here, as in most processes that clear
            return
        self._lock.acquire()
        try:
            self._notes.append((partition, None if keys is None else tuple(keys), None))
            self._keys_noted += 1 if keys is None else len(keys)
            self._only_puts = False
            if self._keys_noted > self._at_once:
                self._play_back()
        finally:
            self._lock.release()

    def figures(self) -> dict[str, int]:
        """Return ``bytes_outstanding``, ``peak_bytes_outstanding`` and ``n_keys_outstanding``."""
        with self._lock:
            self._play_back()
            return {
                "bytes_outstanding": self._bytes,
                "peak_bytes_outstanding": self._peak,
                "n_keys_outstanding": self._n_keys(),
            }

    def _make_room(self) -> None:
        if not self._only_puts or self._n_keys():
            self._play_back()
            return
        # Nobody has cleared or asked for so long that the newest puts fill the limit: forget the oldest, many at once.
        self._bytes = sum(n_bytes or 0 for _, _, n_bytes in self._notes)
        self._peak = max(self._peak, self._bytes)
        self._bytes = oldest = 0
        while self._keys_noted > self._limit - self._at_once and oldest < len(self._notes) - 1:
            self._keys_noted -= len(self._notes[oldest][1] or ())
            oldest += 1
        del self._notes[:oldest]

    def _play_back(self) -> None:
        notes, self._notes = self._notes, []
        self._keys_noted, self._only_puts = 0, True
        for name, keys, n_bytes in notes:
            partition = self._partitions.get(name)
            if n_bytes is None or keys is None:
                if partition is not None:
                    self._bytes -= partition.clear(keys)
                continue
            if partition is None:
                partition = self._partitions[name] = _Partition()
            try:
                partition.put(keys, n_bytes)
            except TypeError:  # a key that cannot be hashed names nothing
                continue
            self._bytes += n_bytes
            self._peak = max(self._peak, self._bytes)
            if self._n_keys() > self._limit:
                self._forget()
        for name in [name for name, partition in self._partitions.items() if not len(partition)]:
            del self._partitions[name]

    def _forget(self) -> None:
        while self._n_keys() > self._limit:
            self._bytes -= max(self._partitions.values(), key=_Partition.__len__).forget(self._at_once)

    def _n_keys(self) -> int:
        return sum(map(len, self._partitions.values()))


class _Partition:
    """The keys of one partition: those in batches that are whole, and the bytes of each of the others."""

    __slots__ = ("_members", "_shares", "_whole")

    def __init__(self) -> None:
        self._whole: dict[Any, _Batch] = {}  # by their first key; no key is in two of them
        self._members: set[Any] = set()  # the keys of the whole batches
        self._shares: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._members) + len(self._shares)

    def put(self, keys: tuple[Any, ...], n_bytes: int) -> None:
        """Add *keys* and bytes.

        Raises:
            TypeError: A key cannot be hashed; nothing is added.
        """
        share, rest = divmod(n_bytes, len(keys))
        batch = self._whole.get(keys[0])
        if batch is not None and batch.keys == keys:
            batch.share += share
            batch.rest += rest
            return
        hash(keys)
        before = len(self._members)
        self._members.update(keys)
        if len(self._members) == before + len(keys) and self._shares.keys().isdisjoint(keys):
            self._whole[keys[0]] = _Batch(keys, share, rest)
            return
        self._divide()
        self._add(keys, share, rest)

    def clear(self, keys: tuple[Any, ...] | None) -> int:
        """Return the bytes that are gone with *keys*, None for all keys."""
        if keys is None:
            gone = sum(batch.size for batch in self._whole.values()) + sum(self._shares.values())
            self._whole, self._members, self._shares = {}, set(), {}
            return gone
        try:
            hash(keys)
        except TypeError:
            keys = tuple(filter(_hashable, keys))
        if not keys:
            return 0
        batch = self._whole.get(keys[0])
        if batch is not None and batch.keys == keys:
            del self._whole[keys[0]]
            self._members.difference_update(keys)
            return batch.size
        if not self._members.isdisjoint(keys):
            self._divide()
        return sum(map(self._shares.pop, keys, repeat(0)))

    def forget(self, count: int) -> int:
        """Forget the *count* oldest keys at once, since finding the oldest is slow in a dict. Return their bytes."""
        self._divide()
        return sum(map(self._shares.pop, list(islice(self._shares, count))))

    def _divide(self) -> None:
        """Give each key of the whole batches its share of the bytes."""
        for batch in self._whole.values():
            self._add(batch.keys, batch.share, batch.rest)
        self._whole, self._members = {}, set()

    def _add(self, keys: tuple[Any, ...], share: int, rest: int) -> None:
        shares = self._shares
        for key in keys:
            shares[key] = shares.get(key, 0) + share
        shares[keys[0]] += rest


class _Batch:
    """Keys that were put together: the bytes of each of them, and the rest, which the first has on top."""

    __slots__ = ("keys", "rest", "share")

    def __init__(self, keys: tuple[Any, ...], share: int, rest: int) -> None:
        self.keys = keys
        self.share = share
        self.rest = rest

    @property
    def size(self) -> int:
        return self.share * len(self.keys) + self.rest


def _hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True
