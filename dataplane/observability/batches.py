"""A dict from keys to values that knows keys which came together, so that most work is done once per batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

__all__ = ["BatchIndex"]

V = TypeVar("V")


class BatchIndex(Generic[V]):
    """Maps keys to values. Not thread-safe.

    A batch with one value whose keys are in no other batch stays whole: then storing and finding exactly these keys
    compares them with what was stored, and hashes none. Any other use divides the batches.
    """

    __slots__ = ("_by_key", "_members", "_whole")

    def __init__(self) -> None:
        self._whole: dict[Hashable, tuple[tuple[Any, ...], V]] = {}  # by their first key
        self._members: set[Any] = set()  # the keys of the whole batches
        self._by_key: dict[Any, V] = {}  # all others

    def __len__(self) -> int:
        return len(self._members) + len(self._by_key)

    def whole(self, keys: tuple[Any, ...]) -> V | None:
        """Return the value of the batch that has exactly these *keys* in this order, None when there is none."""
        batch = self._whole.get(keys[0])
        return batch[1] if batch is not None and batch[0] == keys else None

    def each(self, keys: Iterable[Any]) -> list[V | None]:
        """Return the value of each key, None where there is none."""
        if self._whole:
            keys = tuple(keys)
            if not self._members.isdisjoint(keys):
                self._divide()
        return list(map(self._by_key.get, keys))

    def has_any(self, keys: Sequence[Any]) -> bool:
        """Return whether any of *keys* has a value."""
        return not (self._members.isdisjoint(keys) and self._by_key.keys().isdisjoint(keys))

    def store(self, keys: tuple[Any, ...], value: V) -> None:
        """Give all of *keys* one *value*."""
        batch = self._whole.get(keys[0])
        if batch is None or batch[0] != keys:
            before = len(self._members)
            self._members.update(keys)
            if len(self._members) != before + len(keys) or not self._by_key.keys().isdisjoint(keys):
                self._divide()
                self._by_key.update(dict.fromkeys(keys, value))
                return
        self._whole[keys[0]] = (keys, value)

    def store_each(self, keys: Iterable[Any], values: Iterable[V]) -> None:
        """Give each of *keys* its own of *values*."""
        self._divide()
        self._by_key.update(zip(keys, values, strict=True))

    def _divide(self) -> None:
        for keys, value in self._whole.values():
            self._by_key.update(dict.fromkeys(keys, value))
        self._whole, self._members = {}, set()
