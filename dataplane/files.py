"""Reads a file that others may have replaced: only regular files, only up to a size, and never waiting for a writer."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["MAX_SETTINGS_BYTES", "read_regular", "read_regular_text"]

MAX_SETTINGS_BYTES: Final = 2**20
"""Limit for files that people write: configurations, certificates, discovery records."""

_KINDS: Final = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_regular(path: Path, max_bytes: int = MAX_SETTINGS_BYTES) -> bytes:
    """Return the content of the regular file at *path*. A link to one will do.

    A pipe would block its reader until somebody writes, and ``/dev/zero`` never ends. A file system that hangs blocks.

    Args:
        path: The file.
        max_bytes: Its largest size.

    Raises:
        OSError: It cannot be read, is no regular file or is longer; ``strerror`` says which.
    """
    try:
        _check(os.stat(path).st_mode, path)
        # It may be replaced in between, so it is opened without waiting and checked again.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            _check(os.fstat(file.fileno()).st_mode, path)
            content: bytes = file.read(max_bytes + 1)
    except ValueError as error:  # a null character or a lone surrogate in the name
        raise OSError(errno.EINVAL, f"no file can have this name: {error}", str(path)) from error
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"longer than {max_bytes} bytes", str(path))
    return content


def read_regular_text(path: Path, max_bytes: int = MAX_SETTINGS_BYTES) -> str:
    """Return the text of a file in UTF-8, like :func:`read_regular`; raises UnicodeDecodeError for another encoding."""
    return read_regular(path, max_bytes).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _check(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))
