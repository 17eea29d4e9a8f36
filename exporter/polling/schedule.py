"""When each source is due: intervals, the controller budget, and the look-ups' backoff. No threads, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from dataplane.partitions import bounded_label

__all__ = ["HELD_INTERVAL_S", "Backoff", "Budget", "Timer"]

HELD_INTERVAL_S: Final = 300.0
"""Shortest time between two listings of a partition whose listing took the controller too long, in seconds."""


class Timer:
    """Fires at once after :meth:`start`, then every *interval_s* seconds. Missed firings are dropped, not repeated."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._due: float | None = None

    @property
    def due(self) -> float | None:
        """Monotonic time of the next firing, None while stopped."""
        return self._due

    def start(self, now: float) -> None:
        """Fire at once and from then on regularly."""
        self._due = now

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


class _Held(NamedTuple):
    until: float
    hold_s: float
    controller_s: float


class Budget:
    """Limits the time that the controller spends on the exporter.

    Args:
        interval_s: The configured interval between metadata polls.
        max_share: The share of its time that the controller may spend on them, 0..1.
        max_stall_s: Seconds that the controller may spend on one listing.
    """

    def __init__(self, interval_s: float, max_share: float, max_stall_s: float) -> None:
        self._interval_s = interval_s
        self._max_share = max_share
        self._max_stall_s = max_stall_s
        self._held: dict[str, _Held] = {}

    def interval_s(self, controller_s: float) -> float:
        """Return the interval after a round on which the controller spent *controller_s* seconds.

        The cost of partitions that are held back is not included: they have longer intervals of their own.
        """
        return max(self._interval_s, controller_s / self._max_share)

    def charge(self, partition: str, controller_s: float, now: float) -> float | None:
        """Record the controller's time for a listing. For a failed one this is how long we waited.

        Returns:
            Seconds for which the partition is now held back, None when it is not.
        """
        if controller_s <= self._max_stall_s:
            self._held.pop(partition, None)
            return None
        hold_s = max(HELD_INTERVAL_S, controller_s / self._max_share)
        self._held[partition] = _Held(now + hold_s, hold_s, controller_s)
        return hold_s

    def held(self, now: float) -> frozenset[str]:
        """Return the partitions that are held back: they must not be listed now."""
        return frozenset(partition for partition, held in self._held.items() if now < held.until)

    def retain(self, partitions: frozenset[str]) -> None:
        """Forget partitions that are gone."""
        self._held = {name: held for name, held in self._held.items() if name in partitions}

    def explain(self, interval_s: float) -> str:
        """Return why polls are less frequent than configured, empty when they are not."""
        reasons = []
        if interval_s > self._interval_s:
            reasons.append(
                f"listing takes {interval_s * self._max_share:.3g} s of the controller's time; partitions are listed "
                f"every {interval_s:.3g} s to stay within max_controller_share ({self._max_share:.2%})"
            )
        for partition, held in sorted(self._held.items()):
            reasons.append(
                f"listing partition {bounded_label(partition)!r} took {held.controller_s:.3g} s of the controller's "
                f"time (max_controller_stall is {self._max_stall_s:.3g} s); it is listed every {held.hold_s:.0f} s"
            )
        return "; ".join(reasons)
