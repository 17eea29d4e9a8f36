"""The result of a run: groups that arrived, left or were lost, idle time, lag, outages. Terms: docs/recorder.md."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from dataplane.groups import GROUP_STATES
from dataplane.labels import LAG_BOUNDS
from dataplane.partitions import role_of
from exporter.model.histogram import Histogram
from exporter.model.samples import plane_state
from exporter.model.snapshot import PartitionFlow, Snapshot

__all__ = [
    "STALLED",
    "STARVED",
    "Summary",
    "SummaryOnly",
    "Tally",
    "decode_summary",
    "encode_summary",
    "in_words",
    "log_summary",
    "together",
]

logger = logging.getLogger(__name__)

STARVED: Final = ("DataPlaneTrainerStarved", "DataPlaneTrainerWaiting", "DataPlaneTaskStarved")
"""While one of these conditions holds, the trainer starves."""

STALLED: Final = ("DataPlaneQueueStalled", "DataPlaneTrainingQuiet", "DataPlaneTaskStalled")
"""While one of these conditions holds, the trainer is stalled."""

_OUT: Final = ("silent", "lost", "unreachable")
_COMPLETE: Final = ("ready", "taken")
_UNWATCHED_S: Final = 60.0


class Summary(msgspec.Struct):
    """What a run came to, or one process of the exporter. Of the partitions that train.

    Counts of groups are lower bounds, and so are the seconds.

    Attributes:
        started_at: When it began, seconds since the epoch.
        until: When it was last watched, seconds since the epoch.
        watched_s: Seconds in which it was watched.
        processes: Processes of the exporter.
        groups_in: Groups that arrived.
        completed: Groups that became ready.
        left: Groups that left, by their last state.
        lost: Groups that disappeared with their controller, or when a checkpoint was loaded.
        lag_counts: Groups that left, by lag: a count for each of :data:`~dataplane.labels.LAG_BOUNDS`, and one above.
        lag_sum: Sum of their lags.
        window: The largest acceptable lag.
        starved_s: Seconds in which a condition of :data:`STARVED` held.
        stalled_s: Seconds in which a condition of :data:`STALLED` held.
        outages: How often a data plane that had answered stopped to answer.
        out_s: Seconds in which it did not.
        longest_outage_s: Seconds of the longest of these times.
    """

    started_at: float = 0.0
    until: float = 0.0
    watched_s: float = 0.0
    processes: int = 1
    groups_in: int = 0
    completed: int = 0
    left: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(GROUP_STATES, 0))
    lost: int = 0
    lag_counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LAG_BOUNDS) + 1))
    lag_sum: float = 0.0
    window: float = 0.0
    starved_s: float = 0.0
    stalled_s: float = 0.0
    outages: int = 0
    out_s: float = 0.0
    longest_outage_s: float = 0.0

    @property
    def trained(self) -> int:
        """Groups that left complete. At most so many were trained: an eviction of a ready group looks the same."""
        return sum(self.left[state] for state in _COMPLETE)

    @property
    def evicted(self) -> dict[str, int]:
        """Groups that left without being complete, by their last state."""
        return {state: count for state, count in self.left.items() if state not in _COMPLETE}

    @property
    def mean_lag(self) -> float | None:
        """Mean lag of the groups that left, in versions, None when none is known."""
        return self.lag_sum / sum(self.lag_counts) if sum(self.lag_counts) else None

    @property
    def p95_lag(self) -> float | None:
        """An upper bound of the lag of 95 % of the groups that left; infinite above the last bound, None if unknown."""
        rank, below = 0.95 * sum(self.lag_counts), 0
        for bound, count in zip((*LAG_BOUNDS, float("inf")), self.lag_counts, strict=True):
            below += count
            if below and below >= rank:
                return bound
        return None

    @property
    def too_old(self) -> int:
        """Groups that left with a lag above the window, at least."""
        lowest = (-1.0, *LAG_BOUNDS)
        return sum(count for low, count in zip(lowest, self.lag_counts, strict=True) if low >= self.window)


class Tally:
    """Sums up the snapshots of one process of the exporter. Cheap; not thread-safe.

    Args:
        window: The largest acceptable lag.
    """

    def __init__(self, window: float) -> None:
        self._summary = Summary(window=window)
        self._last: Snapshot | None = None
        self._flows: dict[str, PartitionFlow] = {}
        self._out_since: float | None = None
        self._answered = False

    @property
    def summary(self) -> Summary:
        """What they came to so far."""
        return self._summary

    def see(self, snapshot: Snapshot) -> None:
        """Add *snapshot*."""
        so_far, last, self._last = self._summary, self._last, snapshot
        so_far.started_at, so_far.until = snapshot.started_at, max(so_far.until, snapshot.taken_at)
        passed = 0.0 if last is None else snapshot.taken_at - last.taken_at
        if 0 < passed <= _UNWATCHED_S and last is not None:  # the machine did not sleep, and its clock was not set
            so_far.watched_s += passed
            so_far.starved_s += passed if _both(last, snapshot, STARVED) else 0.0
            so_far.stalled_s += passed if _both(last, snapshot, STALLED) else 0.0
        self._see_outage(snapshot, passed if 0 < passed <= _UNWATCHED_S else 0.0)
        for flow in snapshot.role_flows:
            if flow.role == "train":
                so_far.groups_in, so_far.completed, so_far.lost = flow.arrived, flow.completed, flow.lost
                so_far.left = {state: flow.departed[state] for state in GROUP_STATES}
        if last is None or snapshot.flows is not last.flows:
            self._see_lags(snapshot)

    def _see_outage(self, snapshot: Snapshot, passed: float) -> None:
        state = plane_state(snapshot)
        self._answered = self._answered or state == "found"
        if state not in _OUT or not self._answered:
            self._out_since = None
            return
        if self._out_since is None:
            self._out_since = snapshot.taken_at
            self._summary.outages += 1
            return
        self._summary.out_s += passed
        length = snapshot.taken_at - self._out_since
        self._summary.longest_outage_s = max(self._summary.longest_outage_s, length)

    def _see_lags(self, snapshot: Snapshot) -> None:
        roles = {status.partition: status.role for status in snapshot.statuses}
        for flow in snapshot.flows:
            known = self._flows.get(flow.partition)
            if flow is known or roles.get(flow.partition, role_of(flow.partition)) != "train":
                continue
            fresh = _since(flow.departure_lag, None if known is None else known.departure_lag)
            for index, count in enumerate(fresh.counts):
                self._summary.lag_counts[index] += count
            self._summary.lag_sum += fresh.sum
        self._flows = {flow.partition: flow for flow in snapshot.flows}


class SummaryOnly:
    """Sums up the run where it is not recorded: in place of a :class:`~exporter.recording.recorder.FlightRecorder`.

    Args:
        window: The largest acceptable lag.
    """

    def __init__(self, window: float) -> None:
        self._tally = Tally(window)
        self._defective = False

    def start(self) -> None:
        """Do nothing."""

    def observe(self, snapshot: Snapshot) -> Snapshot:
        """Note *snapshot*, and return it."""
        try:
            if not self._defective:
                self._tally.see(snapshot)
        except Exception:  # our bug must not end the polling, which waits for this
            self._defective = True
            logger.exception("summing up the run failed unexpectedly")
        return snapshot

    def record_departures(self, departures: Iterable[Mapping[str, object]]) -> None:
        """Keep nothing of single groups."""

    def stop(self, timeout_s: float) -> None:
        """Log the summary of the run."""
        log_summary(self._tally.summary)


def log_summary(summary: Summary) -> None:
    """Log what a run came to, if it was watched at all."""
    if summary.watched_s:
        logger.info("the run: %s", in_words(summary))


def encode_summary(summary: Summary) -> bytes:
    """Return *summary* as it is stored."""
    return msgspec.json.encode(summary)


def decode_summary(body: bytes) -> Summary:
    """Return a stored summary; raises msgspec.DecodeError, a ValueError, when it is none."""
    return msgspec.json.decode(body, type=Summary)


def together(summaries: Iterable[Summary]) -> Summary:
    """Return the sum of several processes' summaries."""
    return functools.reduce(_add, summaries, Summary(processes=0))


