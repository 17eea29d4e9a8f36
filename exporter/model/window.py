"""A window of the history as a client gets it: :meth:`exporter.model.history.History.encode`, read back."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Window", "decode_window"]

Column = list[float | None]


class Window(msgspec.Struct, frozen=True):
    """Samples of the last minutes or of the last hour. Every column has a value per sample, None where unknown.

    Attributes:
        window: Its name.
        interval: Seconds between two samples.
        at: The samples' times, seconds since the epoch, oldest first.
        state: The state of the data plane at each sample.
        degraded: Where a part of the data plane did not work.
        ping: Seconds of the last ping.
        total: The columns of all partitions together.
        trained: Those of the partitions that train.
        partitions: The columns of each partition, and its name.
        changes: When the data plane entered a state, and why, newest first.
        failures: Polls that failed, newest first.
        successes: The last polls that succeeded, newest first.
    """

    window: str
    interval: float
    at: list[float] = []
    state: list[str] = []
    degraded: list[bool] = []
    ping: Column = []
    total: dict[str, Column] = {}
    trained: dict[str, Column] = {}
    partitions: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    successes: list[dict[str, Any]] = []

    def last_growth(self, column: str) -> float | None:
        """Return when a counter of the partitions that train was last seen to grow, None when it was not."""
        values = self.trained.get(column, [])
        for index in range(min(len(values), len(self.at)) - 1, 0, -1):
            before, after = values[index - 1], values[index]
            if before is not None and after is not None and after > before:
                return self.at[index]
        return None

    def rate(self, column: str, seconds: float) -> float | None:
        """Return the growth per second of a counter of the partitions that train over the last *seconds*.

        None while fewer than two of those samples are known.
        """
        points = [
            (at, value)
            for at, value in zip(self.at, self.trained.get(column, []), strict=False)
            if value is not None and at >= self.at[-1] - seconds
        ]
        if len(points) < 2 or points[-1][0] <= points[0][0]:
            return None
        return max(points[-1][1] - points[0][1], 0.0) / (points[-1][0] - points[0][0])


def decode_window(body: bytes) -> Window:
    """Return the window in *body*; raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(body, type=Window)
