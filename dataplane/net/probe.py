"""Finds out whether a silent peer is gone or hangs, by a TCP connection to it.

TransferQueue's own calls hang when their peer is gone, so a deadline alone cannot distinguish a dead controller from a
stopped one.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from typing import Final, Literal

from dataplane.net.addresses import parse_address
from dataplane.net.resolver import Resolver

__all__ = ["ConnectionProbe", "Verdict", "is_unknown_name"]

Verdict = Literal["connected", "gone", "unknown"]

# The error codes when nobody listens at the address. ENOTCONN: the connection was reset before we looked at it.
# ETIMEDOUT is left out: a full accept queue gives it too.
_NOBODY_THERE: Final = frozenset(
    {errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
)


class ConnectionProbe:
    """Keeps one idle TCP connection to an address. Its state shows whether the peer still exists.

    The connection is reused for every verdict: each new one to a stopped process takes a slot of its accept queue. Once
    that is full (about a hundred), the process looks dead, to its own clients too. A connection that the kernel
    accepted counts as connected although the process never answers: it may be stopped. A plain TCP connection is used
    because it gives the reason of a failure. A live ZMQ peer drops it after its handshake interval (30 s), and the next
    verdict opens another.

    Nothing is sent, so no request of the peer is disturbed. Thread-safe. Connects at the first verdict, not before.

    Args:
        address: ``tcp://HOST:PORT``.
        resolver: Resolves the host; one of its own by default.

    Raises:
        ValueError: The address is not of that form.
    """

    def __init__(self, address: str, *, resolver: Resolver | None = None) -> None:
        self.address = address
        host, self._port = parse_address(address)
        self._resolver = resolver or Resolver(host)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._established = False
        self._closed = False

    def verdict(self, wait_s: float = 0.5, *, suspect: bool = False) -> Verdict:
        """Return the present state of the peer; never raises.

        Args:
            wait_s: Longest wait for a connection that is not established yet, with the look-up of a host name. The
                verdict on an established one is immediate, unless *suspect*.
            suspect: Another connection to the peer has just ended. When a process dies, its connections end one after
                the other, so an established one is watched for *wait_s* first.

        Returns:
            ``connected``: the connection is up, also when the peer's process is stopped. ``gone``: refused, reset,
            unreachable, disconnected without a new connection, or no such host. ``unknown``: undecided within *wait_s*,
            timed out, could not be tried, or this probe is closed.
        """
        with self._lock:
            if self._closed:
                return "unknown"
            deadline = time.monotonic() + wait_s
            if self._socket is not None and self._established:
                if self._survives(wait_s if suspect else 0.0):
                    return "connected"
                self._drop()  # Disconnected; a new connection shows whether the peer is back.
            return self._connect(deadline)

    def close(self) -> None:
        """Close the connection, idempotently. Later verdicts are ``unknown``."""
        with self._lock:
            self._closed = True
            self._drop()

    def _connect(self, deadline: float) -> Verdict:
        try:
            if self._socket is None:
                # A pending connect is kept for the next verdict: it takes seconds to find a host unreachable.
                host = self._resolver.resolve(deadline - time.monotonic())
                if host is None:
                    return "unknown"
                self._socket, code = _start_connect(host, self._port)
            else:
                code = errno.EINPROGRESS
            if code == errno.EINPROGRESS:
                if not _wait(self._socket, select.POLLOUT, deadline - time.monotonic()):
                    return "unknown"
                code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            # A connect to a free local port can reach itself: the kernel may choose the same port as its source.
            if code == 0 and self._socket.getsockname() == self._socket.getpeername():
                code = errno.ECONNREFUSED
        except OSError as error:
            code = errno.ECONNREFUSED if is_unknown_name(error) else (error.errno or errno.EIO)
        if code != 0:
            self._drop()
            return "gone" if code in _NOBODY_THERE else "unknown"
        # A live ZMQ peer greets at once and a stopped one is silent; a proxy without a backend accepts and resets.
        if not self._still_up(deadline - time.monotonic()):
            self._drop()
            return "gone"
        self._established = True
        return "connected"

    def _survives(self, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while self._still_up(deadline - time.monotonic()):
            if time.monotonic() >= deadline:
                return True
        return False

    def _still_up(self, wait_s: float) -> bool:
        assert self._socket is not None
        if not _wait(self._socket, select.POLLIN, wait_s):
            return True
        try:
            while self._socket.recv(4096):  # Greetings may lie before the end of the stream.
                pass
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._established = False


def _start_connect(host: str, port: int) -> tuple[socket.socket, int]:
    wanted, numeric = socket.AF_INET6 if ":" in host else socket.AF_INET, socket.AI_NUMERICHOST
    family, kind, protocol, _, target = socket.getaddrinfo(host, port, wanted, socket.SOCK_STREAM, flags=numeric)[0]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    # Detects within half a minute a host that vanished without closing.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock, sock.connect_ex(target)


def _wait(sock: socket.socket, event: int, wait_s: float) -> bool:
    poller = select.poll()
    poller.register(sock, event)
    return bool(poller.poll(max(0.0, wait_s) * 1000))


def is_unknown_name(error: OSError) -> bool:
    """Return whether a look-up failed because there is no host of that name."""
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
