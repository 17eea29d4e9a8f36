"""The metrics with a fixed label set, counted in SDK instruments as events happen.

An attribute whose values change over time is not allowed here, since the SDK never frees an attribute set. Such series
are rendered from the snapshot instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Literal

from opentelemetry.metrics import Counter, Meter
from opentelemetry.metrics import Histogram as HistogramInstrument

from dataplane.errors import OTHER_ERROR_TYPE
from dataplane.metrics import ERROR_TYPE_VALUES, Metric
from dataplane.semconv import ERROR_TYPE
from exporter.catalogue import metrics as catalogue
from exporter.catalogue.metrics import EXPORTER_OPERATIONS, OTHER_OPERATION, UndeclaredError, check_attributes

__all__ = ["Outcome", "InstrumentRecorder", "Signal"]

Outcome = Literal["ok", "failed"]
Signal = Literal["metrics", "traces"]


class InstrumentRecorder:
    """Counts polls, pings, errors and pushes. Thread-safe. Every series whose labels are known starts at 0.

    Args:
        meter: Makes the instruments.
        ping_slo_s: The ping histogram gets a bucket here, seconds.
        pushed: The signals that are pushed over OTLP.
        trackers: The experiment trackers that are switched on.
    """

    def __init__(
        self, meter: Meter, *, ping_slo_s: float, pushed: Iterable[Signal] = (), trackers: Iterable[str] = ()
    ) -> None:
        self._ping = _histogram(meter, catalogue.PING_DURATION, catalogue.ping_bounds(ping_slo_s))
        self._errors = _counter(meter, catalogue.ERRORS)
        self._restarts = _counter(meter, catalogue.CONTROLLER_RESTARTS)
        self._polls = _counter(meter, catalogue.POLLS)
        self._skipped = _counter(meter, catalogue.POLLS_SKIPPED)
        self._full_decodes = _counter(meter, catalogue.POLLS_FULL_DECODES)
        self._refused = _counter(meter, catalogue.REPLIES_REFUSED)
        self._refused_logins = _counter(meter, catalogue.HTTP_REFUSED_LOGINS)
        self._exports = _counter(meter, catalogue.OTLP_EXPORTS)
        self._points = _counter(meter, catalogue.TRACKER_POINTS)
        self._start_at_zero(tuple(pushed), tuple(trackers))

    def ping(self, duration_s: float, error_type: str | None) -> None:
        """Record a ping of *duration_s* seconds. It failed with *error_type* unless that is None."""
        attributes = {} if error_type is None else {ERROR_TYPE: _known_error(error_type)}
        self._ping.record(duration_s, attributes)

    def error(self, operation: str, error_type: str) -> None:
        """Count a failed operation on the data plane. An undeclared operation or error type counts as ``_OTHER``."""
        if operation not in EXPORTER_OPERATIONS:
            operation = OTHER_OPERATION
        self._errors.add(1, {"operation": operation, ERROR_TYPE: _known_error(error_type)})

    def poll(self, source: str, outcome: Outcome) -> None:
        """Count a poll that ended.

        Raises:
            UndeclaredError: There is no such source or outcome.
        """
        self._add(self._polls, catalogue.POLLS, {"source": source, "outcome": outcome})

    def skipped(self, source: str) -> None:
        """Count a poll that was skipped because the last one was still running.

        Raises:
            UndeclaredError: There is no such source.
        """
        self._add(self._skipped, catalogue.POLLS_SKIPPED, {"source": source})

    def full_decodes(self, count: int) -> None:
        """Count listings that were decoded as a whole although the ones before were kept."""
        self._full_decodes.add(count)

    def restart(self) -> None:
        """Count a new controller that replaced the last one."""
        self._restarts.add(1)

    def refused(self, limit: str) -> None:
        """Count a reply that was refused because it exceeds *limit*.

        Raises:
            UndeclaredError: There is no such limit.
        """
        self._add(self._refused, catalogue.REPLIES_REFUSED, {"limit": limit})

    def refused_login(self) -> None:
        """Count a request with a wrong user name or password."""
        self._refused_logins.add(1)

    def export(self, signal: Signal, outcome: Outcome) -> None:
        """Count a batch that was pushed over OTLP.

        Raises:
            UndeclaredError: There is no such signal or outcome.
        """
        self._add(self._exports, catalogue.OTLP_EXPORTS, {"signal": signal, "outcome": outcome})

    def tracker_point(self, tracker: str, outcome: str) -> None:
        """Count a point for an experiment tracker.

        Raises:
            UndeclaredError: There is no such tracker or outcome.
        """
        self._add(self._points, catalogue.TRACKER_POINTS, {"tracker": tracker, "outcome": outcome})

    def _start_at_zero(self, pushed: tuple[Signal, ...], trackers: tuple[str, ...]) -> None:
        for operation, error_type in product(EXPORTER_OPERATIONS, ERROR_TYPE_VALUES):
            self._errors.add(0, {"operation": operation, ERROR_TYPE: error_type})
        self._restarts.add(0)
        self._refused_logins.add(0)
        self._full_decodes.add(0)
        for source, outcome in product(_values(catalogue.POLLS, "source"), _values(catalogue.POLLS, "outcome")):
            self._polls.add(0, {"source": source, "outcome": outcome})
        for source in _values(catalogue.POLLS_SKIPPED, "source"):
            self._skipped.add(0, {"source": source})
        for limit in _values(catalogue.REPLIES_REFUSED, "limit"):
            self._refused.add(0, {"limit": limit})
        for signal, outcome in product(pushed, _values(catalogue.OTLP_EXPORTS, "outcome")):
            self._exports.add(0, {"signal": signal, "outcome": outcome})
        for tracker, outcome in product(trackers, _values(catalogue.TRACKER_POINTS, "outcome")):
            self._points.add(0, {"tracker": tracker, "outcome": outcome})

    @staticmethod
    def _add(instrument: Counter, metric: Metric, attributes: dict[str, str]) -> None:
        check_attributes(metric, attributes)
        instrument.add(1, attributes)


def _counter(meter: Meter, metric: Metric) -> Counter:
    return meter.create_counter(metric.name, metric.unit, metric.description)


def _histogram(meter: Meter, metric: Metric, bounds: tuple[float, ...]) -> HistogramInstrument:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=bounds
    )


def _values(metric: Metric, attribute: str) -> tuple[str, ...]:
    values = metric.attributes[attribute]
    if values is None:
        raise UndeclaredError(f"{metric.name} declares no closed set for {attribute}")
    return values


def _known_error(error_type: str) -> str:
    return error_type if error_type in ERROR_TYPE_VALUES else OTHER_ERROR_TYPE
