"""Interface for events that are counted under a fixed label set. Implemented by :mod:`exporter.telemetry`.

The flight recorder is another thing: :mod:`exporter.recording`.
"""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["Recorder"]


class Recorder(Protocol):
    """Counts pings, polls, errors and restarts. Thread-safe."""

    def ping(self, duration_s: float, error_type: str | None) -> None:
        """Record a ping of *duration_s* seconds. It failed with *error_type* unless that is None."""
        ...

    def error(self, operation: str, error_type: str) -> None:
        """Count a failed operation on the data plane."""
        ...

    def poll(self, source: str, outcome: Literal["ok", "failed"]) -> None:
        """Count a poll that ended."""
        ...

    def skipped(self, source: str) -> None:
        """Count a poll that was skipped because the last one was still running."""
        ...

    def full_decodes(self, count: int) -> None:
        """Count listings that were decoded as a whole although the ones before were kept."""
        ...

    def restart(self) -> None:
        """Count a new controller that replaced the last one."""
        ...

    def refused(self, limit: str) -> None:
        """Count a reply that was refused because it exceeds *limit*."""
        ...
