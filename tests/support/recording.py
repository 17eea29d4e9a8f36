"""A recorder that keeps the counted events, in place of the SDK's instruments."""

from __future__ import annotations

from collections import Counter

__all__ = ["RecordingRecorder"]


class RecordingRecorder:
    """Implements :class:`exporter.model.recorder.Recorder`."""

    def __init__(self) -> None:
        self.pings: list[tuple[float, str | None]] = []
        self.errors: Counter[tuple[str, str]] = Counter()
        self.polls: Counter[tuple[str, str]] = Counter()
        self.skips: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.restarts = 0

    def ping(self, duration_s: float, error_type: str | None) -> None:
        self.pings.append((duration_s, error_type))

    def error(self, operation: str, error_type: str) -> None:
        self.errors[operation, error_type] += 1

    def poll(self, source: str, outcome: str) -> None:
        self.polls[source, outcome] += 1

    def skipped(self, source: str) -> None:
        self.skips[source] += 1

    def full_decodes(self, count: int) -> None:
        pass

    def refused(self, limit: str) -> None:
        self.refusals[limit] += 1

    def restart(self) -> None:
        self.restarts += 1
