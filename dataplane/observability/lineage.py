"""Where keys came from: the producer's span and the weight version, remembered for the newest keys.

A put, a claim or a listing says both; a later call only names keys. Remembering is one append per batch. The index by
key is built when something is first looked up, so that a process which only produces never builds one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.trace import SpanContext

from dataplane.observability.trace_context import contexts_of, versions_of

__all__ = ["KEY_TYPES", "LIMIT", "MAX_LINKS", "Lineage", "Origin", "linkable"]

KEY_TYPES: Final = (str, int)
"""The types of keys that are remembered: a key of another type could hold data. The first key of a call decides."""

LIMIT: Final = 10_000
"""How many keys are remembered."""

MAX_LINKS: Final = 32
"""How many distinct producers one span links to."""


class Origin:
    """Where some keys came from; one object per batch and version, compared by identity."""

    __slots__ = ("context", "version")

    def __init__(self, version: int | None, context: SpanContext | None) -> None:
        self.version = version
        self.context = context

    @property
    def blank(self) -> bool:
        """Whether neither is known: its keys count as unknown."""
        return self.version is None and self.context is None

    def over(self, before: Origin) -> Origin:
        """Return this origin, with what it does not know taken from *before*."""
        version = before.version if self.version is None else self.version
        return Origin(version, self.context or before.context)


class _Origins(list[Origin]):
    """The origins of a batch: one for all of its keys or one per key."""


# By partition, the origin of each key.
_Index = dict[str, dict[Any, Origin]]


def _newest(*versions: int | None) -> int | None:
    return max((version for version in versions if version is not None), default=None)


def _index(
    index: dict[Any, Origin], older: Mapping[Any, Origin], keys: Sequence[Any], origins: Sequence[Origin]
) -> None:
    """Note the *origins* of *keys*. What a new origin does not know stays as it was known before.

    A put that adds a field to a rollout rarely repeats its version, and a listing may know nothing of spans.
    """
    if len(origins) == 1:
        fresh = {} if origins[0].blank else dict.fromkeys(keys, origins[0])
    else:
        fresh = {key: origin for key, origin in zip(keys, origins, strict=False) if not origin.blank}
    if len(origins) > 1 or origins[0].version is None or origins[0].context is None:
        merged: dict[tuple[int, int], Origin] = {}
        for key in index.keys() & fresh.keys() | older.keys() & fresh.keys():
            before, now = index.get(key) or older[key], fresh[key]
            pair = id(before), id(now)
            if pair not in merged:
                merged[pair] = now.over(before)
            fresh[key] = merged[pair]
    index.update(fresh)


class Lineage:
    """A bounded memory of keys: those not read yet, and two generations of read ones, the older dropped as a whole."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = max(1, limit // 3)
        self.reset()

    def reset(self) -> None:
        """Forget everything; also what a forked child does, whose lock another thread may hold."""
        self._lock = threading.Lock()
        self._told: deque[tuple[str, tuple[Any, ...], Any, SpanContext | None]] = deque()  # not in the index yet
        self._keys_told = 0
        self._young: _Index = {}
        self._old: _Index = {}
        self._newest: int | None = None

    def wrote(self, partition: str, keys: tuple[Any, ...], tags: object, context: SpanContext | None) -> None:
        """Note that a put wrote *keys* (of :data:`KEY_TYPES`) with *tags* in the span *context*.

        The tags are kept and read when something is first looked up. A change of them in place before that changes what
        is remembered.
        """
        if type(tags) is not list:
            tags = ()
        if tags or context is not None:
            with self._lock:
                self._note(partition, keys, tags, context)

    def remember(
        self,
        partition: str,
        keys: Sequence[Any],
        versions: Sequence[int | None],
        contexts: Sequence[SpanContext | None],
    ) -> Sequence[Origin]:
        """Note that *keys* have these *versions* and *contexts*: one for all of them, or one per key.

        Returns:
            The origins, one for all of the keys or one per key.
        """
        origins = _origins(versions, contexts)
        with self._lock:
            self._newest = _newest(self._newest, *versions)
            if type(keys[0]) in KEY_TYPES:
                for start in range(0, len(keys), self._limit):
                    part = slice(start, start + self._limit)
                    told = origins if len(origins) == 1 else _Origins(origins[part])
                    self._note(partition, tuple(keys[part]), told, None)
        return origins

    def remember_groups(self, partition: str, groups: object) -> None:
        """Note what a listing says of the newest keys: the groups at its end."""
        if not isinstance(groups, list) or not groups:
            return
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
        if keys:
            self.remember(partition, keys, versions, contexts)

    def find(self, partition: str, keys: Sequence[Any]) -> tuple[list[Origin], int]:
        """Return the distinct origins of *keys* and how many of the keys are not remembered."""
        with self._lock:
            self._settle()
            young = self._young.get(partition, {})
            old = self._old.get(partition, {})
            try:
                found: set[Origin | None] = set(map(young.get, keys))
                absent = [key for key in keys if key not in young] if None in found else []
                found.update(map(old.get, absent))
                misses = sum(1 for key in absent if key not in old)
            except TypeError:  # a key that cannot be hashed
                return [], len(keys)
        return [origin for origin in found if origin is not None], misses

    def newest_version(self) -> int | None:
        """Return the newest version seen; puts that were forgotten before any look-up do not count."""
        with self._lock:
            self._settle()
            return self._newest

    def _note(self, partition: str, keys: tuple[Any, ...], told: Any, context: SpanContext | None) -> None:
        self._told.append((partition, keys, told, context))
        self._keys_told += len(keys)
        if self._keys_told > self._limit:  # nothing was looked up for long: forget the oldest, many at once
            while self._keys_told > self._limit * 3 // 4 and len(self._told) > 1:
                self._keys_told -= len(self._told.popleft()[1])

    def _settle(self) -> None:
        """Bring the index up to date."""
        self._keys_told = 0
        while self._told:
            partition, keys, told, context = self._told.popleft()
            if type(told) is _Origins:
                origins = told
            else:
                versions = versions_of(told) if told else (None,)
                self._newest = _newest(self._newest, *versions)
                origins = _origins(versions, (context,))
            try:
                _index(self._young.setdefault(partition, {}), self._old.get(partition, {}), keys, origins)
            except TypeError:  # a key that cannot be hashed names nothing
                continue
            if sum(map(len, self._young.values())) >= self._limit:
                self._old, self._young = self._young, {}


def _origins(versions: Sequence[int | None], contexts: Sequence[SpanContext | None]) -> _Origins:
    if len(versions) == 1 and len(contexts) == 1:
        return _Origins((Origin(versions[0], contexts[0]),))
    size = max(len(versions), len(contexts))
    pairs = zip(
        versions if len(versions) == size else list(versions) * size,
        contexts if len(contexts) == size else list(contexts) * size,
        strict=True,
    )
    shared: dict[tuple[int | None, int], Origin] = {}  # a SpanContext cannot be hashed
    return _Origins(shared.setdefault((version, id(context)), Origin(version, context)) for version, context in pairs)


def linkable(origins: Iterable[Origin]) -> list[SpanContext]:
    """Return the distinct producers' spans that were recorded: a link to any other leads nowhere."""
    spans: dict[tuple[int, int], SpanContext] = {}
    for origin in origins:
        context = origin.context
        if context is not None and context.trace_flags.sampled:
            spans[context.trace_id, context.span_id] = context
            if len(spans) == MAX_LINKS:
                break
    return list(spans.values())
