"""One connection's HTTP: uvicorn's protocol with a limit on the head, a connection slot, and our own error answers.

The parser is h11, not httptools: h11 limits the size of a head, and is a tenth of the size. A request every few seconds
needs no faster parser.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from http import HTTPStatus
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from exporter.web.guard import Protection
from exporter.web.limits import Slot, Slots
from exporter.web.tls import has_allowed_name

__all__ = ["DRAIN_BYTES", "DRAIN_S", "MAX_HEAD_BYTES", "ClientProtocol"]

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 16 * 1024
"""The longest request line with all headers."""
DRAIN_BYTES: Final = 1024 * 1024
"""At most this much of a refused request is read, so that its sender can read the answer."""
DRAIN_S: Final = 1.0
"""The longest time to read it, seconds."""

_PIECE_BYTES: Final = 4096


class ClientProtocol(H11Protocol):
    """Serves one connection; an ASGI application finds ``slot`` and ``protection`` in ``scope["state"]``.

    Args:
        config: uvicorn's settings.
        server_state: uvicorn's connections and tasks.
        slots: The slots for connections.
        slot: This connection's slot.
        protection: The protection of this connection.
    """

    def __init__(
        self, config: Config, server_state: ServerState, slots: Slots, slot: Slot, protection: Protection
    ) -> None:
        super().__init__(config, server_state, {"slot": slot, "protection": protection})
        self._slots = slots
        self._slot = slot
        self._protection = protection
        self._left_to_drain: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """See :class:`asyncio.Protocol`. Under TLS it is called after the handshake."""
        super().connection_made(transport)
        self._slot.end = transport.abort
        if self._slot.freed:  # it was closed during the handshake
            transport.abort()
        elif not has_allowed_name(transport.get_extra_info("peercert"), self._protection.client_allowed_sans):
            logger.debug("the certificate of %s has no allowed name", self._slot.host)
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        # In pieces while the head is read: h11 checks its limit only while the head is incomplete.
        size = _PIECE_BYTES if self.cycle is None else len(data)
        for start in range(0, len(data), size):
            if self.transport.is_closing():
                return
            piece = data[start : start + size]
            if self._left_to_drain is None:
                super().data_received(piece)
            else:
                self._left_to_drain -= len(piece)
                if self._left_to_drain < 0:
                    self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        super().connection_lost(exc)
        self._slots.free(self._slot)

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid or too large request in plain text that repeats nothing of it.

        uvicorn calls this while it handles h11's error, which has more details than *msg*.
        """
        status = HTTPStatus.BAD_REQUEST
        if getattr(sys.exc_info()[1], "error_status_hint", 400) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            first_line_ends = b"\n" in self.conn.trailing_data[0]
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if first_line_ends else HTTPStatus.REQUEST_URI_TOO_LONG
        logger.debug("%s %r %s", self._slot.host, "- (something else)", status.value)
        body = f"{status.phrase}\n".encode()
        headers: list[tuple[bytes, bytes]] = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        head = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        events: tuple[Any, ...] = (head, h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self._drain()

    def _drain(self) -> None:
        """Read on for a moment: closing a connection with unread data may cost the client our answer."""
        self._left_to_drain = DRAIN_BYTES
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(DRAIN_S, self.transport.close)
