"""Writes a recording: rows that may be written again, thinned as they grow old, within a size."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from exporter.recording.errors import RecordingError, described, is_damage
from exporter.recording.events import Event
from exporter.recording.frames import Frame, decode_frame, encode_frame, merge
from exporter.recording.lock import Lock
from exporter.recording.schema import connect, migrate

__all__ = ["FRAME_S", "MAX_DEPARTURES", "MIN_SIZE", "SNAPSHOT_S", "Batch", "Store", "millis"]

FRAME_S: Final = 10
"""Seconds that a fresh frame stands for."""

THINNED_S: Final = ((6 * 3600, 60), (3 * 86400, 600))
"""From which age, in seconds, a frame stands for how many seconds. A day has at most 2,160 frames of 10 s and 1,080 of
a minute."""

SNAPSHOT_S: Final = 60
"""Seconds between two snapshots; those older than an hour are ten minutes apart."""

MIN_SIZE: Final = 8 * 2**20
"""The smallest bound of a file's size, bytes."""

MAX_DEPARTURES: Final = 10_000
"""Groups that left unusually in one file, the newest."""

_LOG_BYTES: Final = 2 * 2**20
_LOG_PAGES: Final = 128
_SNAPSHOTS_S: Final = (3600, 600)
_VERSIONS_AGE_S: Final = 6 * 3600
_SHED: Final = 0.1
_ROOM: Final = 0.9


def millis(seconds: float) -> int:
    """Return a time as it is stored."""
    return round(seconds * 1000)


@dataclass(slots=True)
class Batch:
    """What is to be written at once.

    Attributes:
        frames: Frames, oldest first.
        events: Events by key; one that was written before is replaced.
        snapshots: Time and JSON of snapshots.
        summary: Start of this process of the exporter, seconds since the epoch, and its summary as JSON.
    """

    frames: list[Frame] = field(default_factory=list)
    events: dict[int, Event] = field(default_factory=dict)
    snapshots: list[tuple[float, bytes]] = field(default_factory=list)
    summary: tuple[float, bytes] | None = None

    def __len__(self) -> int:
        return len(self.frames) + len(self.events) + len(self.snapshots)


