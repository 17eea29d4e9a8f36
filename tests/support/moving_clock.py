"""Processes whose wall clock a test can set while they run. Their monotonic clock continues, as on a real machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["MovingClock"]


class MovingClock:
    """Sets the wall clock of every process that is started with ``env``. Uses Debian's package ``faketime``.

    Args:
        folder: Folder of the file from which the processes read the offset.
    """

    def __init__(self, folder: Path) -> None:
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        assert library is not None, "libfaketime is missing: apt-get install faketime"
        self._file = folder / "clock"
        self.jump(0)
        self.env: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: float) -> None:
        """Set the clock to the true time plus *seconds*."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self._file)
