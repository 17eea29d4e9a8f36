"""The health of an exporter on this machine: its socket, and the check of ``tq-exporter healthcheck``.

An exporter also listens on an abstract Unix socket with a random name. It needs no port, certificate, password or disk,
so a check works whatever the exporter's configuration is. ``/proc/self/net/unix`` lists the names in a network
namespace, and the kernel says which process listens on one. A process of another PID namespace has the number 0: that
is another container's exporter, for example on a shared host network, and a check ignores it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Health", "SeveralExportersError", "UnhealthyError", "check_health", "listen_for_checks", "serve_health"]

_PREFIX: Final = "tq-exporter-health-"
_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = 0.05
_CREDENTIALS: Final = struct.Struct("3i")


class UnhealthyError(Exception):
    """The exporter is unhealthy, does not answer, or is not there. ``str()`` says why."""


class SeveralExportersError(Exception):
    """Several exporters run here. ``str()`` names their process ids."""


class Health(NamedTuple):
    """The state of a running exporter.

    Attributes:
        alive: Its poll loop and its web server run.
        ready: Its first round of polls is done.
    """

    alive: bool
    ready: bool


class _Peer(NamedTuple):
    """A process as the kernel knows it; ``pid`` is 0 if it is in another PID namespace."""

    pid: int
    uid: int
    gid: int


def listen_for_checks() -> socket.socket:
    """Return a socket for :func:`serve_health`.

    Raises:
        OSError: The system has no such sockets, or no descriptor is free.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.setblocking(False)
        listener.bind(f"\0{_PREFIX}{secrets.token_hex(8)}")
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


async def serve_health(listener: socket.socket, health: Callable[[], Health]) -> None:
    """Answer checks on the running event loop, so that an answer also proves that the loop runs, until cancelled.

    Only the exporter's own user and root get an answer.

    Args:
        listener: From :func:`listen_for_checks`.
        health: Returns the present health.
    """
    import asyncio  # a check does without, and takes a third less CPU time

    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError:  # no descriptor is free: the check waits
            await asyncio.sleep(_RETRY_S)
            continue
        with connection, contextlib.suppress(OSError):  # a check that does not wait for its answer
            if _peer(connection).uid in (0, os.geteuid()):
                connection.send(json.dumps(health()).encode())


def check_health(pid: int | None = None, *, ready: bool = False) -> None:
    """Return when the exporter of this container or machine is healthy.

    Args:
        pid: The exporter's process id; None if only one exporter runs here.
        ready: Check readiness as well.

    Raises:
        UnhealthyError: It is unhealthy, does not answer within 5 s, or there is none that this user may ask.
        SeveralExportersError: Several run here, and *pid* is None.
    """
    found = _connect_all()
    try:
        asked = [(number, connection) for number, connection in found if pid in (None, number)]
        if not asked:
            who = (
                "no exporter of this user runs here"
                if pid is None
                else f"process {pid} is not an exporter of this user"
            )
            raise UnhealthyError(who)
        if len(asked) > 1:
            raise SeveralExportersError(", ".join(str(number) for number, _ in asked))
        health = _ask(*asked[0])
    finally:
        for _, connection in found:
            connection.close()
    if not health.alive:
        raise UnhealthyError("the poll loop or the web server has stopped")
    if ready and not health.ready:
        raise UnhealthyError("the first round of polls is not done")


def _connect_all() -> list[tuple[int, socket.socket]]:
    """Return process id and connection of each exporter that is visible here and answers to this user."""
    found = []
    listed = Path("/proc/self/net/unix").read_text(errors="replace").splitlines()
    for name in sorted({line.rpartition("@")[2] for line in listed if f"@{_PREFIX}" in line}):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(f"\0{name}")
            peer = _peer(connection)
        except OSError:  # it has ended, or has not accepted a connection for so long that the kernel keeps no more
            connection.close()
            continue
        if peer.pid != 0 and os.geteuid() in (0, peer.uid):
            found.append((peer.pid, connection))
        else:
            connection.close()
    return found


def _ask(pid: int, connection: socket.socket) -> Health:
    try:
        with connection.makefile("rb") as stream:
            said = stream.read()
        return Health(*map(bool, json.loads(said)))
    except (OSError, ValueError, TypeError) as error:
        raise UnhealthyError(f"the exporter, process {pid}, does not answer: {error}") from error


def _peer(connection: socket.socket) -> _Peer:
    size = _CREDENTIALS.size
    return _Peer(*_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))
