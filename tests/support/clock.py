"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading

__all__ = ["StoppedClock"]


class StoppedClock:
    """Implements :class:`exporter.clock.Clock`."""

    def __init__(self, time: float = 1_700_000_000.0, monotonic: float = 1000.0) -> None:
        self._time = time
        self._monotonic = monotonic

    def time(self) -> float:
        return self._time

    def monotonic(self) -> float:
        return self._monotonic

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Return at once: *timeout_s* seconds pass unless the event is set."""
        if not event.is_set():
            self.advance(timeout_s)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self._time += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back. Monotonic time does not change."""
        self._time += seconds
