"""Writes the bundles that SIGUSR1 asks for into a folder, the last few of them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exporter.config import Config

if TYPE_CHECKING:
    from exporter.diagnosis.evidence import Evidence

__all__ = ["KEPT", "Keeper", "private_folder"]

KEPT: Final = 10
"""Bundles in the folder: a new one replaces the oldest."""

_PATTERN: Final = "tq-diagnosis-*.zip"


class Keeper:
    """Writes bundles, each on a thread of its own: a disk that hangs must not stop the exporter.

    Args:
        config: The configuration, with the folder to write to.
        log: Logs a line.
    """

    def __init__(self, config: Config, log: Callable[[str], None]) -> None:
        self._config = config
        self._log = log
        self._busy = threading.Lock()

    def start(self, collect: Callable[[], Evidence]) -> None:
        """Write a bundle of what *collect* returns, unless one is being written; log where it is."""
        if not self._busy.acquire(blocking=False):
            self._log("no new diagnosis: the last one is still being written")
            return
        threading.Thread(target=self._write, args=(collect,), name="diagnosis", daemon=True).start()

    def _write(self, collect: Callable[[], Evidence]) -> None:
        from exporter.diagnosis.bundle import build_bundle, bundle_name, cleaned, write_file  # when somebody asks

        try:
            evidence = collect()
            folder = self._config.diagnose.directory or private_folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / bundle_name(time.time())
            content = build_bundle(cleaned(evidence, os.environ, keys=not evidence.private))
            write_file(path, content)
            self._log(f"wrote a diagnosis to {path}: {' '.join(evidence.verdict.sentences)}")
            for old in sorted(folder.glob(_PATTERN))[:-KEPT]:
                with contextlib.suppress(OSError):
                    old.unlink()
        except OSError as error:
            self._log(f"the diagnosis cannot be written: {error}; set diagnose.directory to another folder")
        except Exception as error:  # our bug must not end the exporter, and somebody waits for this line
            self._log(f"the diagnosis failed with an unexpected error: {type(error).__name__}: {error}")
        finally:
            self._busy.release()


def private_folder() -> Path:
    """Return this user's folder in the system's folder of temporary files, where anyone could have made one.

    Raises:
        OSError: It cannot be made, or is somebody else's.
    """
    import tempfile

    folder = Path(tempfile.gettempdir(), f"tq-exporter-{os.geteuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise OSError(errno.EPERM, "is not a folder of this user alone", str(folder))
    return folder
