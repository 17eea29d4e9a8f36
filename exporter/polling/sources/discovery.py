"""Where is the controller?"""

from __future__ import annotations

from opentelemetry.trace import Tracer

from dataplane.discovery.record import Endpoint
from exporter.clock import Clock
from exporter.discovery import Discovery
from exporter.model.results import Absent, Found, Result
from exporter.polling.sources.base import poll

__all__ = ["DiscoverySource"]


class DiscoverySource:
    """Looks the controller up; ``previous`` is the endpoint that was found last, None before the first."""

    def __init__(self, discovery: Discovery, *, tracer: Tracer, clock: Clock) -> None:
        self._discovery = discovery
        self._tracer = tracer
        self._clock = clock
        self.previous: Endpoint | None = None

    def poll(self) -> Result[Found | Absent]:
        """Ask once. Blocks for the deadline at most; raises nothing."""
        previous = self.previous
        return poll(
            "discovery", "discover", lambda: self._discovery.look(previous), tracer=self._tracer, clock=self._clock
        )
