"""A stand-in for the image ``python:…-slim-…`` of a registry, made from this machine's own package sources."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from tests.engines.machine import ROOT, run

__all__ = ["PYTHON_IMAGE", "make_tree"]

_VERSION = re.search(r"^ARG PYTHON_VERSION=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
assert _VERSION is not None
PYTHON_IMAGE = f"python:{_VERSION[1]}-slim-bookworm"
"""The name under which the Dockerfile asks for it."""

_KEPT = ROOT / "build" / "engines"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def make_tree(name: str, *packages: str) -> Path:
    """Return a tar archive of a minimal Debian with *packages*; ``make clean`` removes it.

    It trusts the certificates that this machine trusts, and its pip uses them.
    """
    archive = _KEPT / f"{name}.tar"
    if archive.exists():
        return archive
    _KEPT.mkdir(parents=True, exist_ok=True)
    (_KEPT / "pip.conf").write_text(f"[global]\ncert = {_CERTIFICATES}\n")
    fresh = archive.with_suffix(".new.tar")
    run(
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        "--dpkgopt=force-unsafe-io",  # waits for no disk
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        '--customize-hook=ln -s python3 "$1/usr/bin/python"; mkdir -p "$1/etc/ssl/certs"',
        '--customize-hook=rm -f "$1"/usr/lib/sysctl.d/*.conf',
        f"--customize-hook=upload {_CERTIFICATES} {_CERTIFICATES}",
        f"--customize-hook=upload {_KEPT}/pip.conf /etc/pip.conf",
        platform.freedesktop_os_release()["VERSION_CODENAME"],
        fresh,
        _sources(),
        timeout_s=800,
    )
    os.replace(fresh, archive)
    return archive


def _sources() -> Path:
    """Return this machine's own list of Debian's package sources."""
    for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        if Path(path).exists():
            return Path(path)
    raise AssertionError("this machine has no list of Debian's package sources")
