"""One peer of TransferQueue's request protocol: a socket with deadlines, on which no reply answers a later request.

Replies do not echo their request's id; only their order shows which request they answer. So a connection carries one
request at a time. While one is unanswered it sends no other: a late reply is received and dropped first. A stalled peer
that continues thus finds no queue of our requests, and no accept queue full of our sockets.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import zmq
from zmq.utils.monitor import recv_monitor_message

from dataplane.adapters.wire.limits import ReplyLimitExceeded
from dataplane.adapters.wire.protocol import Reply, encode_request
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
)
from dataplane.net.addresses import join_host_port, parse_address
from dataplane.net.probe import ConnectionProbe, is_unknown_name
from dataplane.net.received import ReceivedBytes
from dataplane.net.resolver import Resolver

__all__ = ["KnownSender", "WireConnection"]

# A closed connection, and a reply of too many frames, is noticed by a waiting call after this long.
_SLICE_S: Final = 0.02
# How long an unanswered request may keep its socket. A lost request also ends the connection, which the monitor reports
# at once; this limit is for an end that was missed.
_ABANDON_AFTER_S: Final = 60.0
# How long a verdict may take beyond the deadline; only the first one about a silent peer takes that long.
_VERDICT_S: Final = 0.2

# A request whose connection ended so soon after it was sent is sent once more. Not later: the controller may have
# processed it by then.
_SOON_S: Final = 0.1

# What a reply takes on the connection beside its frames: their headers, and the handshake.
_FRAMING_BYTES: Final = 64 * 2**10

_T = TypeVar("_T")

_EVENTS: Final = zmq.Event.CONNECTED | zmq.Event.CLOSED | zmq.Event.DISCONNECTED | zmq.Event.CONNECT_RETRIED

# ZMQ reports a reconnect at once, unless it ended the connection itself because of a message that was too large or
# invalid. This is how long the report may take on a busy machine.
_RETRY_MS: Final = 500

# ZMQ reconnects while the socket is open, also between calls, and the unread events pile up. A socket whose connection
# ended is never used again, so this only matters for a call that waits for a host that neither answers nor refuses.
_RECONNECT_MS: Final = 1_000
_RECONNECT_AT_MOST_MS: Final = 10_000


class _Channel:
    """One DEALER socket with its monitor.

    Attributes:
        sent_at: When its unanswered request was sent; None when no reply is due.
        is_known: Whether the known sender has answered on it.
        received: Counts the bytes of its connection; None until there is one.
        event: An event of the monitor that was seen and not acted on.
    """

    _numbers = itertools.count()

    def __init__(self, address: str, identity: str, max_reply_bytes: int) -> None:
        self.sent_at: float | None = None
        self.is_known = False
        self.received: ReceivedBytes | None = None
        self.event: zmq.Event | None = None
        self._before = 0
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        try:
            self._connect(address, identity, max_reply_bytes)
        except zmq.ZMQError:
            self.socket.close()
            raise

    def _connect(self, address: str, identity: str, max_reply_bytes: int) -> None:
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, max_reply_bytes),
            (zmq.RCVHWM, 1),  # one request, one reply
            # A stopped peer completes no handshake. Retries would fill its accept queue.
            (zmq.HANDSHAKE_IVL, 0),
            (zmq.RECONNECT_IVL, _RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_AT_MOST_MS),
            # Detects within half a minute a host that vanished without closing.
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, 10),
            (zmq.TCP_KEEPALIVE_INTVL, 5),
            (zmq.TCP_KEEPALIVE_CNT, 3),
            (zmq.IPV6, int("[" in address)),
        ):
            self.socket.setsockopt(option, value)
        # A ROUTER ignores a second peer with an identity that is still in use, so each channel has its own.
        number = next(self._numbers)
        self.socket.setsockopt(zmq.IDENTITY, f"{identity}_{number}".encode())
        self.monitor = self._watch(f"inproc://tq-exporter-{number}")
        self.poller = zmq.Poller()
        self.poller.register(self.socket, zmq.POLLIN)
        self.poller.register(self.monitor, zmq.POLLIN)
        self.socket.connect(address)

    def _watch(self, address: str) -> zmq.Socket[bytes]:
        """Return the socket for :data:`_EVENTS`, whose queue of unread events is unlimited.

        ZMQ's I/O thread for all our sockets also writes the events, and blocks when the queue is full. So 500 failed
        connects of one idle reader would block every other reader of this process, and closing that one would hang.
        """
        self.socket.monitor(address, _EVENTS)
        monitor: zmq.Socket[bytes] = self.socket.context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(address)
        return monitor

    def is_ready(self) -> bool:
        """Whether a request may be sent: no reply is due, none came unexpectedly, and the connection never ended."""
        while self.event is None and self.monitor.poll(0):
            self.event = self.next_event()
        if self.event is not None:
            return False
        return self.sent_at is None and not self.poller.poll(0)

    def next_event(self) -> zmq.Event | None:
        """Return the next event of the monitor, None for a connection that was made, whose bytes are counted now."""
        waiting, self.event = self.event, None
        if waiting is not None:
            return waiting
        message = recv_monitor_message(self.monitor, zmq.NOBLOCK)
        event = zmq.Event(message["event"])
        if event != zmq.Event.CONNECTED:
            self.received = None
            return event
        self.received = ReceivedBytes(message["value"])
        return None

    def send(self, request: bytes) -> None:
        self.socket.send(request, zmq.NOBLOCK)
        self.sent_at = time.monotonic()
        self._before = self.received.count() if self.received else 0

    def reply_bytes(self) -> int:
        """Return how many bytes have come since the request was sent, 0 while there is no connection."""
        return self.received.count() - self._before if self.received else 0

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()


class KnownSender:
    """The sender id that a peer's replies must have, if it is known. Connections to one peer share it.

    A controller that loads a checkpoint continues under the checkpoint's id. The new id is accepted on a connection
    that has carried a reply under the old id, since the peer is the same process. It then applies to all connections.

    Args:
        id: The id that replies must carry; None accepts any.
        met: False accepts the first reply's id in place of *id*: for a peer whose address was asked for just now, and
            which may have loaded a checkpoint before.
    """

    def __init__(self, id: str | None, *, met: bool = True) -> None:
        self.id = id
        self.met = met


class _ConnectionEnded(Exception):
    """The connection ended before the reply, but the peer exists. *soon*: right after the request was sent."""

    def __init__(self, soon: bool) -> None:
        super().__init__(soon)
        self.soon = soon


class WireConnection:
    """Exchanges requests and replies with one controller or storage unit. Thread-safe, one exchange at a time.

    Args:
        address: ``tcp://HOST:PORT``.
        peer: What the peer is, for messages: ``controller`` or ``storage unit``.
        identity_prefix: Start of the socket's identity and of ``sender_id``; peers may check it.
        sender: The sender that must answer.
        max_reply_bytes: A larger reply ends the connection.

    Raises:
        ValueError: The address is not of that form.
    """

    def __init__(
        self, address: str, *, peer: str, identity_prefix: str, sender: KnownSender, max_reply_bytes: int
    ) -> None:
        host, self._port = parse_address(address)
        self.address = address
        self.last_sender_id: str | None = None
        self.seconds = 0.0
        self._peer = peer
        self._sender = sender
        self._identity = f"{identity_prefix}{socket.gethostname()[:64]}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self._max_reply_bytes = max_reply_bytes
        self._resolver = Resolver(host)
        self._probe = ConnectionProbe(address, resolver=self._resolver)
        self._channel: _Channel | None = None
        self._lock = threading.Lock()
        self._closed = False

    def call(
        self,
        request_type: str,
        body: Mapping[str, Any],
        decode: Callable[[memoryview], Reply[_T]],
        *,
        timeout_s: float,
        operation: str,
        partition_id: str | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> _T:
        """Send a request and return its reply, whose first frame *decode* decodes. See :meth:`call_frames`."""
        return self.call_frames(
            request_type,
            body,
            lambda frames: decode(frames[0]),
            timeout_s=timeout_s,
            operation=operation,
            partition_id=partition_id,
            meanwhile=meanwhile,
        )

    def call_frames(
        self,
        request_type: str,
        body: Mapping[str, Any],
        decode: Callable[[Sequence[memoryview]], Reply[_T]],
        *,
        timeout_s: float,
        operation: str,
        partition_id: str | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> _T:
        """Send a request and return its reply, decoded by *decode*. Errors have *operation* and *partition_id*.

        The frames after the first one are the buffers of tensors. *meanwhile* is called while the peer works on it.

        Raises:
            DataPlaneUnavailable: The peer is gone, another one answers in its place, or this connection is closed.
            DataPlaneTimeout: The peer exists but does not answer.
            DataPlaneReadError: The peer reported an error, or its reply cannot be read; ReplyLimitExceeded when it is
                too large.
            DataPlaneBadRequest: The protocol cannot express *body*.
        """
        try:
            timeout_s = max(timeout_s, 0.0)
            deadline = time.monotonic() + timeout_s
            try:
                request = encode_request(request_type, self._identity, body)
            except (UnicodeEncodeError, OverflowError) as error:
                raise DataPlaneBadRequest(f"cannot be sent: {error}") from error
            if not self._lock.acquire(timeout=timeout_s):
                raise DataPlaneTimeout(f"another call to {self._where} was still waiting after {timeout_s:g} s")
            try:
                frames, channel = self._round_trip(request, deadline, timeout_s, meanwhile)
            finally:
                self._lock.release()
            reply = decode(frames)  # May take a while: without the lock, so that other threads can call.
            self.last_sender_id = reply.sender_id
            self._check_sender(reply.sender_id, channel)
            return reply.body
        except DataPlaneError as error:
            error.operation, error.partition_id = operation, partition_id
            raise

    def _check_sender(self, sender_id: str, channel: _Channel) -> None:
        if self._sender.id is None:
            return
        if channel.is_known or not self._sender.met:
            self._sender.id, self._sender.met = sender_id, True
        elif sender_id != self._sender.id:
            raise DataPlaneUnavailable(
                f"{self._where} is {sender_id[:100]}, which replaced the expected {self._sender.id}"
            )
        channel.is_known = True

    def close(self) -> None:
        """Close the sockets, idempotently. A waiting call and every later one raise DataPlaneUnavailable."""
        self._closed = True
        with self._lock:
            self._discard()
            self._probe.close()

    @property
    def _where(self) -> str:
        return f"the {self._peer} at {self.address}"

    def _round_trip(
        self, request: bytes, deadline: float, timeout_s: float, meanwhile: Callable[[], object] | None
    ) -> tuple[list[memoryview], _Channel]:
        try:
            return self._exchange(request, deadline, timeout_s, meanwhile)
        except _ConnectionEnded as ended:
            if not ended.soon:
                raise self._cut_off() from ended
        # It may have ended before the request was sent, because the controller was replaced.
        try:
            return self._exchange(request, deadline, timeout_s, meanwhile)
        except _ConnectionEnded as ended:
            raise self._cut_off() from ended

    def _exchange(
        self, request: bytes, deadline: float, timeout_s: float, meanwhile: Callable[[], object] | None
    ) -> tuple[list[memoryview], _Channel]:
        self._settle(deadline, timeout_s)
        if self._closed:
            raise DataPlaneUnavailable("this reader is closed")
        try:
            if self._channel is None:
                self._channel = self._open(self._resolve(deadline, timeout_s))
            channel = self._channel
            channel.send(request)
        except zmq.ZMQError as error:
            self._discard()
            raise DataPlaneUnavailable(f"cannot send to {self._where}: {error}") from error
        sent_at = time.monotonic()
        if meanwhile is not None:
            meanwhile()
        frames = self._receive(channel, deadline, timeout_s)
        self.seconds += time.monotonic() - sent_at
        channel.sent_at = None
        return frames, channel

    def _resolve(self, deadline: float, timeout_s: float) -> str:
        """Return the address with a numeric host: ZMQ would look a name up on its I/O thread and block it."""
        while not self._closed:
            wait_s = min(_SLICE_S, deadline - time.monotonic())
            try:
                host = self._resolver.resolve(wait_s)
            except OSError as error:
                reason = f"the name {self._resolver.host} cannot be resolved: {error.strerror or error}"
                if is_unknown_name(error):
                    raise DataPlaneUnavailable(f"{self._where} is gone: {reason}") from error
                raise DataPlaneTimeout(f"{self._where} cannot be connected to: {reason}") from error
            if host is not None:
                return f"tcp://{join_host_port(host, self._port)}"
            if wait_s <= 0:
                raise DataPlaneTimeout(
                    f"{self._where} cannot be connected to: the name {self._resolver.host} was not resolved within "
                    f"{timeout_s:g} s"
                )
        raise DataPlaneUnavailable("this reader is closed")

    def _open(self, address: str) -> _Channel:
        try:
            return _Channel(address, self._identity, self._max_reply_bytes)
        except zmq.ZMQError as error:  # for example no free file descriptor: not the peer's fault
            raise DataPlaneReadError(f"cannot ask {self._where}: no socket can be made: {error}") from error

    def _settle(self, deadline: float, timeout_s: float) -> None:
        """Make sure that a request can be sent: drop a late reply, or the channel if its connection has ended."""
        channel = self._channel
        if channel is None or channel.is_ready():
            return
        if channel.sent_at is not None and time.monotonic() - channel.sent_at < _ABANDON_AFTER_S:
            with contextlib.suppress(_ConnectionEnded):  # The reply will never come then.
                self._receive(channel, deadline, timeout_s)
        self._discard()

    def _receive(self, channel: _Channel, deadline: float, timeout_s: float) -> list[memoryview]:
        while not self._closed:
            wait_s = min(_SLICE_S, deadline - time.monotonic())
            if wait_s <= 0:
                raise self._silent(timeout_s)
            # ZMQ limits a frame, and not the number of frames: a reply is delivered when all of them are in memory.
            if channel.reply_bytes() > self._max_reply_bytes + _FRAMING_BYTES:
                raise self._too_large()
            ready = dict(channel.poller.poll(math.ceil(wait_s * 1000)))
            if channel.socket in ready:
                frames = [frame.buffer for frame in channel.socket.recv_multipart(zmq.NOBLOCK, copy=False)]
                if sum(frame.nbytes for frame in frames) > self._max_reply_bytes:
                    raise self._too_large()
                return frames
            if channel.monitor in ready or channel.event is not None:
                event = channel.next_event()
                if event is None or event == zmq.Event.CONNECT_RETRIED:
                    continue
                lost = event == zmq.Event.DISCONNECTED
                if lost and not channel.monitor.poll(_RETRY_MS):
                    raise self._too_large()
                self._check_connection(channel, lost=lost)
        raise DataPlaneUnavailable("this reader is closed")

    def _check_connection(self, channel: _Channel, *, lost: bool) -> None:
        """Raise unless a reply is still possible. *lost*: the request's connection has ended."""
        soon = channel.sent_at is not None and time.monotonic() - channel.sent_at < _SOON_S
        verdict = self._probe.verdict(_VERDICT_S, suspect=lost)
        if verdict == "gone" or (lost and verdict == "unknown"):
            self._discard()
            raise DataPlaneUnavailable(f"{self._where} is gone: the connection is refused or was reset")
        if lost:
            self._discard()
            raise _ConnectionEnded(soon)

    def _too_large(self) -> ReplyLimitExceeded:
        self._discard()
        return ReplyLimitExceeded(
            f"the reply of {self._where} is larger than {self._max_reply_bytes} bytes, or is not a message",
            limit="reply_bytes",
        )

    def _cut_off(self) -> DataPlaneReadError:
        return DataPlaneReadError(
            f"{self._where} is there but ended the connection before it had replied: it was replaced, or its reply is "
            "cut short"
        )

    def _silent(self, timeout_s: float) -> DataPlaneError:
        verdict = self._probe.verdict(_VERDICT_S)
        if verdict == "gone":
            self._discard()
            return DataPlaneUnavailable(f"{self._where} is gone: the connection is refused or was reset")
        state = "is connected and" if verdict == "connected" else "cannot be connected to in time and"
        return DataPlaneTimeout(f"{self._where} {state} did not answer within {timeout_s:g} s")

    def _discard(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None
