"""The OpenTelemetry instruments, one set per meter provider, shared by all clients of the process.

A call only adds to a cell: observable counters read the cells when a reader collects. A histogram cannot be observed,
so durations and lags are recorded in the SDK when a reader collects: recording takes long, and lags need a look-up.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, NoOpMeterProvider, Observation
from opentelemetry.metrics import _internal as _metrics_api

from dataplane.metrics import (
    CLIENT_CONSUMED_LAG,
    CLIENT_ERRORS,
    CLIENT_IO,
    CLIENT_KEYS,
    CLIENT_LINEAGE_MISSES,
    CLIENT_OBSERVER_FAILURES,
    CLIENT_OPERATION_DURATION,
    Metric,
)
from dataplane.observability.durations import Durations
from dataplane.observability.tally import Cell, PartitionLabels, Tally
from dataplane.semconv import ERROR_TYPE, SCHEMA_URL

__all__ = ["SCOPE", "Instruments", "instruments_for", "scope_version", "sdk_configured"]

SCOPE: Final = "dataplane"
"""Name of the instrumentation scope of all the client's metrics and spans."""


def scope_version() -> str | None:
    """Return the installed version, None in a tree that is not installed."""
    try:
        return version("tq-exporter")
    except PackageNotFoundError:
        return None


def sdk_configured() -> bool:
    """Return whether a global provider of metrics or traces may be set.

    The public function takes longer than everything else that a call costs without an SDK, so this reads private names.
    Where OpenTelemetry has renamed them the answer is yes, and the API's own instruments do nothing without an SDK. The
    same in :meth:`Instruments.live`.
    """
    try:
        return _metrics_api._METER_PROVIDER is not None or trace._TRACER_PROVIDER is not None
    except AttributeError:
        return True


class Instruments:
    """The instruments on one meter provider, None for the global one, and the tallies that feed them."""

    def __init__(self, meter_provider: MeterProvider | None) -> None:
        self.labels = PartitionLabels()
        self._explicit = meter_provider is not None
        self._tallies: set[Tally] = set()
        self._gone: deque[Tally] = deque()
        self._lock = threading.Lock()
        self._retired = Tally(self.labels)
        self._lags: list[Mapping[Cell, Mapping[int, int]]] = []
        self._live = not isinstance(meter_provider, NoOpMeterProvider)
        meter = metrics.get_meter(SCOPE, scope_version() or "", meter_provider, SCHEMA_URL)
        self._duration = meter.create_histogram(
            CLIENT_OPERATION_DURATION.name,
            CLIENT_OPERATION_DURATION.unit,
            CLIENT_OPERATION_DURATION.description,
            explicit_bucket_boundaries_advisory=CLIENT_OPERATION_DURATION.boundaries,
        )
        self.durations = Durations(self._duration)
        self._lag = meter.create_histogram(
            CLIENT_CONSUMED_LAG.name,
            CLIENT_CONSUMED_LAG.unit,
            CLIENT_CONSUMED_LAG.description,
            explicit_bucket_boundaries_advisory=CLIENT_CONSUMED_LAG.boundaries,
        )
        observed: tuple[tuple[Metric, Callable[[], Iterable[Observation]]], ...] = (
            (CLIENT_ERRORS, self._errors),
            (CLIENT_KEYS, self._keys),
            (CLIENT_IO, self._bytes),
            (CLIENT_LINEAGE_MISSES, self._misses),
            (CLIENT_OBSERVER_FAILURES, self._observer_failures),
        )
        for metric, observe in observed:
            meter.create_observable_counter(metric.name, [_callback(observe)], metric.unit, metric.description)

    def live(self) -> bool:
        """Return whether somebody may read the metrics."""
        if self._explicit:
            return self._live
        try:
            return _metrics_api._METER_PROVIDER is not None
        except AttributeError:
            return True

    def feed(self, owner: object, tally: Tally) -> None:
        """Add *tally* to the counters. What it counted stays in them when its *owner* is gone."""
        with self._lock:
            self._tallies.add(tally)
        # The finalizer may run inside any allocation of any thread, so it takes no lock.
        weakref.finalize(owner, self._gone.append, tally).atexit = False

    def reset(self) -> None:
        """Start from nothing in a forked child: the parent goes on counting what it counted."""
        self._lock = threading.Lock()
        self._lags = []
        self.labels.reset()
        self.durations.reset()
        for tally in (self._retired, *self._tallies):
            tally.reset()
        for histogram in (self._duration, self._lag):
            _forget(histogram)

    def _cells(self) -> list[Cell]:
        return [cell for tally in self._current() for cell in tally.cells()]

    def _current(self) -> list[Tally]:
        with self._lock:
            while self._gone:
                tally = self._gone.popleft()
                if tally in self._tallies:
                    self._tallies.remove(tally)
                    self._lags.append(tally.take_lags())
                    self._retired.merge(tally)
            return [self._retired, *self._tallies]

    def _errors(self) -> Iterator[Observation]:
        sums: dict[tuple[str, str | None, str], int] = {}
        for cell in self._cells():
            if cell.error_type is not None:
                key = (cell.operation.name, cell.label, cell.error_type)
                sums[key] = sums.get(key, 0) + cell.count
        for (operation, label, error_type), total in sums.items():
            yield Observation(total, _attributes(operation, label, {ERROR_TYPE: error_type}))

    def _keys(self) -> Iterator[Observation]:
        return _moved((cell, cell.keys) for cell in self._cells())

    def _bytes(self) -> Iterator[Observation]:
        return _moved((cell, cell.bytes) for cell in self._cells() if cell.operation.effect in ("write", "read"))

    def _misses(self) -> Iterator[Observation]:
        self.durations.catch_up()
        self._record_lags()
        sums: dict[tuple[str, str | None], int] = {}
        for cell in self._cells():
            if cell.misses:
                key = (cell.operation.name, cell.label)
                sums[key] = sums.get(key, 0) + cell.misses
        for (operation, label), total in sums.items():
            yield Observation(total, _attributes(operation, label, {}))

    def _record_lags(self) -> None:
        lags = [tally.take_lags() for tally in self._current()]
        with self._lock:
            lags, self._lags = [*self._lags, *lags], []
        for by_cell in lags:
            for cell, counts in by_cell.items():
                for lag, count in counts.items():
                    for _ in range(count):
                        self._lag.record(lag, cell.lag_attributes)

    def _observer_failures(self) -> Iterator[Observation]:
        yield Observation(sum(tally.observer_failures for tally in self._current()))


