"""Answers that are read from a recording on disk. A disk that hangs costs one thread; no other answer waits for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import Response

from exporter.model.history import SAMPLES, WINDOWS
from exporter.model.recording import RecordingError
from exporter.web.replies import compressed, plain
from exporter.web.threads import in_daemon_thread

__all__ = ["Recorded", "Replay", "from_disk", "history_of", "replay_answers"]

ANSWER_S: Final = 7.0
"""An answer takes no longer; the page gives up after 8 s."""

Read = Callable[[Request], bytes]


class Recorded(Protocol):
    """A recording. Its methods do I/O, and raise a RecordingError."""

    def history(self, begin: float | None = None, end: float | None = None) -> bytes:
        """Return a time as JSON."""
        ...


class Replay(Recorded, Protocol):
    """A recording that is shown as it was at a time, seconds since the epoch; None is its end."""

    def snapshot(self, at: float | None) -> bytes:
        """Return the snapshot as JSON."""
        ...

    def conditions(self, at: float | None) -> bytes:
        """Return the conditions as JSON."""
        ...

    def window(self, length_s: float, at: float | None) -> bytes:
        """Return the *length_s* seconds before as JSON."""
        ...


class _Refused(ValueError):
    """A parameter is wrong: ``str()`` says which and how to write it."""


def history_of(recorded: Recorded) -> Read:
    """Return the answer to ``/api/v1/history?from=&to=``."""

    def read(request: Request) -> bytes:
        begin, end = _time(request, "from"), _time(request, "to")
        if begin is not None and end is not None and begin >= end:
            raise _Refused("from must be before to")
        return recorded.history(begin, end)

    return read


def replay_answers(replay: Replay) -> dict[str, Read]:
    """Return the paths of a recording that is replayed, and their answers. All take ``at``."""

    def window(name: str) -> Read:
        length_s = WINDOWS[name] * SAMPLES
        return lambda request: replay.window(length_s, _time(request, "at"))

    return {
        "/api/v1/snapshot": lambda request: replay.snapshot(_time(request, "at")),
        "/api/v1/conditions": lambda request: replay.conditions(_time(request, "at")),
        "/api/v1/history": history_of(replay),
        **{f"/api/v1/history/{name}": window(name) for name in WINDOWS},
    }


def from_disk(read: Read, turn: asyncio.Lock) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for what *read* returns: one at a time, and in time."""

    async def endpoint(request: Request) -> Response:
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.create_task(_in_turn(read, turn, request))), ANSWER_S)
        except asyncio.TimeoutError:  # in Python 3.10 not yet the built-in one
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, "the recording does not answer")

    return endpoint


async def _in_turn(read: Read, turn: asyncio.Lock, request: Request) -> Response:
    async with turn:  # held until the disk has answered, whoever still waits for it
        if request.state.slot.freed:
            return Response()
        return await in_daemon_thread(lambda: compressed(_answer(read, request), request))


def _answer(read: Read, request: Request) -> Response:
    try:
        return Response(read(request), headers={"Content-Type": "application/json"})
    except _Refused as error:
        return plain(HTTPStatus.BAD_REQUEST, str(error))
    except RecordingError as error:
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, str(error))


def _time(request: Request, name: str) -> float | None:
    """Return a parameter in seconds since the epoch, None when it is not given."""
    given = request.query_params.get(name)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e11:
        raise _Refused(f"{name} must be a time in seconds since the epoch, such as 1700000000")
    return seconds
