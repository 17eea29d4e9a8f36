"""Records calls: the one place that turns a call and its outcome into a span, metrics and an event.

The wrapper and the instrumentor open a :class:`~dataplane.observability.call.Call` before a call and tell it how the
call ended. Nothing there raises: a failure of telemetry is logged once, counted, and the call goes on as if nobody had
looked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Callable

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from dataplane.observability.call import Event
from dataplane.observability.instruments import (
    SCOPE,
    Instruments,
    instruments_for,
    reset_after_fork,
    scope_version,
)
from dataplane.observability.lineage import Lineage
from dataplane.observability.outstanding import Outstanding
from dataplane.observability.tally import Tally

__all__ = ["Observer", "Recorder"]

Observer = Callable[[Event], object]

_logger = logging.getLogger("dataplane.observability")


class Recorder:
    """Records the calls of one client.

    Args:
        on_event: Called with one event per call.
        meter_provider: Where metrics go, None for the global provider.
        tracer_provider: Where spans go, None for the global provider.
        propagate: Whether a put writes its span into the tags.
    """

    def __init__(
        self,
        on_event: Observer | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        propagate: bool = False,
    ) -> None:
        self.on_event = on_event
        self.propagate = propagate
        self.own_providers = meter_provider is not None or tracer_provider is not None
        self.outstanding = Outstanding()
        self.lineage = Lineage()
        broken: Exception | None = None
        try:
            self.instruments = instruments_for(meter_provider)
        except Exception as error:
            broken, self.instruments = error, Instruments(metrics.NoOpMeterProvider())
        self.record_duration = self.instruments.duration.record
        try:
            self.tracer = trace.get_tracer(SCOPE, scope_version(), tracer_provider)
        except Exception as error:
            broken, self.tracer = error, trace.NoOpTracer()
        self.tally = Tally(self.instruments.labels)
        # Calls inside another client's observed call: in this client's snapshot, and counted by the outer one.
        self.nested_tally = Tally(self.instruments.labels)
        self.instruments.feed(self, self.tally)
        if broken is not None:
            self.failed(broken)
        _recorders.add(self)

    def failed(self, error: BaseException) -> None:
        """Note that telemetry itself failed: the first time in the log, always in the count."""
        if self.tally.observer_failed() == 0:
            with contextlib.suppress(Exception):  # a log handler that fails has nowhere to say so
                _logger.warning(
                    "Observing a data plane call failed; calls go on. Further failures are only counted.",
                    exc_info=error,
                )

    def reset(self) -> None:
        """Start from nothing, as a forked child does."""
        self.tally.reset()
        self.nested_tally.reset()
        self.outstanding.reset()
        self.lineage.reset()


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork() -> None:
    reset_after_fork()
    for recorder in _recorders:
        recorder.reset()


os.register_at_fork(after_in_child=_after_fork)
