"""Time, injected. Only this module reads the operating system's clock."""

from __future__ import annotations

import threading
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """A source of time."""

    def time(self) -> float:
        """Return seconds since the epoch. May jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start. Never jumps; the base of every interval and deadline."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until *event* is set or *timeout_s* seconds have passed; return whether it is set."""
        ...


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """See :meth:`Clock.time`."""
        return time.time()

    def monotonic(self) -> float:
        """See :meth:`Clock.monotonic`."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """See :meth:`Clock.wait`."""
        return event.wait(timeout_s)
