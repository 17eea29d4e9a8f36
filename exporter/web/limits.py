"""How many connections may be open, and which has to go when there are too many.

What must be served is short: a request that fits a packet or two, an answer that is ready at once. So a connection
that is still asking goes first, of the address that has most of these, and the oldest of them: whoever floods the
server crowds out itself. Next goes one whose client has not taken its answer for a while. One that is being answered
never goes; the next in line waits for it.

Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["MAX_CONNECTIONS", "Slot", "Slots", "Stage"]

MAX_CONNECTIONS: Final = 128
"""Connections that are served at the same time."""

Stage = Literal["asking", "answering", "sending"]
"""Reading the request (or shaking hands), making the answer, or writing it."""

_DEADLINE_S: Final[Mapping[Stage, float]] = {"asking": 10.0, "sending": 10.0}
_PATIENCE_S: Final = 1.0
_RETRY_S: Final = 0.05


@dataclass(eq=False, slots=True)
class Slot:
    """One connection's place.

    Attributes:
        host: The address that it comes from.
        end: Ends it at once.
        stage: What it does now.
        since: When that began, on the clock of :class:`Slots`.
        freed: Whether the connection has ended or had to go.
    """

    host: str
    end: Callable[[], None]
    stage: Stage = "asking"
    since: float = 0.0
    freed: bool = False
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """Forget the deadline of the present stage."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Slots:
    """The places for connections, in the order in which they were taken.

    Args:
        limit: How many there are.
        now: A clock that never goes back, seconds.
    """

    def __init__(self, limit: int = MAX_CONNECTIONS, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._now = now
        self._taken: dict[Slot, None] = {}

    async def take(self, host: str, end: Callable[[], None]) -> Slot:
        """Return a place for a new connection from *host*; makes room, or waits until there is.

        Args:
            host: The address that it comes from.
            end: Ends the connection at once. It may be replaced in the slot.
        """
        while len(self._taken) >= self._limit and not self.shed():
            await asyncio.sleep(_RETRY_S)
        slot = Slot(host, end)
        self._taken[slot] = None
        self.enter(slot, "asking")
        return slot

    def enter(self, slot: Slot, stage: Stage) -> None:
        """Note what a connection does now. One that takes too long to ask, or to take its answer, is ended."""
        slot.stop_timer()
        slot.stage, slot.since = stage, self._now()
        if stage in _DEADLINE_S and not slot.freed:
            slot.timer = asyncio.get_running_loop().call_later(_DEADLINE_S[stage], self._time_out, slot)

    def free(self, slot: Slot) -> None:
        """Give back the place of a connection that has ended; again does nothing."""
        slot.stop_timer()
        slot.freed = True
        self._taken.pop(slot, None)

    def shed(self) -> bool:
        """End one connection, if any may go; return whether one did."""
        slot = self._next_to_go()
        if slot is None:
            return False
        self.free(slot)
        slot.end()
        return True

    def end_all(self) -> None:
        """End every connection."""
        for slot in list(self._taken):
            self.free(slot)
            slot.end()

    @staticmethod
    def _time_out(slot: Slot) -> None:
        slot.end()  # as it is now: what ends a connection changes when its handshake is done

    def _next_to_go(self) -> Slot | None:
        asking = Counter(slot.host for slot in self._taken if slot.stage == "asking")
        if asking:
            crowd = asking.most_common(1)[0][0]
            return next(slot for slot in self._taken if slot.stage == "asking" and slot.host == crowd)
        stuck = (slot for slot in self._taken if slot.stage == "sending" and self._now() - slot.since > _PATIENCE_S)
        return min(stuck, key=lambda slot: slot.since, default=None)
