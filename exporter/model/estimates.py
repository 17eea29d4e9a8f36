"""How many keys a partition has while its last listing is old: from what costs the controller nothing.

An estimate is no listing. It has a basis and a time, no condition judges it, and it is gone when a listing is fresh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from dataplane.counts import Moved
from dataplane.labels import OTHER_PARTITION
from exporter.clock import Clock

__all__ = ["BASES", "ClientCounts", "EstimateBasis", "Estimates", "KeyEstimate", "ListedRows"]

EstimateBasis = Literal["tq_metrics", "storage", "clients"]
BASES: Final[tuple[EstimateBasis, ...]] = get_args(EstimateBasis)
"""Where an estimate may come from, the best first."""

_ALL: Final = ""
_CLIENT_GONE_S: Final = 90.0
"""A client that has not written for three of its longest pauses is gone."""

_MAX_CLIENTS: Final = 4096
"""How many clients are remembered; what further ones publish is ignored."""

_OFF_SHARE: Final = 0.1
_OFF_ROWS: Final = 0.01


@dataclass(frozen=True, slots=True)
class KeyEstimate:
    """About how many keys a partition has.

    Attributes:
        partition: Its label.
        keys: The number.
        basis: ``tq_metrics`` (TransferQueue's own count of samples), ``storage`` (the keys in all storage units, less
            those of all other partitions) or ``clients`` (the last listing, and what clients have put and cleared
            since, as they publish it).
        at: When that was read, seconds since the epoch.
    """

    partition: str
    keys: int
    basis: EstimateBasis
    at: float


@dataclass(frozen=True, slots=True)
class ClientCounts:
    """What a client publishes. ``beat`` differs between two of its writes; ``moved``: keys put and cleared."""

    client: str
    beat: float
    moved: Mapping[str, Moved]


@dataclass(frozen=True, slots=True)
class ListedRows:
    """The last listing of a partition: its rows, and when it was, seconds since the epoch."""

    rows: int
    at: float


@dataclass(slots=True)
class _Client:
    beat: float
    moved: Mapping[str, Moved]
    seen: float  # monotonic
    at: float


@dataclass(slots=True)
class _Base:
    """What was read when a partition was listed: by how much each basis differed, and what each client had moved."""

    listed: ListedRows
    offsets: dict[EstimateBasis, int] = field(default_factory=dict)
    moved: dict[str, Moved] = field(default_factory=dict)
    clients_fit: bool = False


class Estimates:
    """Keeps the readings between listings. Not thread-safe.

    Args:
        clock: The clock.

    Attributes:
        old_after_s: Age in seconds after which a listing is old.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.old_after_s = 40.0
        self.forget()

    def forget(self) -> None:
        """Forget everything: another controller is polled."""
        self._readings: dict[EstimateBasis, tuple[float, Mapping[str, int]]] = {}
        self._clients: dict[str, _Client] = {}
        self._moved: dict[str, dict[str, Moved]] = {}  # by partition and client
        self._bases: dict[str, _Base] = {}
        self._rows: Mapping[str, ListedRows] = {}
        self._names: frozenset[str] = frozenset()

    def samples_read(self, samples: Mapping[str, int] | None) -> None:
        """Note TransferQueue's own count of each partition's samples, None when it is not known."""
        self._read("tq_metrics", samples)

    def storage_read(self, keys: int | None) -> None:
        """Note how many keys all storage units hold, None when that is not known."""
        self._read("storage", None if keys is None else {_ALL: keys})

    def clients_read(self, clients: Iterable[ClientCounts]) -> None:
        """Note what the clients publish. One that is gone keeps its counts until the partitions are listed again."""
        now, time = self._clock.monotonic(), self._clock.time()
        for one in clients:
            known = self._clients.get(one.client)
            if (known is not None and known.beat == one.beat) or (known is None and len(self._clients) >= _MAX_CLIENTS):
                continue
            self._clients[one.client] = _Client(one.beat, one.moved, now, time)
            for name, moved in one.moved.items():
                self._moved.setdefault(name, {})[one.client] = moved

    def listed(self, rows: Mapping[str, ListedRows], names: Iterable[str]) -> None:
        """Note the last listing of each partition, and the names of all: a partition that is not there is gone."""
        self._rows, self._names = rows, frozenset(names)
        self._bases = {name: base for name, base in self._bases.items() if name in self._names}
        self._moved = {name: moved for name, moved in self._moved.items() if name in self._names}
        for name, listed in rows.items():
            before = self._bases.get(name)
            if before is None or before.listed.at != listed.at:
                self._bases[name] = self._base(name, listed, before)
        self._drop_gone_clients()

    def current(
        self,
        names: Iterable[str],
        rows: Mapping[str, ListedRows],
        label: Callable[[str], str],
    ) -> tuple[KeyEstimate, ...]:
        """Return the estimate of each partition whose listing is old, where one can be made, ordered by label.

        Args:
            names: All partitions.
            rows: The last listing of each that was listed and is not too old to be shown.
            label: Returns the label of a partition. One that several share has no estimate.
        """
        known = list(names)
        time = self._clock.time()
        fresh = {name: one for name, one in rows.items() if time - one.at <= self.old_after_s}
        if len(fresh) == len(known) or not (self._readings or self._clients):
            return ()
        labels = {name: label(name) for name in known}
        shared = Counter(labels.values())
        found = []
        for name, shown in labels.items():
            if name in fresh or shown == OTHER_PARTITION or shared[shown] > 1:
                continue
            estimate = self._estimate(name, shown, known, fresh)
            if estimate is not None:
                found.append(estimate)
        return tuple(sorted(found, key=lambda one: one.partition))

    def _read(self, basis: EstimateBasis, values: Mapping[str, int] | None) -> None:
        if values is None:
            self._readings.pop(basis, None)
        else:
            time = self._clock.time()
            self._readings[basis] = (time, values)
            for name, base in self._bases.items():
                if basis not in base.offsets and time - base.listed.at <= self.old_after_s:
                    self._compare(basis, name, base)

    def _estimate(
        self, name: str, label: str, names: Iterable[str], fresh: Mapping[str, ListedRows]
    ) -> KeyEstimate | None:
        base = self._bases.get(name)
        for basis in BASES:
            if basis == "clients":
                if base is None or not base.clients_fit or (at := self._clients_at()) is None:
                    continue
                keys = base.listed.rows + self._moved_since(name, base)
            else:
                value = self._value(basis, name, names, fresh)
                if value is None:
                    continue
                at = self._readings[basis][0]
                keys = value + (0 if base is None else base.offsets.get(basis, 0))
            if base is None or at > base.listed.at:
                return KeyEstimate(label, max(keys, 0), basis, at)
        return None

    def _value(
        self, basis: EstimateBasis, name: str, names: Iterable[str], rows: Mapping[str, ListedRows]
    ) -> int | None:
        """Return a basis's own figure for a partition, None when it has none."""
        if basis not in self._readings:
            return None
        values = self._readings[basis][1]
        if basis != "storage":
            return values.get(name)
        others = [other for other in names if other != name]
        if any(other not in rows for other in others):
            return None  # what of it is in which partition cannot be told
        return values[_ALL] - sum(rows[other].rows for other in others)

    def _compare(self, basis: EstimateBasis, name: str, base: _Base) -> None:
        """Note by how much a basis's figure differs from the listing."""
        value = self._value(basis, name, self._names, self._rows)
        if value is not None:
            base.offsets[basis] = base.listed.rows - value

    def _base(self, name: str, listed: ListedRows, before: _Base | None) -> _Base:
        base = _Base(listed)
        self._compare("tq_metrics", name, base)
        self._compare("storage", name, base)
        base.moved = dict(self._moved.get(name, {}))
        if before is not None and base.moved:
            # Puts also update rows, and not every client may publish: trusted if it explained the last change.
            off = abs(before.listed.rows + self._moved_since(name, before) - listed.rows)
            base.clients_fit = off <= _OFF_SHARE * self._traffic_since(name, before) + _OFF_ROWS * listed.rows
        return base

    def _since(self, name: str, base: _Base) -> Iterable[Moved]:
        for client, (put, cleared) in self._moved.get(name, {}).items():
            first_put, first_cleared = base.moved.get(client, (0, 0))
            yield put - first_put, cleared - first_cleared

    def _moved_since(self, name: str, base: _Base) -> int:
        return sum(put - cleared for put, cleared in self._since(name, base))

    def _traffic_since(self, name: str, base: _Base) -> int:
        return sum(put + cleared for put, cleared in self._since(name, base))

    def _clients_at(self) -> float | None:
        now = self._clock.monotonic()
        return min((one.at for one in self._clients.values() if now - one.seen <= _CLIENT_GONE_S), default=None)

    def _drop_gone_clients(self) -> None:
        """Forget clients that are gone and whose counts every partition's base already contains."""
        now = self._clock.monotonic()
        for client, one in list(self._clients.items()):
            if now - one.seen <= _CLIENT_GONE_S:
                continue
            bases = ((self._bases.get(name), moved) for name, moved in one.moved.items())
            if all(base is None or base.moved.get(client) == moved for base, moved in bases):
                del self._clients[client]
                for name in one.moved:
                    self._moved.get(name, {}).pop(client, None)
