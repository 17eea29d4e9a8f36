"""Version and origin of this exporter."""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Final

__all__ = ["DISTRIBUTION", "Build", "this_build"]

DISTRIBUTION: Final = "tq-exporter"
_COMMIT_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Build:
    """Version and origin of this exporter. ``commit`` is None in a working tree, or where the build did not know it."""

    version: str
    commit: str | None = None
    python_version: str = platform.python_version()

    def __str__(self) -> str:
        commit = "" if self.commit is None else f"commit {self.commit}, "
        return f"{self.version} ({commit}Python {self.python_version})"


def this_build() -> Build:
    """Return the build of the installed package."""
    try:
        return Build(metadata.version(DISTRIBUTION), _commit())
    except metadata.PackageNotFoundError:
        return Build("unknown")


def _commit() -> str | None:
    """Return the commit that the package was built from."""
    try:
        # setuptools-scm writes this module into what it builds; a working tree has none.
        node: str | None = importlib.import_module("exporter._commit").COMMIT
    except ModuleNotFoundError:
        return None
    return (node or "").removeprefix("g")[:_COMMIT_DIGITS] or None
