"""Limits the open connections and chooses which one to close when there are too many.

Real requests are short: one or two packets, with an answer that is ready at once. So connections that still send their
request are closed first: the oldest of the address that has most of them. A client that floods the server thus closes
its own connections. Next are connections whose client has not read its answer for a while. A connection whose answer is
being made is never closed; new ones wait for it.

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
"""Reading the request (or TLS handshake), making the answer, or writing it."""

_DEADLINE_S: Final[Mapping[Stage, float]] = {"asking": 10.0, "sending": 10.0}
_PATIENCE_S: Final = 1.0
_RETRY_S: Final = 0.05


@dataclass(eq=False, slots=True)
class Slot:
    """One connection's place.

    Attributes:
        host: The address that it comes from.
        end: Closes the connection at once.
        stage: Its present stage.
        since: When that stage began, on the clock of :class:`Slots`.
        freed: Whether the connection has ended or was closed to make room.
    """

    host: str
    end: Callable[[], None]
    stage: Stage = "asking"
    since: float = 0.0
    freed: bool = False
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """Cancel the deadline of the present stage."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Slots:
    """The slots for connections, in the order in which they were taken.

    Args:
        limit: How many there are.
        now: A monotonic clock, seconds.
    """

    def __init__(self, limit: int = MAX_CONNECTIONS, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._now = now
        self._taken: dict[Slot, None] = {}

    async def take(self, host: str, end: Callable[[], None]) -> Slot:
        """Return a slot for a new connection from *host*. When none is free, close a connection or wait.

        Args:
            host: The address that it comes from.
            end: Closes the connection at once. It may be replaced in the slot.
        """
        while len(self._taken) >= self._limit and not self.shed():
            await asyncio.sleep(_RETRY_S)
        slot = Slot(host, end)
        self._taken[slot] = None
        self.enter(slot, "asking")
        return slot

    def enter(self, slot: Slot, stage: Stage) -> None:
        """Set a connection's stage. It is closed if it takes too long to send its request or read its answer."""
        slot.stop_timer()
        slot.stage, slot.since = stage, self._now()
        if stage in _DEADLINE_S and not slot.freed:
            slot.timer = asyncio.get_running_loop().call_later(_DEADLINE_S[stage], self._time_out, slot)

    def free(self, slot: Slot) -> None:
        """Give back the slot of a connection that has ended, idempotently."""
        slot.stop_timer()
        slot.freed = True
        self._taken.pop(slot, None)

    def shed(self) -> bool:
        """Close one connection, if any may be closed; return whether one was."""
        slot = self._next_to_go()
        if slot is None:
            return False
        self.free(slot)
        slot.end()
        return True

    def end_all(self) -> None:
        """Close every connection."""
        for slot in list(self._taken):
            self.free(slot)
            slot.end()

    @staticmethod
    def _time_out(slot: Slot) -> None:
        slot.end()  # looked up now, since the handshake replaces it

    def _next_to_go(self) -> Slot | None:
        asking = Counter(slot.host for slot in self._taken if slot.stage == "asking")
        if asking:
            crowd = asking.most_common(1)[0][0]
            return next(slot for slot in self._taken if slot.stage == "asking" and slot.host == crowd)
        stuck = (slot for slot in self._taken if slot.stage == "sending" and self._now() - slot.since > _PATIENCE_S)
        return min(stuck, key=lambda slot: slot.since, default=None)
