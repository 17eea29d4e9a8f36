"""How the recording on disk is doing, as the snapshot tells it, and why one cannot be used."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RecorderState", "RecordingError"]


@dataclass(frozen=True, slots=True)
class RecorderState:
    """The recording on disk.

    Attributes:
        up: Whether the last write succeeded, None before the first.
        since: Time of the oldest row in the file, seconds since the epoch, None before the file was opened.
        size_bytes: Size of the file and of its write-ahead log after the last write, None before the first.
        dropped: Rows that were never written since the exporter started, because the disk took none for too long.
        detail: Why the last write failed, empty when it succeeded.
    """

    up: bool | None = None
    since: float | None = None
    size_bytes: int | None = None
    dropped: int = 0
    detail: str = ""


class RecordingError(Exception):
    """A file cannot be used as a recording. ``str()`` is one line that names the file, the problem and the remedy.

    Args:
        message: That line.
        lasting: Whether trying again is of no use: the file itself is the problem.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
