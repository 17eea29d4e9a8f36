"""The file of a recording: an SQLite database with an application id and a version of its tables."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Final
from urllib.parse import quote

from exporter.recording.errors import RecordingError, described, is_damage

__all__ = ["APPLICATION_ID", "STEPS", "VERSION", "check_file", "connect", "connect_to_read", "migrate"]

APPLICATION_ID: Final = 0x54515246  # "TQRF"

STEPS: Final = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE frames (at INTEGER PRIMARY KEY, step INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        severity TEXT NOT NULL,
        at INTEGER NOT NULL,
        until INTEGER,
        cut INTEGER NOT NULL DEFAULT 0,
        count INTEGER NOT NULL,
        detail BLOB NOT NULL
    );
    CREATE INDEX events_at ON events (at);
    """,
    """
    CREATE TABLE snapshots (at INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE summaries (started INTEGER PRIMARY KEY, body BLOB NOT NULL);
    """,
)
"""What makes each version of the tables from the one before. Released steps never change. Times are milliseconds since
the epoch. ``cut`` marks what lasted when a process of the exporter was killed."""

VERSION: Final = len(STEPS)

_WAIT_S: Final = 5.0


def check_file(path: Path) -> bool:
    """Check that *path* is a regular file, without opening it, or that there is none; return whether it is there.

    Not opened: closing a file ends the locks that SQLite has on it in this process.

    Raises:
        RecordingError: It is of another kind, or its folder cannot be searched.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise RecordingError(f"{str(path)!r} cannot be the name of a file: {error}", lasting=True) from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be opened: {error.strerror}; give the path of a file") from error
    if not stat.S_ISREG(mode):
        raise RecordingError(f"{path} is not a regular file; give another path", lasting=True)
    return True


def connect(path: Path) -> sqlite3.Connection:
    """Open *path* for writing, and make it where it is missing, for its owner alone.

    The caller brings its tables up to date with :func:`migrate`.

    Raises:
        RecordingError: It is no recording, a damaged one, or one of a newer version.
        OSError: The file cannot be made.
        sqlite3.Error: It cannot be opened now.
    """
    if not check_file(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    try:
        new = _check_identity(connection, path) == 0
        for (said,) in connection.execute("PRAGMA quick_check(1)"):  # before anything is changed
            if said != "ok":
                raise sqlite3.DatabaseError(said)
        if new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise RecordingError(f"{path} is on a file system without shared memory; use a local disk", lasting=True)
        # Survives the end of the process at any moment. After a loss of power the last seconds may be missing.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -512")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error) and is_damage(error):
            raise _damaged(path, error) from error
        raise
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up to date, in one transaction.

    Raises:
        sqlite3.Error: That failed; the file is as before.
    """
    version = _pragma(connection, "user_version")
    if version == VERSION:
        return
    steps = "".join(STEPS[version:])
    # executescript() ends an open transaction first, so the script has its own.
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {steps} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {VERSION}; COMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a recording for reading, also while an exporter writes it. Changes nothing in the file.

    Raises:
        RecordingError: It is missing, no recording, a damaged one, of a newer version, or cannot be read.
    """
    if not check_file(path):
        raise RecordingError(f"{path} does not exist; give the file that history.file names", lasting=True)
    error: Exception | None = None
    # Where nobody may write beside the file, and no exporter has it open, it is read as it stands.
    for more in ("", "&immutable=1") if not os.path.exists(f"{path}-wal") else ("",):
        try:
            return _opened_to_read(path, more)
        except sqlite3.Error as failure:
            if is_damage(failure):
                raise _damaged(path, failure) from failure
            error = failure
    assert error is not None
    raise RecordingError(f"{path} cannot be read: {described(error)}; copy it to a folder of your own") from error


def _opened_to_read(path: Path, more: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro{more}", uri=True, timeout=_WAIT_S)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        if _check_identity(connection, path) == 0:
            raise RecordingError(f"{path} is empty; nothing was recorded", lasting=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_identity(connection: sqlite3.Connection, path: Path) -> int:
    """Check that the file is a recording that this exporter understands; return the version of its tables, 0 if new."""
    version, application = _pragma(connection, "user_version"), _pragma(connection, "application_id")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (tables or version or application):
        raise RecordingError(f"{path} is a database of another program; give another path", lasting=True)
    if version > VERSION:
        problem = f"was written by a newer tq-exporter (version {version} of the tables, this one knows {VERSION})"
        raise RecordingError(f"{path} {problem}; use that one, or give another path", lasting=True)
    return version


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _damaged(path: Path, error: Exception) -> RecordingError:
    if "not a database" in str(error):
        return RecordingError(f"{path} is not a recording; give another path, or move it away", lasting=True)
    return RecordingError(
        f"{path} is damaged ({described(error)}); move it away, and see docs/recorder.md to rescue it", lasting=True
    )
