"""The source ``ping``: whether the controller answers, and how fast."""

from __future__ import annotations

from opentelemetry.trace import Tracer

from dataplane.interfaces import MetadataReader
from exporter.clock import Clock
from exporter.config import Config
from exporter.model.results import Failed, Result
from exporter.model.state import State
from exporter.polling.sources.base import Next, Source
from exporter.polling.work import REQUEST_S

__all__ = ["PingSource"]


class PingSource(Source[float]):
    """Pings the controller; the value is the round trip in seconds. A failed ping requests a look-up.

    Args:
        reader: The reader to ask.
        config: Interval and deadline.
        tracer: Makes the spans.
        clock: Measures durations.
    """

    name = "ping"
    operation = "ping"
    awaited = True

    def __init__(self, reader: MetadataReader, config: Config, *, tracer: Tracer, clock: Clock) -> None:
        super().__init__(tracer=tracer, clock=clock)
        self._reader = reader
        self._timeout_s = config.ping.timeout
        self.interval_s = config.ping.interval
        self.slow_s = config.ping.slo

    def _ask(self) -> float:
        with self._call():
            return self._reader.ping(self._timeout_s)

    def fold(self, result: Result[float], state: State) -> Next:
        """See :meth:`Source.fold`: whether the controller is found and up, unreachable, or lost."""
        lifecycle = state.lifecycle
        if isinstance(result, Failed):
            lifecycle.unanswered(result.detail, gone=result.error_type == "DataPlaneUnavailable")
        state.finish(self.name, result)
        state.health.answered(self.name)
        if isinstance(result, Failed):
            state.recorder.ping(result.took, result.error_type)
            return Next(self.interval_s, alive=False)
        state.recorder.ping(result.value, None)
        work_s = min(result.value, REQUEST_S)  # the rest is waiting
        state.controller_time.spend(work_s)
        lifecycle.answered(self._reader.get_capabilities())
        return Next(self.interval_s, alive=True, facts={"controller_seconds": work_s})
