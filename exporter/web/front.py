"""What every request and answer shares: the path, the log line, the headers, and how the answer is sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.guard import Protection
from exporter.web.limits import Slot, Slots
from exporter.web.protocol import DRAIN_BYTES, DRAIN_S
from exporter.web.replies import plain

__all__ = ["Front"]

logger = logging.getLogger(__name__)

_PIECE_BYTES: Final = 256 * 1024


class Front:
    """The outermost ASGI application. An unexpected error in *app* is logged and answered with a plain 500.

    Args:
        app: The application that answers.
        slots: The slots for connections.
    """

    def __init__(self, app: ASGIApp, slots: Slots) -> None:
        self._app = app
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        slot: Slot = scope["state"]["slot"]
        _normalise(scope)
        await _drain(scope, receive)
        self._slots.enter(slot, "answering")
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._slots.enter(slot, "sending")
                shown = f"{scope['method']} {scope['path']}"
                logger.debug("%s %r %s", slot.host, shown, message["status"])
                _add_headers(message, scope["state"]["protection"])
                await send(message)
            else:
                await _send_body(message, send)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            logger.exception("answering %r failed", scope["path"])
            if not started:
                await plain(HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, answer)


def _normalise(scope: Scope) -> None:
    """For a request in absolute form (``GET http://host/path``), take path and ``Host`` from its URL (RFC 9112)."""
    target = scope["raw_path"].decode("latin-1")
    if target.startswith("/"):
        return
    try:
        parts = urlsplit(target)
    except ValueError:
        return  # no valid URL: left unchanged, it matches no path
    if parts.scheme in ("http", "https") and parts.netloc:
        scope["path"] = unquote(parts.path) or "/"
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*others, (b"host", parts.netloc.encode("latin-1"))]


async def _drain(scope: Scope, receive: Receive) -> None:
    """Read and drop the body. Closing a connection with unread data may cost the client our answer."""
    headers = Headers(scope=scope)
    if "content-length" in headers or "transfer-encoding" in headers:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_read_body(receive), DRAIN_S)


async def _read_body(receive: Receive) -> None:
    left = DRAIN_BYTES
    message: Message = {"more_body": True}
    while left > 0 and message.get("more_body", False):
        message = await receive()
        left -= len(message.get("body", b""))


def _add_headers(message: Message, protection: Protection) -> None:
    headers = MutableHeaders(scope=message)
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("X-Content-Type-Options", "nosniff")
    for name, value in protection.headers.items():
        headers[name] = value


async def _send_body(message: Message, send: Send) -> None:
    """Send a body in pieces, each after the client has read the one before, so that memory holds it only once."""
    body: Any = memoryview(message.get("body", b""))
    for start in range(0, len(body) or 1, _PIECE_BYTES):
        more = message.get("more_body", False) or start + _PIECE_BYTES < len(body)
        await send({"type": message["type"], "body": body[start : start + _PIECE_BYTES], "more_body": more})
        await asyncio.sleep(0)  # lets the loop notice that the client has disconnected
