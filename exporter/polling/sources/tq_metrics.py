"""The source ``tq_metrics``: what TransferQueue's own metrics tell of samples, tasks and the controller."""

from __future__ import annotations

from typing import Final, Protocol

from opentelemetry.trace import Tracer

from dataplane.errors import DataPlaneTimeout
from exporter.clock import Clock
from exporter.config import Config
from exporter.model.results import Failed, Result
from exporter.model.source_health import MISSED_POLLS
from exporter.model.state import State
from exporter.model.tasks import OwnMetrics
from exporter.polling.sources.base import Next, Source

__all__ = ["TqMetricsSource"]

_FROZEN_S: Final = 120.0
"""TransferQueue refreshes its metrics every 10 s, plus 5 s for each storage unit that is silent."""


class _Reader(Protocol):
    def read(self) -> OwnMetrics: ...


class TqMetricsSource(Source[OwnMetrics]):
    """Reads TransferQueue's own metrics. It does not use the controller's request thread.

    Args:
        reader: The reader to ask.
        config: The interval.
        tracer: Makes the spans.
        clock: Measures durations.
    """

    name = "tq_metrics"
    operation = "tq_metrics"

    def __init__(self, reader: _Reader, config: Config, *, tracer: Tracer, clock: Clock) -> None:
        super().__init__(tracer=tracer, clock=clock)
        self._reader = reader
        self.interval_s = config.tq_metrics.interval
        self.slow_s = config.tq_metrics.timeout / 2
        self._uptime: float | None = None
        self._refreshed_at = clock.monotonic()

    def _ask(self) -> OwnMetrics:
        """Read the metrics. They may be served and no longer refreshed: the uptime among them stands still then."""
        with self._call():
            own = self._reader.read()
            now = self._clock.monotonic()
            if own.uptime != self._uptime:
                self._uptime, self._refreshed_at = own.uptime, now
            quiet_s = now - self._refreshed_at
            if quiet_s > max(_FROZEN_S, MISSED_POLLS * self.interval_s):
                raise DataPlaneTimeout(f"TransferQueue has not refreshed its metrics for {quiet_s:.0f} s")
            return own

    def fold(self, result: Result[OwnMetrics], state: State) -> Next:
        """See :meth:`Source.fold`: the samples, the tasks and the controller; kept for three polls that fail."""
        state.finish(self.name, result)
        if not isinstance(result, Failed):
            state.tasks.note_metrics(result.value)
            state.estimates.samples_read(result.value.samples)
            left_out = sum(one.tasks_left_out for one in state.tasks.states(state.partitions.label)[0])
            if left_out:
                state.health.explain(self.name, f"{left_out} tasks are left out")
        return Next(self.interval_s)