def _forget(histogram: Histogram) -> None:
    """Forget what a forked child has inherited in *histogram*: it would report its parent's calls as its own.

    OpenTelemetry has no means to do this, so this uses names of the SDK that are private. Where they are others, the
    child's histograms start with the parent's counts.
    """
    with contextlib.suppress(Exception):
        instrument: Any = getattr(histogram, "_real_instrument", None) or histogram  # the API's proxy before an SDK
        for storage in instrument._measurement_consumer._reader_storages.values():
            storage._lock = threading.RLock()  # another thread of the parent may have held it
            storage._instrument_view_instrument_matches.pop(instrument, None)


def _moved(amounts: Iterable[tuple[Cell, int]]) -> Iterator[Observation]:
    sums: dict[tuple[str, str | None, str], int] = {}
    for cell, amount in amounts:
        if cell.error_type is None and cell.operation.direction is not None and cell.count:
            key = (cell.operation.name, cell.label, cell.operation.direction)
            sums[key] = sums.get(key, 0) + amount
    for (operation, label, direction), total in sums.items():
        yield Observation(total, _attributes(operation, label, {"direction": direction}))


def _callback(observe: Callable[[], Iterable[Observation]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda options: observe()


def _attributes(operation: str, label: str | None, more: dict[str, str]) -> dict[str, str]:
    attributes = {"operation": operation, **more}
    if label is not None:
        attributes["partition"] = label
    return attributes


_lock = threading.Lock()
_global: list[Instruments] = []
_explicit: weakref.WeakKeyDictionary[MeterProvider, Instruments] = weakref.WeakKeyDictionary()


def instruments_for(meter_provider: MeterProvider | None) -> Instruments:
    """Return the instruments on *meter_provider*, None for the global one.

    An SDK takes the callbacks of an instrument once, so there is one set per provider and process.
    """
    with _lock:
        current = metrics.get_meter_provider()
        if meter_provider is None or meter_provider is current:
            if not _global:
                _global.append(_explicit.get(current) or Instruments(None))
            return _global[0]
        instruments = _explicit.get(meter_provider)
        if instruments is None:
            instruments = _explicit[meter_provider] = Instruments(meter_provider)
        return instruments


def reset_after_fork() -> None:
    """Give a forked child new locks and counts that start at zero."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    for instruments in (*_global, *_explicit.values()):
        instruments.reset()
