"""A disk of a few kilobytes, so that a test can fill it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SmallDisk", "small_disk"]

_SIZE = 256 * 1024
_AS_ROOT = () if os.geteuid() == 0 else ("sudo", "-n")


class SmallDisk:
    """A file system of its own at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Fill it to the last byte."""
        with self._ballast.open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize)

    def protect(self) -> None:
        """Let nobody write to it any more."""
        subprocess.run([*_AS_ROOT, "mount", "-o", "remount,ro", str(self.path)], check=True)

    def free(self) -> None:
        """Free the space again."""
        self._ballast.unlink()


@contextmanager
def small_disk(path: Path, size: int = _SIZE) -> Iterator[SmallDisk]:
    """Create *path* and mount a memory file system of *size* bytes there for the block. Needs root, or ``sudo -n``."""
    path.mkdir()
    options = f"size={size},mode=0777"
    subprocess.run([*_AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "small-disk", str(path)], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run([*_AS_ROOT, "umount", "--lazy", str(path)], check=True)
