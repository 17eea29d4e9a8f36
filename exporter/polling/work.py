"""What a request costs the controller: its work, not our wait for a CPU.

From send to reply, most of the time on a busy machine is waiting: for the controller to be scheduled, for what it does
for others, for ourselves. A ping waits just as long and is hardly any work. So the work of a request is its time beyond
that of the pings beside it, and within what is plausible for its rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final

from dataplane.errors import DataPlaneError
from dataplane.interfaces import MetadataReader
from exporter.clock import Clock
from exporter.model.tasks import ControllerRequests

__all__ = ["REQUEST_S", "OwnTimes", "WorkMeter", "plausible_s"]

REQUEST_S: Final = 0.002
"""The most that a request without rows takes the controller, in seconds. Measured: 0.05 ms; ten times that on a slow
machine, and a margin."""

_ROW_S: Final = 40e-6
"""The most that a row takes: one with four pickled scalars. A row with six plain tags takes 0.4 microseconds."""

_LEAST_ROW_S: Final = 0.2e-6
"""The least that a row takes, measured with one integer as its tag."""

_SLOWER: Final = 10.0
"""By how much a listing may at once be slower than the fastest of a partition's recent ones. More is our wait."""

_RECENT: Final = 5

_PING_TIMEOUT_S: Final = 1.0


def plausible_s(rows: int) -> float:
    """Return the most seconds that a request about *rows* rows can take the controller."""
    return REQUEST_S + _ROW_S * rows


class WorkMeter:
    """Measures the controller's work for the requests of one reader. Not thread-safe.

    Args:
        reader: The reader. Its optional attribute ``controller_seconds`` is the time from sending its requests to
            receiving their replies, in seconds: an upper bound of the controller's work, which this class narrows down.
            (A poll's span has an attribute of the same name: that is the work.) Without it the calls' own duration
            counts, decoding included.
        clock: Measures durations.
    """

    def __init__(self, reader: MetadataReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._ping_s = 0.0
        self._per_row: dict[str, deque[float]] = {}

    def seconds(self) -> float:
        """Return the time of all requests up to now, from send to reply. Only differences have a meaning."""
        seconds: float | None = getattr(self._reader, "controller_seconds", None)
        return self._clock.monotonic() if seconds is None else seconds

    def pinged(self, took_s: float) -> float:
        """Note a request without rows, from send to reply; return its work. The ones after it are compared with it."""
        self._ping_s = max(took_s, 0.0)
        return min(self._ping_s, REQUEST_S)

    def work(self, took_s: float, rows: int | None, partition: str = "") -> float:
        """Return the work of the last request in seconds, at most: *took_s* beyond the faster of two pings.

        Asks for another ping where that makes a difference.

        Args:
            took_s: The request's time from send to reply.
            rows: How many rows it was about, None when unknown: any work is plausible then.
            partition: Whose listing it was, empty for another request.
        """
        before_s = self._ping_s
        if took_s - before_s > REQUEST_S:
            with suppress(DataPlaneError):  # the next request tells what is wrong; the ping before counts
                self.pinged(self._reader.ping(_PING_TIMEOUT_S))
        work_s = max(took_s - min(before_s, self._ping_s), 0.0)
        if rows is None:
            return work_s
        # A controller whose pings are slow for a reason of their own gets no listings for nothing.
        work_s = min(max(work_s, min(took_s, _LEAST_ROW_S * rows)), plausible_s(rows))
        if not partition or not rows:
            return work_s
        recent = self._per_row.setdefault(partition, deque(maxlen=_RECENT))
        usual_s = min(recent, default=_ROW_S)
        recent.append(work_s / rows)
        return min(work_s, REQUEST_S + _SLOWER * usual_s * rows)

    def retain(self, partitions: AbstractSet[str]) -> None:
        """Forget partitions that are gone."""
        for gone in self._per_row.keys() - partitions:
            del self._per_row[gone]


class OwnTimes:
    """Compares the work as estimated here with the times that the controller measures of the same requests.

    TransferQueue's own metrics count the listings of all observers. So they tell something only while nobody else
    lists. They leave out the encoding of replies, so they only ever raise an estimate.

    Attributes:
        factor: By how much estimates must be raised, 1 or more.
    """

    _WINDOW: Final = 6  # listings; enough that one in flight at either end does not decide
    _LARGEST: Final = 10.0

    def __init__(self) -> None:
        self.factor = 1.0
        self._listings, self._work_s = 0, 0.0
        self._begin: tuple[int, float, int, float] | None = None

    def listed(self, work_s: Iterable[float]) -> None:
        """Note the listings of one of our rounds, each by its work as estimated, without :attr:`factor`."""
        self._listings += 1  # the reserved partition's may be one more
        for one in work_s:
            self._listings += 1
            self._work_s += one

    def measured(self, requests: Iterable[ControllerRequests]) -> None:
        """Note what the controller has measured of all requests since it started."""
        theirs = next((one for one in requests if one.operation == "KV_LIST"), None)
        if theirs is None or theirs.duration is None:
            return
        now = (self._listings, self._work_s, theirs.duration.count, theirs.duration.sum)
        if self._begin is None:
            self._begin = now
            return
        listings, work_s, counted, took_s = (last - first for last, first in zip(now, self._begin, strict=True))
        if listings < self._WINDOW and counted >= 0:
            return
        self._begin = now
        if 0 < counted <= listings + 1 and work_s > 0:
            self.factor = min(max(took_s / work_s, 1.0), self._LARGEST)
        else:
            self.factor = 1.0
