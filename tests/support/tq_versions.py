"""Downloads other releases of TransferQueue than the installed one, once, and keeps them beside the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["release"]

_CACHE = Path(__file__).parents[2] / ".tq-versions"


def release(version: str) -> Path:
    """Return a folder for ``PYTHONPATH`` that contains only TransferQueue *version*, without its dependencies."""
    folder = _CACHE / version
    if not folder.is_dir():
        _CACHE.mkdir(exist_ok=True)
        (_CACHE / ".gitignore").write_text("*\n")
        # Renamed into place when complete, so that an interrupted run leaves nothing that looks like a release.
        partial = Path(tempfile.mkdtemp(dir=_CACHE))
        try:
            install = ("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(partial))
            subprocess.run(
                [sys.executable, "-m", "pip", *install, f"TransferQueue=={version}"],
                check=True,
                capture_output=True,
                text=True,
                timeout=240,
            )
            partial.rename(folder)
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"TransferQueue {version} cannot be installed:\n{error.stderr}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder
