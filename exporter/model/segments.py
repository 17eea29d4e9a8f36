"""The segments of a Mooncake store as storage units: their numbers, and those that have left with rows in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from exporter.clock import Clock
from exporter.model.storage import SegmentFigures, StorageState

__all__ = ["MISSED_FOR_S", "Segments"]

MISSED_FOR_S: Final = 1800.0
"""How long a segment that left with rows in it is shown as gone."""

_MAX_MISSED: Final = 64


@dataclass
class _Known:
    index: int
    held: bool  # whether it had bytes in use when it was last listed
    left_at: float | None = None


class Segments:
    """Numbers segments and remembers those that left while they held rows. Not thread-safe.

    A segment gets the lowest free number and keeps it, since its name has a port that is new with each process. One
    that is empty leaves unnoticed.

    Args:
        clock: Tells how long ago a segment has left.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def listed(self, segments: Mapping[str, SegmentFigures]) -> tuple[StorageState, ...]:
        """Return the units after the master has listed *segments*."""
        now = self._clock.monotonic()
        for name, known in list(self._known.items()):
            if name in segments:
                continue
            known.left_at = now if known.left_at is None else known.left_at
            if not known.held or now - known.left_at > MISSED_FOR_S:
                del self._known[name]
        missed = sorted((one.left_at, name) for name, one in self._known.items() if one.left_at is not None)
        for _, name in missed[: max(0, len(missed) - _MAX_MISSED)]:
            if name not in segments:
                del self._known[name]
        taken = {known.index for known in self._known.values()}
        free = (index for index in range(len(taken) + len(segments)) if index not in taken)
        for name, figures in segments.items():
            known = self._known.get(name) or _Known(next(free), held=False)
            known.held, known.left_at = bool(figures.used_bytes), None
            self._known[name] = known
        return self._units(segments)

    def unanswered(self, error_type: str, detail: str) -> tuple[StorageState, ...]:
        """Return the units while the master does not answer: none of them can be used."""
        return tuple(
            StorageState(known.index, name, error_type=error_type, detail=detail) for name, known in self._by_index()
        )

    def _units(self, segments: Mapping[str, SegmentFigures]) -> tuple[StorageState, ...]:
        units = []
        for name, known in self._by_index():
            figures = segments.get(name)
            if figures is None:
                detail = f"segment {name} has left, and its rows are lost"
                units.append(StorageState(known.index, name, error_type="DataPlaneUnavailable", detail=detail))
            else:
                units.append(
                    StorageState(
                        known.index, name, memory_bytes=figures.used_bytes, memory_limit_bytes=figures.size_bytes
                    )
                )
        return tuple(units)

    def _by_index(self) -> list[tuple[str, _Known]]:
        return sorted(self._known.items(), key=lambda one: one[1].index)
