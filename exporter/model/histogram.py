"""A histogram as a value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Histogram"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """A cumulative-since-start histogram with explicit buckets.

    Attributes:
        bounds: Upper bounds of the buckets, ascending; one more bucket counts larger values.
        counts: Observations per bucket (not cumulated), ``len(bounds) + 1`` of them.
        sum: Sum of all observations.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)
