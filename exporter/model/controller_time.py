"""The controller's time that the exporter's requests take."""

from __future__ import annotations

from collections import deque
from typing import Final

from exporter.clock import Clock

__all__ = ["ControllerTime"]

_BUSY_WINDOW_S: Final = 300.0


class ControllerTime:
    """The share of its time that the controller spends on this exporter, over the last minutes.

    Args:
        clock: The clock.

    Attributes:
        interval: Seconds between metadata polls, which cost most. The share is averaged over at least this time. None
            before the first one: no share is known then.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent: deque[tuple[float, float]] = deque()
        self.interval: float | None = None

    def spend(self, seconds: float) -> None:
        """Note that the controller spent *seconds* on this exporter."""
        now = self._clock.monotonic()
        self._spent.append((now, seconds))
        while self._spent and now - self._spent[0][0] > _BUSY_WINDOW_S:
            self._spent.popleft()

    def ratio(self) -> float | None:
        """Return the share, 0..1, None while it is unknown."""
        now = self._clock.monotonic()
        spent = [seconds for at, seconds in self._spent if now - at <= _BUSY_WINDOW_S]
        if not spent or self.interval is None:
            return None
        window = max(min(now - self._spent[0][0], _BUSY_WINDOW_S), self.interval)
        return min(sum(spent) / window, 1.0) if window else None
