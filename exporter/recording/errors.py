"""What errors of SQLite and of the disk say of a recording."""

from __future__ import annotations

import sqlite3

from exporter.model.recording import RecordingError

__all__ = ["RecordingError", "described", "is_damage"]


def is_damage(error: Exception) -> bool:
    """Return whether an error of SQLite says that the file is damaged or none of SQLite's."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError | sqlite3.ProgrammingError | sqlite3.IntegrityError
    )


def described(error: Exception) -> str:
    """Return in one line what an error of SQLite or of the system says, without the file's name."""
    return " ".join(((error.strerror if isinstance(error, OSError) else None) or str(error)).split())
