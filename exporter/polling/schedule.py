"""When each source is due: intervals, and the look-ups' backoff. No threads, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Backoff", "Timer"]


class Timer:
    """Fires first at the time given to :meth:`start`, then every *interval_s* seconds.

    Missed firings are dropped, not repeated.
    """

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._due: float | None = None

    @property
    def due(self) -> float | None:
        """Monotonic time of the next firing, None while stopped."""
        return self._due

    def start(self, at: float) -> None:
        """Fire first at *at*, monotonic seconds, and from then on regularly."""
        self._due = at

    def stop(self) -> None:
        """Stop firing."""
        self._due = None

    def fire(self, now: float) -> bool:
        """Return whether the timer is due; if so, schedule the next firing."""
        if self._due is None or now < self._due:
            return False
        following = self._due + self.interval_s
        self._due = following if following > now else now + self.interval_s
        return True

    def stretch(self, interval_s: float, last: float) -> None:
        """Change the interval; the next firing is *interval_s* after *last*, the start of the last poll."""
        self.interval_s = interval_s
        if self._due is not None:
            self._due = last + interval_s


class Backoff:
    """Exponential backoff with full jitter in its upper half: 1 s, 2 s, 4 s … up to *limit_s*."""

    def __init__(
        self, first_s: float = 1.0, limit_s: float = 60.0, jitter: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._jitter = jitter
        self._failures = 0

    def reset(self) -> None:
        """Restart with the shortest wait."""
        self._failures = 0

    def next_s(self, limit_s: float) -> float:
        """Return how many seconds to wait before the next attempt, at most *limit_s*."""
        ceiling = min(self._first_s * float(2**self._failures), limit_s)
        self._failures = min(self._failures + 1, 32)
        return ceiling * (0.5 + 0.5 * self._jitter())
