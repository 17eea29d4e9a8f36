"""The HTTP server, on the standard library: a few read-only paths need no framework.

One thread per connection, of which there are at most :data:`MAX_CONNECTIONS`, and one request per connection, with a
limit on its length and on the time that it takes. :mod:`exporter.web.connections` says who goes when one more comes.
TLS shakes hands in the connection's own thread, so that a slow client cannot hold up the next.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import io
import logging
import re
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from exporter.config import Listen
from exporter.model.history import History
from exporter.model.snapshot import Snapshot
from exporter.web.auth import HEALTH_PATHS, HEALTH_SCHEME, BasicAuth, TooManyChecksError
from exporter.web.connections import Connections, Stage
from exporter.web.guard import Guard, Protection
from exporter.web.routes import Reply, Routes, Scrape, plain
from exporter.web.tls import has_allowed_name

__all__ = ["MAX_CONNECTIONS", "MAX_HEAD_BYTES", "ListenError", "WebServer"]

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 128
"""Connections that are served at the same time."""
MAX_ANSWERS: Final = 4
"""Answers that are made at the same time. More would make none of them faster, and the polls beside them slower."""
MAX_HEAD_BYTES: Final = 16 * 1024
"""The longest request line with all headers."""

_ASKING_S: Final = 10.0
_SENDING_S: Final = 10.0
_DRAIN_S: Final = 1.0
_DRAIN_BYTES: Final = 1024 * 1024
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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
        guard: TLS, users and headers.
        page: Whether ``/`` is the live page.

    Attributes:
        scheme: ``http`` or ``https``, as it was at the start.
    """

    def __init__(
        self,
        listen: Listen,
        *,
        scrape: Scrape,
        snapshot: Callable[[], Snapshot],
        alive: Callable[[], bool],
        history: History | None = None,
        guard: Guard | None = None,
        page: bool = True,
    ) -> None:
        self._listen = listen
        self._guard = guard or Guard(None)
        self.scheme = "http" if self._guard.current().tls is None else "https"
        self._routes = Routes(
            scrape, snapshot, alive, history=history, address=self._address, scheme=self.scheme, page=page
        )
        self._server: _Server | None = None
        self._serving: threading.Thread | None = None

    def listen(self) -> tuple[str, int]:
        """Take the address, without answering yet, and return the host and port in use.

        Raises:
            ListenError: The address cannot be had.
        """
        try:
            self._server = _Server(self._listen, self._routes, self._guard)
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
            server.connections.close()  # first: the accepting thread may wait for one of them
            if self._serving is not None:
                server.shutdown()
            server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Not ``http.server.HTTPServer``, which looks up the host's name when it binds: that may take minutes."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, listen: Listen, routes: Routes, guard: Guard) -> None:
        self.routes = routes
        self.basic_auth = BasicAuth()
        self.answers = threading.BoundedSemaphore(MAX_ANSWERS)
        self.connections = Connections(MAX_CONNECTIONS)
        self._guard = guard
        self.address_family, address = _resolve(listen)
        super().__init__(address, socketserver.BaseRequestHandler)  # made in finish_request

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" is IPv4 as well
        super().server_bind()

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                logger.warning("cannot accept a connection: %s", error.strerror)
                self.connections.shed()
                time.sleep(0.05)  # whoever waits is still there, and would make this loop spin
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request, client_address[0])
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in its own thread."""
        protection = self._guard.current()
        request.settimeout(_ASKING_S)
        if protection.tls is None:
            _Handler(request, client_address, self, protection, partial(self.connections.enter, request))
            return
        wrapped = protection.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with wrapped:
            self.connections.replace(request, wrapped)
            wrapped.do_handshake()
            if not has_allowed_name(wrapped.getpeercert(), protection.client_allowed_sans):
                logger.debug("the certificate of %s has no name that is let in", client_address)
                return
            _Handler(wrapped, client_address, self, protection, partial(self.connections.enter, request))
            _say_goodbye(wrapped)
            self.connections.remove(request)

    def shutdown_request(self, request: Any) -> None:
        self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, ssl.SSLError):
            logger.debug("the connection of %s ended early: %s", client_address, error.reason)
        elif isinstance(error, OSError):
            logger.debug("the connection of %s ended early", client_address)
        else:
            logger.exception("serving %s failed", client_address)


class _Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.0: one request per connection."""

    server: _Server
    default_request_version = "HTTP/1.0"  # the base class answers what it cannot read without a status line
    server_version = "tq-exporter"
    sys_version = ""
    disable_nagle_algorithm = True

    def __init__(
        self, connection: Any, client: Any, server: _Server, protection: Protection, enter: Callable[[Stage], None]
    ) -> None:
        self._protection = protection
        self._enter = enter
        super().__init__(connection, client, server)

    def handle(self) -> None:
        """Read one request, ask who sends it, and answer."""
        head = self._read_head()
        if head is None:
            return
        self.rfile.close()
        self.rfile = io.BufferedReader(io.BytesIO(head))
        self.raw_requestline = self.rfile.readline()
        self._enter("answering")
        if not self.parse_request():
            return
        path = self.path.partition("?")[0]
        try:
            allowed = self._is_allowed(path)
        except TooManyChecksError:
            self._send(plain(HTTPStatus.SERVICE_UNAVAILABLE)._replace(headers=(("Retry-After", "1"),)))
            return
        if not allowed:
            challenge = ("WWW-Authenticate", 'Basic realm="tq-exporter", charset="UTF-8"')
            self._send(plain(HTTPStatus.UNAUTHORIZED)._replace(headers=(challenge,)))
        elif self.command not in ("GET", "HEAD"):
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            with self.server.answers:
                reply = self.server.routes.answer(path, self.headers.get("Accept"), self.headers.get("Host"))
            self._send(reply)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what cannot be served, in plain text that repeats nothing of it."""
        status = HTTPStatus(code)
        allow = (("Allow", "GET, HEAD"),) if status is HTTPStatus.METHOD_NOT_ALLOWED else ()
        self._send(plain(status)._replace(headers=allow))
        self._drain()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log a request without what may be secret in it: its query and its headers."""
        path = getattr(self, "path", "")
        shown = path.partition("?")[0] if path.startswith("/") else "(something else)"
        logger.debug("%s %r %s", self.client_address[0], f"{self.command or '-'} {shown}", int(code))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing of what the base class would."""

    def _read_head(self) -> bytes | None:
        """Return the request line and the headers; None when there is nothing to answer.

        Raises:
            OSError: The client was too slow, or is gone.
        """
        deadline = time.monotonic() + _ASKING_S
        head = bytearray()
        while not _END_OF_HEAD.search(head, max(0, len(head) - 4096 - 2)):
            if len(head) > MAX_HEAD_BYTES:
                self.command, self.requestline, self.request_version = "", "", "HTTP/1.0"
                first_line_ends = b"\n" in head
                self.send_error(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if first_line_ends else HTTPStatus.REQUEST_URI_TOO_LONG
                )
                return None
            self.connection.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self.connection.recv(4096)
            if not chunk:
                return None
            head += chunk
        return bytes(head)

    def _is_allowed(self, path: str) -> bool:
        if not self._protection.users:
            return True
        given = self.headers.get("Authorization")
        if given is not None and path in HEALTH_PATHS:
            scheme, _, token = given.partition(" ")
            if scheme == HEALTH_SCHEME and hmac.compare_digest(token.encode(), self._protection.health_token.encode()):
                return True
        return self.server.basic_auth.check(self._protection.users, given, self.client_address[0])

    def _send(self, reply: Reply) -> None:
        self._enter("sending")
        self.connection.settimeout(_SENDING_S)
        self.send_response(reply.status)
        headers = {
            "Content-Type": reply.content_type,
            "Content-Length": str(len(reply.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **dict(reply.headers),
            **self._protection.headers,
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _drain(self) -> None:
        """Read what was not: closing a connection with unread data may cost the client our answer."""
        self._enter("asking")
        connection: socket.socket = self.connection
        if isinstance(connection, ssl.SSLSocket):
            _say_goodbye(connection)
        # From here on only bytes count, not what they mean: the plain socket's methods, also under TLS.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        deadline = time.monotonic() + _DRAIN_S
        left = _DRAIN_BYTES
        while left > 0 and (patience := deadline - time.monotonic()) > 0:
            connection.settimeout(patience)
            chunk = socket.socket.recv(connection, 65536)
            if not chunk:
                return
            left -= len(chunk)


def _say_goodbye(connection: ssl.SSLSocket) -> None:
    """End TLS in order, without waiting for the other side to do the same."""
    connection.settimeout(0)
    with contextlib.suppress(OSError, ValueError):
        connection.unwrap()


def _resolve(listen: Listen) -> tuple[socket.AddressFamily, Any]:
    """Return family and socket address; a name that means both is taken as IPv4."""
    found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return family, address
