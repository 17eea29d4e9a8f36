"""The HTTP server, on the standard library: five read-only paths need no framework.

One thread per connection, of which there are at most :data:`MAX_CONNECTIONS`; when one more comes, the oldest is
closed. So clients that send or read slowly, however many, cannot keep a scrape out.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from exporter.config import Listen
from exporter.history import History
from exporter.snapshot import Snapshot
from exporter.web.routes import Reply, Routes, Scrape, plain

__all__ = ["MAX_CONNECTIONS", "ListenError", "WebServer"]

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 32
"""Connections that are served at the same time."""

_IDLE_S: Final = 10.0


class ListenError(OSError):
    """The address to listen on cannot be had. ``strerror`` says which and why."""


class WebServer:
    """Serves ``/metrics``, ``/healthz``, ``/readyz``, ``/api/v1/snapshot`` and ``/``.

    Args:
        listen: Where to listen; port 0 takes any free one.
        scrape: Gives the exposition and its content type for an ``Accept`` header.
        snapshot: Gives the snapshot now in force.
        alive: Whether the poll loop runs.
        history: The past that the live page draws.
    """

    def __init__(
        self,
        listen: Listen,
        *,
        scrape: Scrape,
        snapshot: Callable[[], Snapshot],
        alive: Callable[[], bool],
        history: History | None = None,
    ) -> None:
        self._listen = listen
        self._routes = Routes(scrape, snapshot, alive, history=history, address=self._address)
        self._server: _Server | None = None
        self._serving: threading.Thread | None = None

    def listen(self) -> tuple[str, int]:
        """Take the address, without answering yet, and return the host and port in use.

        Raises:
            ListenError: The address cannot be had.
        """
        try:
            self._server = _Server(self._listen, self._routes)
        except OSError as error:
            reason = f"cannot listen on {self._listen}: {error.strerror or error}"
            raise ListenError(error.errno, reason) from error
        host, port = self._server.socket.getsockname()[:2]
        return host, port

    def _address(self) -> str:
        assert self._server is not None, "listen() comes first"
        host, port = self._server.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Answer from a background thread."""
        assert self._server is not None, "listen() comes first"
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="web", daemon=True)
        self._serving.start()

    def stop(self) -> None:
        """Stop listening and close what is open. Does nothing when it does not listen."""
        server, self._server = self._server, None
        if server is not None:
            if self._serving is not None:
                server.shutdown()
            server.server_close()
            server.close_all()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Not ``http.server.HTTPServer``, which looks up the host's name when it binds: that may take minutes."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, listen: Listen, routes: Routes) -> None:
        self.routes = routes
        self._open: dict[socket.socket, None] = {}  # in the order of arrival
        self._open_lock = threading.Lock()
        self.address_family, address = _resolve(listen)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" is IPv4 as well
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            if len(self._open) >= MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                _abort(oldest)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def close_all(self) -> None:
        """End every open connection."""
        with self._open_lock:
            for connection in self._open:
                _abort(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exc_info()[1], OSError):
            logger.debug("the connection of %s ended early", client_address)
        else:
            logger.exception("serving %s failed", client_address)


class _Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.0: one request per connection."""

    server: _Server
    default_request_version = "HTTP/1.0"  # the base class answers what it cannot read without a status line
    server_version = "tq-exporter"
    sys_version = ""
    timeout = _IDLE_S  # for a read, and for the whole of a write
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self._send(self.server.routes.answer(path, self.headers.get("Accept"), self.headers.get("Host")))

    do_HEAD = do_GET  # noqa: N815 - named by the base class

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base class could not make sense of, in plain text that repeats nothing of it."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:  # a method without a do_…
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(plain(status))

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s %r", self.address_string(), format % args)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in reply.headers:
            self.send_header(name, value)
        if reply.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)


def _resolve(listen: Listen) -> tuple[socket.AddressFamily, Any]:
    """Return family and socket address; a name that means both is taken as IPv4."""
    found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, address


def _abort(connection: socket.socket) -> None:
    """End a connection that another thread reads or writes; that thread then closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it ended by itself
        logger.debug("a connection ended before it was closed")
