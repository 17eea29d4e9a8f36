"""The HTTP server: starlette on uvicorn, on a thread of its own, with one request per connection.

uvicorn gets no listening socket: it has no hook for how connections are accepted, so that is done here. When all slots
are in use, the server stops accepting. When file descriptors run out, idle connections are closed. A TLS handshake
counts as a connection. Each new connection uses the latest certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import uvicorn

from dataplane.net.addresses import join_host_port
from exporter.config import Listen
from exporter.health import Health, listen_for_checks, serve_health
from exporter.model.history import History
from exporter.model.snapshot import Snapshot
from exporter.web.access import Access
from exporter.web.front import Front
from exporter.web.guard import Guard
from exporter.web.hosts import AllowedHosts
from exporter.web.limits import Slot, Slots
from exporter.web.protocol import MAX_HEAD_BYTES, ClientProtocol
from exporter.web.recorded import Recorded, Replay
from exporter.web.routes import AskGroups, Scrape, make_replay_router, make_router
from exporter.web.threads import in_daemon_thread

__all__ = ["ListenError", "WebServer"]

logger = logging.getLogger(__name__)

_BACKLOG: Final = 128
_STOP_S: Final = 2.0
_TICK_S: Final = 1.0  # as often as the time in the header changes
_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


# asyncio keeps a buffer of 256 KiB per TLS connection: 32 MB when every slot is in a handshake. No TLS record is longer
# than 16 KiB.
SSLProtocol.max_size = 16 * 1024  # type: ignore[attr-defined]  # missing in typeshed, and in Python 3.10 without effect


class ListenError(OSError):
    """The server cannot listen on the address. ``strerror`` says which one and why."""


class WebServer:
    """Serves ``/metrics``, ``/healthz``, ``/readyz``, ``/api/v1/{snapshot,conditions,groups}`` and ``/``.

    Args:
        listen: Where to listen; port 0 takes any free one.
        scrape: Returns the exposition.
        snapshot: Returns the latest snapshot.
        alive: Whether the poll loop runs.
        history: The history that the live page draws.
        about: Returns as JSON what the exporter says of itself.
        guard: TLS, users and headers.
        page: Whether ``/`` is the live page.
        recorded: The run on disk, for the live page.
        replay: A recording that is shown instead of all that is live.
        groups: Answers questions about groups; None shows none.
        allowed_hosts: Host names that clients may use in addition to those that are always accepted.
        refused_login: Called for each request whose user name or password is wrong.

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
        about: Callable[[], bytes] | None = None,
        guard: Guard | None = None,
        page: bool = True,
        recorded: Recorded | None = None,
        replay: Replay | None = None,
        groups: AskGroups | None = None,
        allowed_hosts: Iterable[str] = (),
        refused_login: Callable[[], None] = lambda: None,
    ) -> None:
        self._listen = listen
        self._guard = guard or Guard(None)
        self.scheme = "http" if self._guard.current().tls is None else "https"
        if replay is not None:
            router = make_replay_router(replay)
        else:
            router = make_router(
                scrape,
                snapshot,
                alive,
                history=history,
                about=about,
                address=self._address,
                scheme=self.scheme,
                page=page,
                recorded=recorded,
                groups=groups,
            )
        slots = Slots()
        app = Front(Access(router, AllowedHosts((listen.host, *allowed_hosts)), refused_login), slots)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=ClientProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # this module and Front log instead
            access_log=False,
            proxy_headers=False,
            server_header=False,
            # One request per connection: its slot is free once the answer is read, and the next request is checked
            # against the protection then in force.
            headers=[("Server", "tq-exporter"), ("Connection", "close")],
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._server = _Server(config, slots, self._guard, lambda: Health(alive(), snapshot().ready))
        self._listener: socket.socket | None = None
        self._serving: threading.Thread | None = None

    def listen(self) -> tuple[str, int]:
        """Bind the address without answering yet, and return the host and port in use.

        Raises:
            ListenError: The server cannot listen on the address.
        """
        try:
            self._listener = self._server.listener = _bind(self._listen)
        except OSError as error:
            why = str(error.strerror or error).partition(" (while attempting")[0]  # create_server repeats the address
            reason = f"cannot listen on {self._listen}: {why}"
            raise ListenError(error.errno, reason) from error
        host, port = self._listener.getsockname()[:2]
        return host, port

    def _address(self) -> str:
        assert self._listener is not None, "listen() comes first"
        return join_host_port(*self._listener.getsockname()[:2])

    def start(self) -> None:
        """Answer from a background thread."""
        assert self._listener is not None, "listen() comes first"
        # Outside the main thread uvicorn sets no signal handlers.
        self._serving = threading.Thread(target=self._server.run, args=([],), name="web", daemon=True)
        self._serving.start()

    def stop(self) -> None:
        """Stop listening and close all connections. Does nothing when it does not listen."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._server.end()
        if self._serving is not None:
            self._serving.join(_STOP_S)
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which accepts connections from :attr:`listener` in our own way."""

    listener: socket.socket

    def __init__(self, config: uvicorn.Config, slots: Slots, guard: Guard, health: Callable[[], Health]) -> None:
        super().__init__(config)
        self._slots = slots
        self._guard = guard
        self._health = health
        self._checks: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def end(self) -> None:
        """End the server. From any thread."""
        self.should_exit = True
        with contextlib.suppress(RuntimeError):  # its loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._ending.set)

    async def main_loop(self) -> None:
        """See uvicorn, which looks ten times a second: a third of the CPU time of an exporter with little to do."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # which sets the time in the answers' header
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _TICK_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self._accepting = asyncio.create_task(self._accept())
        try:
            listener = listen_for_checks()
        except OSError as error:
            logger.warning("tq-exporter healthcheck will not find this exporter: %s", error)
            return
        self._checks = asyncio.create_task(serve_health(listener, self._report))
        # Also when it is cancelled before it has begun.
        self._checks.add_done_callback(lambda _: listener.close())

    def _report(self) -> Health:
        health = self._health()
        return health._replace(alive=health.alive and not self._accepting.done())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn. Does not wait for open connections."""
        self._accepting.cancel()
        if self._checks is not None:
            self._checks.cancel()
        self._slots.end_all()
        self.force_exit = True
        await super().shutdown(sockets)

    async def _accept(self) -> None:
        while True:
            try:
                accepted, address = await asyncio.get_running_loop().sock_accept(self.listener)
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    logger.warning("cannot accept a connection: %s", error.strerror)
                    self._slots.shed()
                    await asyncio.sleep(0.05)  # the client still waits: no busy loop
                continue
            slot = await self._slots.take(address[0], partial(_abort, accepted))
            task = asyncio.create_task(self._open(accepted, slot))
            self.server_state.tasks.add(task)
            task.add_done_callback(self.server_state.tasks.discard)

    async def _open(self, accepted: socket.socket, slot: Slot) -> None:
        """Begin a connection and pass it to its protocol."""
        try:
            # Reading files hangs when their disk hangs: then only this connection waits.
            protection = await in_daemon_thread(self._guard.current) if self._guard.has_file else self._guard.current()
            protocol = partial(ClientProtocol, self.config, self.server_state, self._slots, slot, protection)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(protocol, accepted, ssl=protection.tls)
        except OSError as error:  # a TLS error is one
            logger.debug("the connection of %s ended early: %s", slot.host, getattr(error, "reason", None) or error)
            self._slots.free(slot)
            accepted.close()
            error.__traceback__ = None  # its frames and the connection refer to each other: a leak


def _abort(accepted: socket.socket) -> None:
    """End a connection whose protocol has not begun: its reader sees the end of the stream and closes it."""
    try:
        accepted.shutdown(socket.SHUT_RDWR)
    except OSError:  # it ended by itself
        logger.debug("a connection ended before it was closed")


def _bind(listen: Listen) -> socket.socket:
    """Return a listening socket; a name with IPv4 and IPv6 addresses means IPv4, and "::" also accepts IPv4."""
    found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    listener.setblocking(False)
    return listener
