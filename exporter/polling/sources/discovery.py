"""The source ``discovery``: looks the controller up."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final, NamedTuple

from opentelemetry.trace import Tracer

from dataplane.discovery.record import Endpoint
from dataplane.errors import DataPlaneError
from exporter.clock import Clock
from exporter.discovery import Discovery
from exporter.model.results import Absent, Failed, Found, Result
from exporter.model.state import State
from exporter.polling.schedule import Backoff
from exporter.polling.sources.base import Next, Source
from exporter.polling.sources.target import Target

__all__ = ["Bind", "DiscoverySource", "LookUp"]

logger = logging.getLogger(__name__)

_AWAITED_PAUSE_S: Final = 15.0
_IDLE_PAUSE_S: Final = 60.0
"""Longest pause between two look-ups: while a job waits for a controller, and otherwise."""

Bind = Callable[[Endpoint], Target]
"""Makes the sources for a controller that was found; may raise a DataPlaneError."""


class LookUp(NamedTuple):
    """What a look-up found, and the target to poll when the controller is not the one in use."""

    found: Found | Absent
    target: Target | None = None


class DiscoverySource(Source[LookUp]):
    """Looks the controller up and makes its sources. Polled when a ping fails, or at the discovery's own interval.

    Args:
        discovery: Finds the controller.
        bind: Makes the sources for a controller.
        tracer: Makes the spans.
        clock: Measures durations.

    Attributes:
        target: What to poll according to the last look-up, None for nothing.
    """

    name = "discovery"
    operation = "discover"
    interval_s = math.inf
    slow_s = 15.0

    def __init__(self, discovery: Discovery, bind: Bind, *, tracer: Tracer, clock: Clock) -> None:
        super().__init__(tracer=tracer, clock=clock)
        self._discovery = discovery
        self._bind = bind
        self._backoff = Backoff()
        self._previous: Endpoint | None = None
        self.target: Target | None = None

    def _ask(self) -> LookUp:
        found = self._discovery.look(self._previous)
        if isinstance(found, Absent):
            return LookUp(found)
        self._previous = endpoint = found.endpoint
        if self.target is not None and self.target.is_at(endpoint):
            return LookUp(found)
        try:
            return LookUp(found, self._bind(endpoint))
        except DataPlaneError as error:
            error.args = (f"could not connect: {error}",)
            error.operation = self.operation
            raise
        except Exception:  # a record may contain anything, and the public client may raise anything
            logger.error("could not connect to the controller that was found: %s", endpoint)
            raise

    def fold(self, result: Result[LookUp], state: State) -> Next:
        """See :meth:`Source.fold`: updates the discovery state and :attr:`target`."""
        state.looked()
        before = state.health.detail(self.name)
        if isinstance(result, Failed) and result.error_type == "DataPlaneNotReady":
            state.lifecycle.start(result.detail)
        state.finish(self.name, result)
        if isinstance(result, Failed):
            return self._next(state, found=False)
        found, target = result.value
        if isinstance(found, Absent):
            state.health.explain(self.name, found.detail)
            if before != found.detail:
                logger.info("no TransferQueue found: %s", found.detail)
            if found.ended:
                state.lifecycle.end(found.detail)
            else:
                state.lifecycle.absent(found.detail)
            return self._next(state, found=False)
        if state.lifecycle.adopt(found.endpoint):
            state.begin_generation()
        if target is not None:
            self.target = target
        elif self.target is not None and found.endpoint.actor_id is not None:
            self.target.readers.confirm()
        return self._next(state, found=True)

    def pause_s(self, state: State) -> float:
        """Return how long to wait before the next look-up: shorter while a job waits for a controller."""
        awaited = state.lifecycle.discovery in ("lost", "starting")
        return self._backoff.next_s(_AWAITED_PAUSE_S if awaited else _IDLE_PAUSE_S)

    def reset_pauses(self) -> None:
        """Restart with the shortest pause, since the controller answers."""
        self._backoff.reset()

    def close(self) -> None:
        """Abort a look-up in flight. May be called from any thread."""
        self._discovery.close()

    def _next(self, state: State, *, found: bool) -> Next:
        if state.lifecycle.endpoint is None:
            self.target = None
        wait_s = math.inf if found else self.pause_s(state)
        return Next(min(wait_s, self._discovery.recheck_s or math.inf))
