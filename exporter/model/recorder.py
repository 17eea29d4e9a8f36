"""What is counted as it happens, with a fixed label set. Implemented by :mod:`exporter.telemetry`."""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["Recorder"]


class Recorder(Protocol):
    """Counts pings, polls, errors and restarts. Thread-safe."""

    def ping(self, duration_s: float, error_type: str | None) -> None:
        """A ping took *duration_s* seconds, and failed with *error_type* unless that is None."""
        ...

    def error(self, operation: str, error_type: str) -> None:
        """An operation on the data plane failed."""
        ...

    def poll(self, source: str, outcome: Literal["ok", "failed"]) -> None:
        """A poll ended."""
        ...

    def skipped(self, source: str) -> None:
        """A poll was due while the last one was still running."""
        ...

    def restart(self) -> None:
        """A new controller took the place of the last one."""
        ...

    def refused(self, limit: str) -> None:
        """A reply was refused because it exceeds *limit*."""
        ...
