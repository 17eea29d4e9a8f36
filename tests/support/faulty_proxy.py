"""A TCP proxy in front of a ZMQ server that passes, delays, cuts or falsifies the server's replies.

::

    with FaultyProxy(cluster.controller.address) as proxy:
        reader = WireMetadataReader(proxy.address)
        proxy.stall()
        ...
        proxy.heal()

It knows enough of ZMTP 3 to find the beginning and end of a reply. Everything else (greeting, handshake, requests)
passes unchanged. Source: https://rfc.zeromq.org/spec/23/.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from dataplane.net.addresses import parse_address

__all__ = ["FaultyProxy", "frame"]

_GREETING = 64
_MORE, _LONG, _COMMAND = 1, 2, 4
_CHUNK: Final = 1 << 20

_HTTP = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + b"<p>Bad gateway</p>" * 20


def frame(payload: bytes) -> bytes:
    """Return *payload* as the last frame of a ZMTP message."""
    if len(payload) > 255:
        return struct.pack(">BQ", _LONG, len(payload)) + payload
    return struct.pack(">BB", 0, len(payload)) + payload


@dataclass(frozen=True)
class _Mode:
    """The effect of a fault on connections and replies.

    Attributes:
        accepts: New connections are accepted.
        resets: Connections are reset, and new ones refused.
        flows: Bytes are passed on; otherwise they are kept back.
        delay_s: Delay of a reply.
        falsify: Maps the bytes of a reply to those that are sent instead.
        ends: The connection ends after a reply.
    """

    accepts: bool = True
    resets: bool = False
    flows: bool = True
    delay_s: float = 0.0
    falsify: Callable[[bytes], bytes] | None = None
    ends: bool = False


@dataclass(eq=False)
class _Link:
    """One connection of a client, and its connection to the server."""

    client: socket.socket
    server: socket.socket
    greeted: int = 0
    buffer: bytearray = field(default_factory=bytearray)
    reply: bytearray = field(default_factory=bytearray)


class FaultyProxy:
    """A proxy for the server at *target*. A context manager. It starts healthy; a fault lasts until the next one.

    Args:
        target: The server, ``tcp://HOST:PORT``.
        zmtp: The server speaks ZMTP. Otherwise replies pass unchanged, and only faults on all bytes have an effect.

    Attributes:
        address: Where it listens, ``tcp://127.0.0.1:PORT``.
        replies: How many replies of the server it has seen.
    """

    def __init__(self, target: str, *, zmtp: bool = True) -> None:
        self._zmtp = zmtp
        self._target = parse_address(target)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # Bound to an explicit number: only then does Linux keep the port for a socket that does not listen for a while.
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.address = f"tcp://127.0.0.1:{port}"
        self._listener.setblocking(False)
        self.replies = 0
        self._mode = _Mode()
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    # The faults

    def heal(self) -> None:
        """Pass everything, including what was kept back."""
        self._set(_Mode())

    def stall(self) -> None:
        """Accept connections, but pass nothing in either direction."""
        self._set(_Mode(flows=False))

    def drop(self) -> None:
        """Be a black hole: accept no connection and pass nothing. One client gets into the accept queue."""
        self._set(_Mode(accepts=False, flows=False))

    def reset(self) -> None:
        """Reset every connection and refuse new ones, as the kernel does for a process that died."""
        self._set(_Mode(resets=True))

    def delay(self, seconds: float) -> None:
        """Delay each reply by *seconds*. With more than a client's deadline, it is too late."""
        self._set(_Mode(delay_s=seconds))

    def truncate(self) -> None:
        """End the connection in the middle of a reply."""
        self._set(_Mode(falsify=lambda reply: reply[: len(reply) // 2], ends=True))

    def garbage(self) -> None:
        """Answer without ZMTP: with a web server's error page."""
        self._set(_Mode(falsify=lambda _: _HTTP))

    def replace(self, payload: Callable[[bytes], bytes]) -> None:
        """Answer with a well-formed frame whose content is *payload* applied to the reply."""
        self._set(_Mode(falsify=lambda reply: frame(payload(_payload(reply)))))

    def swap(self) -> None:
        """Answer every request with the last reply to another kind of request, or its own while there is none."""
        last: dict[str, bytes] = {}

        def other(reply: bytes) -> bytes:
            kind = "list" if _is_listing(reply) else "partitions"
            last[kind] = reply
            return last.get("partitions" if kind == "list" else "list", reply)

        self._set(_Mode(falsify=other))

    def flood(self, size: int) -> None:
        """Answer requests for a listing with a frame of *size* zero bytes."""
        endless = frame(bytes(size))
        self._set(_Mode(falsify=lambda reply: endless if _is_listing(reply) else reply))

    # The machinery: one thread accepts, two move the bytes of each connection

    def close(self) -> None:
        """End every connection and free the address. Idempotent."""
        self._stopping.set()
        self._acceptor.join()
        self._listener.close()
        for link in list(self._links):
            self._end(link)

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set(self, mode: _Mode) -> None:
        with self._lock:
            self._mode = mode
            if mode.resets:
                self._listener.shutdown(socket.SHUT_RDWR)  # it keeps the port but stops listening
            else:
                self._listener.listen(64 if mode.accepts else 0)
        while mode.resets and self._links:
            for link in list(self._links):
                self._end(link, reset=True)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with self._lock, contextlib.suppress(OSError):  # the peer is gone or was never there
                if self._mode.accepts and not self._mode.resets:
                    self._connect(self._listener.accept()[0])
                    continue
            self._stopping.wait(0.005)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=10)
        except OSError:
            _close(client, reset=True)
            return
        server.settimeout(None)
        client.settimeout(None)
        link = _Link(client, server)
        self._links.add(link)
        for source, take in ((client, self._forward), (server, self._take_in)):
            threading.Thread(target=self._move, args=(link, source, take), daemon=True).start()

    def _move(self, link: _Link, source: socket.socket, take: Callable[[_Link, bytes], None]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while not self._stopping.is_set():
                if not self._mode.flows or not _readable(source):
                    self._stopping.wait(0.01 if not self._mode.flows else 0)
                    continue
                chunk = source.recv(_CHUNK)
                if not chunk:
                    break
                take(link, chunk)
        self._end(link)

    @staticmethod
    def _forward(link: _Link, chunk: bytes) -> None:
        link.server.sendall(chunk)

    def _take_in(self, link: _Link, chunk: bytes) -> None:
        if not self._zmtp:
            link.client.sendall(chunk)
            return
        greeting, rest = chunk[: _GREETING - link.greeted], chunk[_GREETING - link.greeted :]
        if greeting:
            link.greeted += len(greeting)
            link.client.sendall(greeting)
        link.buffer += rest
        while (taken := _take_frame(link.buffer)) is not None:
            flags, encoded = taken
            if flags & _COMMAND:
                link.client.sendall(encoded)
                continue
            link.reply += encoded
            if not flags & _MORE:
                self.replies += 1
                reply = bytes(link.reply)
                link.reply.clear()
                self._answer(link, reply)

    def _answer(self, link: _Link, reply: bytes) -> None:
        mode = self._mode
        until = time.monotonic() + mode.delay_s
        while (left := until - time.monotonic()) > 0 and not self._stopping.wait(min(left, 0.05)):
            pass
        while not self._mode.flows and not self._stopping.wait(0.01):
            pass
        link.client.sendall(reply if mode.falsify is None else mode.falsify(reply))
        if mode.ends:
            self._end(link)

    def _end(self, link: _Link, *, reset: bool = False) -> None:
        with self._lock:
            self._links.discard(link)
        _close(link.client, reset=reset)
        _close(link.server, reset=False)


def _is_listing(reply: bytes) -> bool:
    return b"KV_LIST_RESPONSE" in reply[:200]


def _readable(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(50))


def _close(sock: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _take_frame(buffer: bytearray) -> tuple[int, bytes] | None:
    """Remove the first frame from *buffer* and return its flags and bytes; None while it is incomplete."""
    if len(buffer) < 2:
        return None
    flags = buffer[0]
    head = 9 if flags & _LONG else 2
    if len(buffer) < head:
        return None
    size = struct.unpack_from(">Q", buffer, 1)[0] if flags & _LONG else buffer[1]
    if len(buffer) < head + size:
        return None
    encoded = bytes(buffer[: head + size])
    del buffer[: head + size]
    return flags, encoded


def _payload(reply: bytes) -> bytes:
    """Return the first frame of a reply without its header."""
    taken = _take_frame(bytearray(reply))
    assert taken is not None
    flags, encoded = taken
    return encoded[9:] if flags & _LONG else encoded[2:]
