"""One exporter per file: a lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

from exporter.recording.errors import RecordingError

__all__ = ["Lock"]


class Lock:
    """The right to write a recording, held from the start until :meth:`release`.

    It is a lock of the kernel on a file beside the recording, which tells who holds it. The recording itself is not
    locked: that would end SQLite's own locks.

    Args:
        path: The recording.

    Raises:
        RecordingError: Another process has it.
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise RecordingError(f"{self._path} is not a regular file; remove it", lasting=True)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(self._file, 200, 0).decode(errors="replace").strip() or "another process"
                message = f"{path} is being written by {holder}; give each exporter a file of its own"
                raise RecordingError(message) from error
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        """Let others write the recording. The lock's file stays, so that two never lock different ones."""
        os.close(self._file)