def in_words(summary: Summary) -> str:
    """Return the summary as one line."""
    not_ready = ", ".join(f"{count} {state}" for state, count in summary.evicted.items() if count) or "none"
    lag = "lag unknown"
    if summary.mean_lag is not None and summary.p95_lag is not None:
        last = f"≤ {summary.p95_lag:g}" if summary.p95_lag != float("inf") else f"> {LAG_BOUNDS[-1]:g}"
        lag = f"lag mean {summary.mean_lag:.2g}, p95 {last}; left above lag {summary.window:g}: {summary.too_old}"
    parts = [
        f"watched for {summary.watched_s:.0f} s",
        f"groups in {summary.groups_in}",
        f"left complete (trained at most) {summary.trained}",
        f"left not ready {not_ready}",
        f"lost {summary.lost}",
        lag,
        f"trainer starved {summary.starved_s:.0f} s, stalled {summary.stalled_s:.0f} s",
        f"outages {summary.outages}, the longest {summary.longest_outage_s:.0f} s",
    ]
    if summary.processes > 1:
        parts.append(f"of {summary.processes} processes of the exporter")
    return "; ".join(parts) + " (counts and seconds are lower bounds)"


def _add(one: Summary, other: Summary) -> Summary:
    return Summary(
        started_at=min(one.started_at or other.started_at, other.started_at),
        until=max(one.until, other.until),
        watched_s=one.watched_s + other.watched_s,
        processes=one.processes + other.processes,
        groups_in=one.groups_in + other.groups_in,
        completed=one.completed + other.completed,
        left={state: one.left.get(state, 0) + other.left.get(state, 0) for state in GROUP_STATES},
        lost=one.lost + other.lost,
        lag_counts=[a + b for a, b in zip(one.lag_counts, other.lag_counts, strict=True)],
        lag_sum=one.lag_sum + other.lag_sum,
        window=other.window,
        starved_s=one.starved_s + other.starved_s,
        stalled_s=one.stalled_s + other.stalled_s,
        outages=one.outages + other.outages,
        out_s=one.out_s + other.out_s,
        longest_outage_s=max(one.longest_outage_s, other.longest_outage_s),
    )


def _both(last: Snapshot, snapshot: Snapshot, names: tuple[str, ...]) -> bool:
    return all(any(one.holds and one.name in names for one in seen.conditions) for seen in (last, snapshot))


def _since(now: Histogram, before: Histogram | None) -> Histogram:
    """Return what a histogram has gained; all of it when it started again."""
    if before is None or now.count < before.count:
        return now
    counts = tuple(here - there for here, there in zip(now.counts, before.counts, strict=True))
    return replace(now, counts=counts, sum=now.sum - before.sum)
