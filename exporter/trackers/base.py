"""What a tracker is, and the messages between the exporter and a tracker's process: one line of JSON each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import msgspec

from exporter.model.histogram import Histogram

__all__ = ["Order", "Outcome", "Point", "Tracker", "TrackerError", "edges"]


class TrackerError(Exception):
    """The tracker cannot be used. The text says why and what to do."""


class Tracker(ABC):
    """Writes points into one experiment tracker. All calls come from one thread, and may block or raise."""

    @abstractmethod
    def start(self) -> None:
        """Connect to the tracker or open its file. Called once, before the first point."""

    @abstractmethod
    def log(self, point: Point) -> None:
        """Write one point, so that a reader sees it soon."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left and stop. Called once, unless the process is killed first."""


class Point(msgspec.Struct, frozen=True):
    """The figures of one moment.

    Attributes:
        at: Seconds since the epoch.
        step: The trainer's weight version, None while unknown.
        scalars: Value by key. What is unknown is missing.
        histograms: What left since the last point: lag and residence, by key. None is empty.
    """

    at: float
    step: int | None
    scalars: Mapping[str, float]
    histograms: Mapping[str, Histogram]


class Order(msgspec.Struct, frozen=True):
    """The first message to a tracker's process: which tracker, and its settings."""

    tracker: str
    settings: dict[str, str | None]


class Outcome(msgspec.Struct, frozen=True):
    """The answer to an order or a point: None, or why it failed."""

    error: str | None = None


def edges(histogram: Histogram) -> tuple[float, ...]:
    """Return the edges of all buckets, the outer two as well: 0 below, and twice the last bound above.

    Trackers want finite edges. The first bucket of lags holds the lag 0 alone and gets an edge at -1.
    """
    first, last = histogram.bounds[0], histogram.bounds[-1]
    return (0.0 if first > 0 else first - 1.0, *histogram.bounds, 2 * last)