class Store:
    """A recording that is open for writing. Not thread-safe.

    What lasted when the exporter before was killed is ended at its last row, and marked.

    Args:
        path: The file. It is made where it is missing; its folder is not.
        max_size: Bound of the file and its write-ahead log together, bytes; at least :data:`MIN_SIZE`.

    Raises:
        RecordingError: It cannot be used.
        OSError: The disk refuses it now.
        sqlite3.Error: Likewise.
    """

    def __init__(self, path: Path, max_size: int) -> None:
        self._path = path
        self._max_pages_bytes = max_size - _LOG_BYTES
        self._lock = Lock(path)
        try:
            self._connection = connect(path)
            try:
                migrate(self._connection)
                self._connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
                self._connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
                self._end_what_was_cut()
                self._base = self._number("SELECT coalesce(max(id), 0) FROM events")
                self._file = self._found()
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    @property
    def since(self) -> float | None:
        """Time of the oldest row, seconds since the epoch, None when there is none."""
        first = self._connection.execute(
            "SELECT min(at) FROM (SELECT min(at) AS at FROM frames UNION ALL SELECT min(at) FROM events)"
        ).fetchone()[0]
        return None if first is None else first / 1000

    @property
    def size(self) -> int:
        """Bytes of the file and its write-ahead log."""
        found = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                found += os.stat(f"{self._path}{suffix}").st_size
        return found

    def replaced(self) -> bool:
        """Return whether another file, or none, is at the path now."""
        return self._found() != self._file

    def summaries(self) -> list[bytes]:
        """Return the summaries of the processes that have written this file, as JSON, oldest first."""
        return [body for (body,) in self._connection.execute("SELECT body FROM summaries ORDER BY started")]

    def write(self, batch: Batch, now: float) -> None:
        """Write all of *batch* or nothing of it.

        Raises:
            sqlite3.Error: The disk refuses it.
            RecordingError: The file is damaged.
        """
        write = self._connection.execute
        with self._transaction():
            for frame in batch.frames:
                row = millis(frame.at), frame.step, encode_frame(frame)
                write("INSERT OR REPLACE INTO frames VALUES (?, ?, ?)", row)
            for event in batch.events.values():
                write("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)", self._event_row(event))
            for at, body in batch.snapshots:
                write("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (millis(at), zlib.compress(body)))
            if batch.summary is not None:
                started, body = batch.summary
                write("INSERT OR REPLACE INTO summaries VALUES (?, ?)", (millis(started), body))
            write("INSERT OR REPLACE INTO meta VALUES ('seen', ?)", (millis(now),))
            while self._used() > self._max_pages_bytes * _ROOM and self._shed():
                pass
        self._give_back()

    def tidy(self, now: float) -> None:
        """Thin old rows.

        Raises:
            sqlite3.Error: The disk refuses it.
            RecordingError: The file is damaged.
        """
        with self._transaction():
            for age, step in THINNED_S:
                self._thin_frames(step, now - age)
            age, step = _SNAPSHOTS_S
            self._connection.execute(
                "DELETE FROM snapshots WHERE at < ? AND at NOT IN (SELECT max(at) FROM snapshots GROUP BY at / ?)",
                (millis(now - age), step * 1000),
            )
            # A version that did not step back says little once it is old: the frames have it.
            self._connection.execute(
                "DELETE FROM events WHERE kind = 'version' AND severity = '' AND at < ? AND id NOT IN "
                "(SELECT max(id) FROM events WHERE kind = 'version' GROUP BY at / 600000)",
                (millis(now - _VERSIONS_AGE_S),),
            )
            self._connection.execute(
                "DELETE FROM events WHERE kind = 'departure' AND id <= "
                "(SELECT id FROM events WHERE kind = 'departure' ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (MAX_DEPARTURES,),
            )
        self._give_back()

    def close(self) -> None:
        """Close the file and let others write it."""
        try:
            self._connection.close()
        finally:
            self._lock.release()

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _event_row(self, event: Event) -> Sequence[object]:
        until = None if event.until is None else millis(event.until)
        detail = msgspec.json.encode(event.detail)
        return (
            self._base + event.key,
            event.kind,
            event.name,
            event.severity,
            millis(event.at),
            until,
            event.count,
            detail,
        )

    def _thin_frames(self, step: int, before: float) -> None:
        """Merge the frames that end before *before* and stand for less than *step* seconds each."""
        until = millis(before) // (step * 1000) * (step * 1000)  # whole steps only, so that none is merged twice
        rows = self._connection.execute(
            "SELECT at / ?, at, body FROM frames WHERE at < ? AND step < ? ORDER BY at", (step * 1000, until, step)
        ).fetchall()
        together: dict[int, list[Frame]] = {}
        for bucket, at, body in rows:
            self._connection.execute("DELETE FROM frames WHERE at = ?", (at,))
            with contextlib.suppress(ValueError):  # one that cannot be read helps nobody
                together.setdefault(bucket, []).append(decode_frame(body))
        for frames in together.values():
            one = merge(frames, step)
            row = millis(one.at), step, encode_frame(one)
            self._connection.execute("INSERT OR REPLACE INTO frames VALUES (?, ?, ?)", row)

    def _shed(self) -> bool:
        """Delete the oldest tenth of everything; return whether there was anything to delete."""
        span = self._connection.execute("SELECT min(at), max(at) FROM frames").fetchone()
        if span[0] is None or span[0] == span[1]:
            span = self._connection.execute("SELECT min(at), max(at) FROM events").fetchone()
        if span[0] is None:
            return False
        before = span[0] + max((span[1] - span[0]) * _SHED, 1)
        deleted = 0
        for table, column in (("frames", "at"), ("events", "until"), ("snapshots", "at")):
            deleted += self._connection.execute(f"DELETE FROM {table} WHERE {column} < ?", (before,)).rowcount  # noqa: S608
        return deleted > 0

    def _end_what_was_cut(self) -> None:
        """End what lasted when the last writer was killed."""
        with self._transaction():
            self._connection.execute(
                "UPDATE events SET cut = 1, until = max(at, coalesce("
                "(SELECT value FROM meta WHERE name = 'seen'), at)) WHERE until IS NULL"
            )

    def _used(self) -> int:
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        return pages * self._number("PRAGMA page_size")

    def _give_back(self) -> None:
        """Return free pages to the file system, where they are many."""
        if self._number("PRAGMA freelist_count") > _LOG_PAGES:
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()

    def _number(self, query: str) -> int:
        value: int = self._connection.execute(query).fetchone()[0]
        return value

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction, undone by any error."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and is_damage(error):
                message = f"{self._path} is damaged ({described(error)}); move it away"
                raise RecordingError(message, lasting=True) from error
            raise
