"""Reads a recording, also while an exporter writes it. Changes nothing."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from exporter.model.samples import COLUMNS, MAX_SERIES, PLANE_COLUMNS, PLANE_STATES
from exporter.recording.errors import RecordingError, described
from exporter.recording.frames import Figures, Frame, decode_frame, merge
from exporter.recording.schema import connect_to_read
from exporter.recording.store import FRAME_S, millis
from exporter.recording.summary import Summary, decode_summary

__all__ = ["MAX_EVENTS", "MAX_POINTS", "UNRECORDED", "Archive", "StoredEvent", "holes"]

MAX_POINTS: Final = 600
"""Samples of one answer, at most; the gaps are beside them."""

MAX_EVENTS: Final = 300
"""Events of one answer, at most: the newest."""

UNRECORDED: Final = "unrecorded"
"""The state of the data plane while no exporter recorded it."""

_LATE: Final = 2.5
_MAX_SNAPSHOT_BYTES: Final = 64 * 2**20
_PING: Final = PLANE_COLUMNS.index("ping")
_EMPTY: Final[Figures] = [None] * len(COLUMNS)


class StoredEvent(msgspec.Struct):
    """An event as it was recorded. See :class:`~exporter.recording.events.Event`.

    Attributes:
        cut: Whether it lasted when the exporter was killed: then ``until`` is when that last wrote.
    """

    kind: str
    name: str
    severity: str
    at: float
    until: float | None
    cut: bool
    count: int
    detail: dict[str, Any]


class Archive:
    """A recording, open for reading only while it is read. Thread-safe.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def span(self) -> tuple[float, float]:
        """Return the times of the first and the last row, seconds since the epoch.

        Raises:
            RecordingError: The file cannot be read, or nothing is recorded. So for all methods.
        """
        with self._reading() as connection:
            first, last = connection.execute(
                "SELECT min(at), max(at) FROM (SELECT at FROM frames UNION ALL SELECT at FROM events "
                "UNION ALL SELECT until FROM events)"
            ).fetchone()
        if first is None:
            raise RecordingError(f"{self.path} is empty; nothing was recorded", lasting=True)
        return first / 1000, last / 1000

    def frames(self, begin: float, end: float, step: float = 0.0) -> list[Frame]:
        """Return the frames of a time, oldest first, those of each *step* seconds merged into one."""
        merged: list[Frame] = []
        together: list[Frame] = []
        for frame in self.walk(begin, end):
            if together and (step <= 0 or frame.at // step != together[0].at // step):
                merged.append(_one(together, step))
                together = []
            together.append(frame)
        return [*merged, _one(together, step)] if together else merged

    def walk(self, begin: float, end: float) -> Iterator[Frame]:
        """Yield the frames of a time, oldest first, without keeping them."""
        with self._reading() as connection:
            for (body,) in connection.execute(
                "SELECT body FROM frames WHERE at BETWEEN ? AND ? ORDER BY at", (millis(begin), millis(end))
            ):
                with contextlib.suppress(ValueError):  # a damaged row is missing
                    yield decode_frame(body)

    def events(self, begin: float, end: float, *kinds: str) -> list[StoredEvent]:
        """Return the events of these *kinds* that touch a time, oldest first; all kinds when none is given."""
        among = f"AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT kind, name, severity, at, until, cut, count, detail FROM events "  # noqa: S608 - only marks
                f"WHERE at <= ? AND (until IS NULL OR until >= ?) {among} ORDER BY at, id",
                (millis(end), millis(begin), *kinds),
            ).fetchall()
        found = []
        for kind, name, severity, at, until, cut, count, detail in rows:
            with contextlib.suppress(ValueError):
                more = msgspec.json.decode(detail, type=dict[str, Any])
                ended = None if until is None else until / 1000
                found.append(StoredEvent(kind, name, severity, at / 1000, ended, bool(cut), count, more))
        return found

    def snapshot(self, at: float) -> dict[str, Any]:
        """Return the snapshot in force at a time, ready for JSON: the last one before it, else the first."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT body FROM snapshots ORDER BY at > ?, abs(at - ?) LIMIT 1", (millis(at), millis(at))
            ).fetchone()
        if row is None:
            raise RecordingError(f"{self.path} has no snapshot yet", lasting=False)
        try:
            body = zlib.decompressobj().decompress(row[0], _MAX_SNAPSHOT_BYTES)
            return msgspec.json.decode(body, type=dict[str, Any])
        except (zlib.error, ValueError) as error:
            raise RecordingError(f"{self.path}: the snapshot of that time is damaged", lasting=True) from error

    def summaries(self) -> list[Summary]:
        """Return the summary of each process that has written the file, oldest first."""
        with self._reading() as connection:
            rows = connection.execute("SELECT body FROM summaries ORDER BY started").fetchall()
        found = []
        for (body,) in rows:
            with contextlib.suppress(ValueError):
                found.append(decode_summary(body))
        return found

    def history(self, begin: float | None = None, end: float | None = None) -> bytes:
        """Return a time as JSON, in the form of :meth:`exporter.model.history.History.encode`.

        It has at most :data:`MAX_POINTS` samples. Beside its columns: ``from`` and ``to``, ``spans`` (the states of the
        data plane, exactly), ``events``, and how many of those were left out. Where nothing was recorded there is one
        sample with the state :data:`UNRECORDED` and no figures.

        Args:
            begin: From when on, seconds since the epoch, by default the first row.
            end: Until when, by default the last row.
        """
        if begin is None or end is None:
            first, last = self.span()
            begin, end = first if begin is None else begin, last if end is None else end
        end = max(end, begin + 1)
        step = max(math.ceil((end - begin) / MAX_POINTS / FRAME_S), 1) * FRAME_S
        frames = _with_holes(self.frames(begin, end, step))
        events = self.events(begin, end)
        states = [event for event in events if event.kind == "state"]
        told = [event for event in events if event.kind != "state" and (event.kind != "version" or event.severity)]
        failures = [_failure(event) for event in events if event.kind == "incident"]
        return msgspec.json.encode(
            {
                "window": "recorded",
                "from": begin,
                "to": end,
                "interval": max((frame.step for frame in frames if isinstance(frame, Frame)), default=step),
                "samples": len(frames),
                **_columns(frames),
                "spans": [
                    {"state": event.name, "from": max(event.at, begin), "to": min(event.until or end, end)}
                    for event in states
                ],
                "changes": [
                    {"at": event.at, "state": event.name, "detail": event.detail.get("reason", "")}
                    for event in reversed(states[-20:])
                ],
                "failures": failures[:-61:-1],
                "successes": [],
                "events": told[-MAX_EVENTS:],
                "events_left_out": max(len(told) - MAX_EVENTS, 0),
            }
        )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = connect_to_read(self.path)
        try:
            yield connection
        except sqlite3.Error as error:
            if "no such table" in str(error):
                message = f"{self.path} was started by an older tq-exporter; record to it with this version first"
                raise RecordingError(message, lasting=True) from error
            raise RecordingError(f"{self.path} cannot be read: {described(error)}", lasting=True) from error
        finally:
            connection.close()


def holes(frames: Sequence[Frame]) -> list[tuple[float, float]]:
    """Return the times between two *frames* in which nothing was recorded."""
    return [
        (one.at, other.at)
        for one, other in itertools.pairwise(frames)
        if other.at - one.at > _LATE * max(one.step, other.step)
    ]


def _one(frames: Sequence[Frame], step: float) -> Frame:
    return frames[0] if len(frames) == 1 else merge(frames, max(step, frames[-1].step))


def _with_holes(frames: list[Frame]) -> list[Frame | float]:
    """Return *frames* with a time in the middle of each hole."""
    found: list[Frame | float] = list(frames)
    times = [frame.at for frame in frames]
    for begin, end in reversed(holes(frames)):
        found.insert(bisect.bisect_right(times, begin), (begin + end) / 2)
    return found


def _columns(frames: Sequence[Frame | float]) -> dict[str, Any]:
    seen: Counter[str] = Counter()
    for frame in frames:
        if isinstance(frame, Frame):
            seen.update(frame.partitions)
    names = sorted(name for name, _ in seen.most_common(MAX_SERIES))
    known = [frame if isinstance(frame, Frame) else None for frame in frames]
    return {
        "at": [frame.at if isinstance(frame, Frame) else frame for frame in frames],
        "state": [UNRECORDED if frame is None else PLANE_STATES[frame.state] for frame in known],
        "degraded": [frame is not None and frame.degraded for frame in known],
        "ping": [None if frame is None else frame.plane[_PING] for frame in known],
        "total": _series([None if frame is None else frame.total for frame in known]),
        "trained": _series([None if frame is None else frame.trained for frame in known]),
        "partitions": [
            {
                "partition": name,
                **_series([None if frame is None else frame.partitions.get(name) for frame in known]),
            }
            for name in names
        ],
    }


def _series(rows: Sequence[Figures | None]) -> dict[str, list[float | int | None]]:
    columns = zip(*(row or _EMPTY for row in rows), strict=True) if rows else iter(() for _ in COLUMNS)
    return {name: list(column) for name, column in zip(COLUMNS, columns, strict=True)}


def _failure(event: StoredEvent) -> dict[str, Any]:
    return {
        "at": event.until or event.at,
        "first_at": event.at,
        "count": event.count,
        "source": event.detail.get("source", ""),
        "ok": False,
        "took": None,
        "operation": event.name,
        "error_type": event.severity,
        "detail": event.detail.get("reason", ""),
    }
