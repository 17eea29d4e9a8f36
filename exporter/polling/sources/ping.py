"""Is the controller there, and how fast does it answer?"""

from __future__ import annotations

from opentelemetry.trace import Tracer

from dataplane.interfaces import MetadataReader
from exporter.clock import Clock
from exporter.model.results import Result
from exporter.polling.sources.base import call_span, poll

__all__ = ["PingSource"]


class PingSource:
    """Pings the controller; the value is the round trip in seconds."""

    def __init__(self, reader: MetadataReader, *, timeout_s: float, tracer: Tracer, clock: Clock) -> None:
        self._reader = reader
        self._timeout_s = timeout_s
        self._tracer = tracer
        self._clock = clock

    def poll(self) -> Result[float]:
        """Ask once. Blocks for the deadline at most; raises nothing."""
        return poll("ping", "ping", self._ping, tracer=self._tracer, clock=self._clock)

    def _ping(self) -> float:
        with call_span(self._tracer, "ping"):
            return self._reader.ping(self._timeout_s)
