"""Which connections are open, and which has to go when there are too many.

What must be served is short: a request that fits a packet or two, an answer that is ready at once. So a connection
that is still asking goes first, of the address that has most of these, and the oldest of them: whoever floods the
server crowds out itself. Next goes one whose client has not taken its answer for a while. One that is being answered
never goes; the next in line waits for it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["Connections", "Stage"]

logger = logging.getLogger(__name__)

Stage = Literal["asking", "answering", "sending"]
"""Reading the request (or shaking hands), making the answer, or writing it."""

_SENDING_S: Final = 1.0


@dataclass(slots=True)
class _Open:
    socket: socket.socket
    host: str
    stage: Stage = "asking"
    since: float = field(default_factory=time.monotonic)


class Connections:
    """The open connections, by the socket that was accepted, in the order of arrival.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[socket.socket, _Open] = {}
        self._changed = threading.Condition()
        self._closed = False

    def add(self, accepted: socket.socket, host: str) -> None:
        """Keep a new connection from *host*; makes room, or waits until there is."""
        with self._changed:
            while len(self._open) >= self._limit and not self._closed:
                if not self._drop_one():
                    self._changed.wait(0.1)
            self._open[accepted] = _Open(accepted, host)
            if self._closed:
                _abort(accepted)

    def replace(self, accepted: socket.socket, wrapped: socket.socket) -> None:
        """Keep the TLS socket that took *accepted*'s place."""
        with self._changed:
            found = self._open.get(accepted)
            if found is None:
                _abort(wrapped)
            else:
                found.socket = wrapped

    def enter(self, accepted: socket.socket, stage: Stage) -> None:
        """Note what a connection does now."""
        with self._changed:
            found = self._open.get(accepted)
            if found is not None:
                found.stage, found.since = stage, time.monotonic()

    def remove(self, accepted: socket.socket) -> None:
        """Forget a connection that its own thread closes."""
        with self._changed:
            self._open.pop(accepted, None)
            self._changed.notify()

    def shed(self) -> None:
        """End one connection, if any may go: file descriptors have run out."""
        with self._changed:
            self._drop_one()

    def close(self) -> None:
        """End every connection, and every later one at once."""
        with self._changed:
            self._closed = True
            for found in self._open.values():
                _abort(found.socket)
            self._changed.notify_all()

    def _drop_one(self) -> bool:
        accepted = self._next_to_go()
        if accepted is None:
            return False
        _abort(self._open.pop(accepted).socket)
        return True

    def _next_to_go(self) -> socket.socket | None:
        asking = Counter(found.host for found in self._open.values() if found.stage == "asking")
        if asking:
            crowd = asking.most_common(1)[0][0]
            return next(key for key, found in self._open.items() if found.stage == "asking" and found.host == crowd)
        patience = time.monotonic() - _SENDING_S
        stuck = [key for key, found in self._open.items() if found.stage == "sending" and found.since < patience]
        return min(stuck, key=lambda key: self._open[key].since, default=None)


def _abort(connection: socket.socket) -> None:
    """End a connection that another thread reads or writes; that thread then closes it."""
    try:
        # Not the TLS socket's own, which takes its state away under the other thread.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:  # it ended by itself
        logger.debug("a connection ended before it was closed")
