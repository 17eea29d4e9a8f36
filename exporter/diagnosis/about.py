"""What an exporter says of itself: its version, its process, its configuration without secrets."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from exporter.config import Config, dump_config
from exporter.diagnosis.masking import Mask, secrets_in
from exporter.version import this_build

__all__ = ["describe", "encode_about"]

_PACKAGES: Final = (
    "TransferQueue",
    "bcrypt",
    "msgspec",
    "opentelemetry-sdk",
    "prometheus-client",
    "pyzmq",
    "ray",
    "rich",
    "starlette",
    "uvicorn",
    "torch",
)
_OURS: Final = ("TQ_", "OTEL_", "RAY_", "SLURM_JOB", "KUBERNETES_SERVICE_HOST")


def describe(config: Config, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what this process is and how it is configured. Of the environment only names.

    Args:
        config: The effective configuration.
        environ: The environment.
    """
    build = this_build()
    return {
        "exporter": {"version": build.version, "commit": build.commit},
        "python": build.python_version,
        "platform": platform.platform(),
        "packages": dict(_versions()),
        "process": {
            "pid": os.getpid(),
            "command": Path(sys.argv[0]).name,
            "threads": threading.active_count(),
            "rss_bytes": _rss_bytes(),
            "open_files": _open_files(),
        },
        "environment": sorted(name for name in environ if name.startswith(_OURS)),
        "groups_are_private": bool(getattr(config.web, "disable_groups", False)),
        "config": dump_config(config),
    }


def encode_about(config: Config, environ: Mapping[str, str]) -> bytes:
    """Return :func:`describe` as one line of JSON, with every secret masked."""
    return msgspec.json.encode(Mask(secrets_in(environ)).value(describe(config, environ)))


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append((name, metadata.version(name)))
    return found


def _rss_bytes() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _open_files() -> int | None:
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return None
