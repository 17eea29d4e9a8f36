"""Version and origin of this exporter."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Final

import msgspec

__all__ = ["DISTRIBUTION", "Build", "this_build"]

DISTRIBUTION: Final = "tq-exporter"


@dataclass(frozen=True, slots=True)
class Build:
    """Version and origin of this exporter. ``commit`` is None in a working tree."""

    version: str
    commit: str | None = None
    python_version: str = platform.python_version()

    def __str__(self) -> str:
        commit = "" if self.commit is None else f"commit {self.commit}, "
        return f"{self.version} ({commit}Python {self.python_version})"


def this_build() -> Build:
    """Return the build of the installed package."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return Build("unknown")
    return Build(distribution.version, _built_from() or _installed_from(distribution))


def _built_from() -> str | None:
    """Return the commit that the wheel was built from, as recorded by setup.py."""
    try:
        return resources.files("exporter").joinpath("COMMIT").read_text("ascii").strip() or None
    except OSError:
        return None


def _installed_from(distribution: metadata.Distribution) -> str | None:
    """Return the commit that pip recorded when it installed from a repository (PEP 610)."""
    origin = distribution.read_text("direct_url.json")
    if origin is None:
        return None
    try:
        return msgspec.json.decode(origin, type=_Origin).vcs_info.commit_id
    except msgspec.DecodeError:
        return None


class _VcsInfo(msgspec.Struct):
    commit_id: str | None = None


class _Origin(msgspec.Struct):
    vcs_info: _VcsInfo = msgspec.field(default_factory=_VcsInfo)
