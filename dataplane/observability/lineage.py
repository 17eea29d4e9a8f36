"""Where keys came from: the producer's span and the weight version, remembered for the newest keys.

A put, a claim, a listing and the metadata of a read say both; other calls only name keys. What they say is noted, and
the index by key is built from the notes when there are many, when a span needs links or when a reader collects. So a
process that only produces never builds one, and a read whose span is not recorded does no work per key.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

from opentelemetry.trace import SpanContext

from dataplane.observability.batches import BatchIndex
from dataplane.observability.origins import BLANK, Origin, origins_of
from dataplane.observability.tally import Cell
from dataplane.observability.trace_context import contexts_of, tells_version, versions_of

__all__ = ["KEY_TYPES", "LIMIT", "Lags", "Lineage"]

KEY_TYPES: Final = (str, int)
"""The types of keys that are remembered: a key of another type could hold data. The first key of a call decides."""

LIMIT: Final = 10_000
"""How many keys are remembered."""

Lags = dict[Cell, dict[int, int]]
"""By the cell of the call: how often each lag was measured."""


# One origin for all keys, or one per key.
_Origins = Sequence[Origin]
# By partition, the origin of each key.
_Index = dict[str, BatchIndex[Origin]]


# What a put wrote: partition, keys, tags, the client's own copies of them, and the span. A plain tuple takes less time.
_Written = tuple[str, tuple[Any, ...], Any, Sequence[Any], SpanContext | None]


class _Told(NamedTuple):
    partition: str
    keys: tuple[Any, ...]
    origins: _Origins


class _Consumed(NamedTuple):
    partition: str
    keys: tuple[Any, ...]
    origins: _Origins | None
    cell: Cell
    reference: int | None
    departs: bool


class Lineage:
    """A bounded memory of keys: notes, and two generations of an index by key, the older dropped as a whole."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = max(1, limit // 3)
        self.reset()

    def reset(self) -> None:
        """Forget everything; also what a forked child does, whose lock another thread may hold."""
        self._lock = threading.Lock()
        self._notes: deque[_Written | _Told | _Consumed] = deque()
        self._keys_noted = 0
        self._only_writes = True
        self._young: _Index = {}
        self._old: _Index = {}
        self._newest: int | None = None
        self._lags: Lags = {}

    def wrote(
        self,
        partition: str,
        keys: tuple[Any, ...],
        tags: object,
        context: SpanContext | None,
        copies: Sequence[Any] = (),
    ) -> None:
        """Note that a put wrote *keys* (of :data:`KEY_TYPES`) with *tags* in the span *context*.

        The tags are kept and read when something is first looked up. A change of them in place before that changes what
        is remembered, so the put's own *copies* are better, where there are any.
        """
        self._lock.acquire()  # a with statement takes 0.1 us longer, a thirtieth of what a whole call may take
        try:
            self._notes.append((partition, keys, tags, copies, context))
            self._keys_noted += len(keys)
            if self._keys_noted > self._limit:
                self._make_room()
        finally:
            self._lock.release()

    def listed(
        self,
        partition: str,
        keys: Sequence[Any],
        versions: Sequence[int | None],
        contexts: Sequence[SpanContext | None],
        reference: int | None,
    ) -> None:
        """Note that a listing shows *keys* with these *versions* and *contexts*: one for all of them, or one per key.

        Args:
            partition: Their partition.
            keys: The keys.
            versions: Their weight versions.
            contexts: Their producers' spans.
            reference: The trainer's version now.
        """
        if keys and type(keys[0]) in KEY_TYPES:
            self._tell(partition, keys, origins_of(versions, contexts, reference))

    def list_groups(self, partition: str, groups: Sequence[Any], reference: int | None) -> None:
        """Note what a listing says of the newest keys: the groups at its end."""
        newest: list[Any] = []
        room = 2 * self._limit
        for group in reversed(groups):
            newest.append(group)
            room -= len(group.keys)
            if room <= 0:
                break
        keys: list[str] = []
        versions: list[int | None] = []
        contexts: list[SpanContext | None] = []
        for group in reversed(newest):  # the newest last, since what is noted first is forgotten first
            size = len(group.keys)
            keys.extend(group.keys)
            versions.extend([group.weight_version] * size)
            contexts.extend(contexts_of([group.tags]) * size)
        self.listed(partition, keys, versions, contexts, reference)

    def list_rows(self, partition: str, rows: Mapping[Any, Any], reference: int | None) -> None:
        """Note what TransferQueue's own listing, key to tag, says of the newest keys: those at its end."""
        newest = 2 * self._limit
        keys, tags = list(rows)[-newest:], list(rows.values())[-newest:]
        if keys:
            self.listed(partition, keys, versions_of(tags), contexts_of(tags), reference)

    def consumed(
        self,
        partition: str,
        keys: Sequence[Any],
        tags: Sequence[Any],
        cell: Cell,
        reference: int | None,
        *,
        departs: bool,
    ) -> None:
        """Note that a call claimed, read or cleared *keys*; their lags and misses are counted later.

        Args:
            partition: Their partition.
            keys: The keys.
            tags: What their rows say of themselves, one tag per key; empty when the call did not show it.
            cell: Where the call is counted.
            reference: The trainer's version now; None for the newest version that was seen.
            departs: Whether the keys are gone now. Their lag counts from the version in force when they were last seen,
                since the trainer may have made a step of them before it clears them.
        """
        if not keys:
            return
        if type(keys[0]) not in KEY_TYPES:
            cell.missed(len(keys))
            return
        origins = origins_of(versions_of(tags), contexts_of(tags), None) if len(tags) == len(keys) else None
        self._note(_Consumed(partition, tuple(keys), origins, cell, reference, departs), len(keys))

    def find(self, partition: str, keys: Sequence[Any]) -> list[Origin]:
        """Return the distinct origins of *keys* that are known."""
        with self._lock:
            self._settle()
            try:
                found, _ = self._look_up(partition, tuple(keys), mark=False)
            except TypeError:  # a key that cannot be hashed
                return []
        return list(found)

    def unknown(self, partition: str, keys: Sequence[Any]) -> list[bool]:
        """Return for each key whether this process has never written, read or seen it."""
        with self._lock:
            self._settle()
            return [origin is None for origin in self._each(partition, keys)]

    def newest_version(self) -> int | None:
        """Return the newest version seen; puts that were forgotten before any look-up do not count."""
        with self._lock:
            self._settle()
            return self._newest

    def take_lags(self) -> Lags:
        """Count the misses of all noted calls, and return the lags that were measured since the last time."""
        with self._lock:
            self._settle()
            lags, self._lags = self._lags, {}
        return lags

    def _tell(self, partition: str, keys: Sequence[Any], origins: _Origins) -> None:
        for start in range(0, len(keys), self._limit):
            part = slice(start, start + self._limit)
            told = origins if len(origins) == 1 else origins[part]
            self._note(_Told(partition, tuple(keys[part]), told), len(keys[part]))

    def _note(self, note: _Told | _Consumed, size: int) -> None:
        self._lock.acquire()
        try:
            self._notes.append(note)
            self._keys_noted += size
            self._only_writes = False
            if self._keys_noted > self._limit:
                self._settle()
        finally:
            self._lock.release()

    def _make_room(self) -> None:
        if not self._only_writes:
            self._settle()
            return
        # Nothing was looked up for long: forget the oldest, many at once.
        while self._keys_noted > self._limit * 3 // 4 and len(self._notes) > 1:
            self._keys_noted -= len(self._notes.popleft()[1])

    def _settle(self) -> None:
        """Bring the index up to date, in the order of the calls."""
        notes, self._notes = self._notes, deque()
        self._keys_noted, self._only_writes = 0, True
        for note in notes:
            try:
                if isinstance(note, _Consumed):
                    self._consume(note)
                elif isinstance(note, _Told):
                    self._learn(note.partition, note.keys, note.origins)
                else:
                    self._read_tags(*note)
            except TypeError:  # a key that cannot be hashed names nothing
                if isinstance(note, _Consumed):
                    note.cell.missed(len(note.keys))

    def _read_tags(
        self, partition: str, keys: tuple[Any, ...], tags: Any, copies: Sequence[Any], context: SpanContext | None
    ) -> None:
        versions: Sequence[int | None] = (None,)
        # Rows of which the put tells no version may have one, but then it is not their producer's put.
        if type(tags) is list and tells_version(tags):
            versions = versions_of(copies or tags)
        self._learn(partition, keys, origins_of(versions, (context,), None))

    def _consume(self, note: _Consumed) -> None:
        reference = note.reference
        told = note.origins
        untold = note.keys
        if told is not None:
            untold = ()
            if len(told) > 1:
                untold = tuple(key for key, origin in zip(note.keys, told, strict=True) if origin.blank)
            elif told[0].blank:
                untold = note.keys
        found, misses = self._look_up(note.partition, untold) if untold else (set(), 0)
        if told is not None:
            found |= self._learn(note.partition, note.keys, told)
        if reference is None:
            reference = self._newest
        if misses:
            note.cell.missed(misses)
        if reference is None:
            return
        lags: dict[int, int] = {}
        for origin in found:
            if origin.version is not None:
                base = origin.seen if note.departs and origin.seen is not None else reference
                lags[origin.version] = max(0, base - origin.version)
            if not note.departs:
                origin.seen = reference
        counts = self._lags.setdefault(note.cell, {}) if lags else {}
        for lag in lags.values():
            counts[lag] = counts.get(lag, 0) + 1

    def _look_up(self, partition: str, keys: tuple[Any, ...], *, mark: bool = True) -> tuple[set[Origin], int]:
        """Return the distinct origins of *keys* and how many of the keys are unknown; *mark* those as seen."""
        young = self._young.get(partition)
        origin = None if young is None else young.whole(keys)
        if origin is not None:
            return (set(), len(keys)) if origin is BLANK else ({origin}, 0)
        origins = self._each(partition, keys)
        found = set(origins)
        if None not in found and BLANK not in found:
            return found, 0  # type: ignore[return-value]
        misses = sum(origin is None or origin is BLANK for origin in origins)
        if mark and None in found:
            unseen = tuple(key for key, origin in zip(keys, origins, strict=True) if origin is None)
            self._store(partition, unseen, [BLANK])
        return {origin for origin in found if origin is not None and origin is not BLANK}, misses

    def _learn(self, partition: str, keys: tuple[Any, ...], origins: _Origins) -> set[Origin]:
        """Note the *origins* of *keys* in the index, and return what is known of them now."""
        if len(keys) > self._limit:
            for start in range(0, len(keys), self._limit):
                part = slice(start, start + self._limit)
                self._learn(partition, keys[part], origins if len(origins) == 1 else origins[part])
            return {origin for origin in origins if not origin.blank}
        self._newest = _newest(self._newest, *(origin.version for origin in origins))
        one = origins[0] if len(origins) == 1 else None
        young = self._young.get(partition)
        known = None if one is None or young is None else young.whole(keys)
        if one is None or (known is None and self._has_any(partition, keys)):
            return self._merge(partition, keys, origins)
        if known is not None:
            one = one.over(known)
        if one.blank:
            one = BLANK
        if one is not known:
            self._store(partition, keys, [one])
        return set() if one is BLANK else {one}

    def _merge(self, partition: str, keys: tuple[Any, ...], origins: _Origins) -> set[Origin]:
        merged: dict[tuple[int, int], Origin] = {}
        fresh = []
        every = origins if len(origins) > 1 else repeat(origins[0], len(keys))
        for known, now in zip(self._each(partition, keys), every, strict=True):
            pair = id(known), id(now)
            if pair not in merged:
                origin = now if known is None else now.over(known)
                merged[pair] = BLANK if origin.blank else origin
            fresh.append(merged[pair])
        self._store(partition, keys, fresh)
        return set(merged.values()) - {BLANK}

    def _each(self, partition: str, keys: Sequence[Any]) -> list[Origin | None]:
        """Return the origin of each key, None where it was never seen."""
        young, old = self._young.get(partition), self._old.get(partition)
        origins: list[Origin | None] = [None] * len(keys) if young is None else young.each(keys)
        if old is not None and None in origins:
            origins = [now or before for now, before in zip(origins, old.each(keys), strict=True)]
        return origins

    def _has_any(self, partition: str, keys: Sequence[Any]) -> bool:
        generations = (self._young.get(partition), self._old.get(partition))
        return any(index is not None and index.has_any(keys) for index in generations)

    def _store(self, partition: str, keys: tuple[Any, ...], origins: _Origins) -> None:
        index = self._young.get(partition)
        if index is None:
            index = self._young[partition] = BatchIndex()
        if len(origins) == 1:
            index.store(keys, origins[0])
        else:
            index.store_each(keys, origins)
        if sum(map(len, self._young.values())) >= self._limit:
            self._old, self._young = self._young, {}


def _newest(*versions: int | None) -> int | None:
    return max((version for version in versions if version is not None), default=None)
