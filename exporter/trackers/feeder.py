"""Feeds the trackers: one thread per tracker reads the latest snapshot and has a point written.

A poll never waits for a tracker, nor does it know of one. A tracker that is slow misses points, and no queue grows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, get_args

from dataplane.tracking import Window
from exporter.clock import Clock
from exporter.config.model import Tracking
from exporter.logs import mask
from exporter.model.histogram import Histogram
from exporter.model.readings import histograms, readings
from exporter.model.snapshot import Snapshot
from exporter.trackers.base import Order, Point
from exporter.trackers.process import TrackerProcess

__all__ = ["OUTCOMES", "Feeder", "PointOutcome", "Trackers", "orders"]

logger = logging.getLogger(__name__)

PointOutcome = Literal["ok", "failed", "dropped"]
OUTCOMES: Final[tuple[PointOutcome, ...]] = get_args(PointOutcome)
"""``dropped``: not tried, since the tracker could not be started a short time ago or still wrote the last point."""

START_TIMEOUT_S: Final = 120.0
"""wandb and MLflow import for seconds, and then ask their server or make their tables."""

LOG_TIMEOUT_S: Final = 30.0
RESTART_S: Final = 60.0
"""Seconds between two starts of a tracker that fails."""

_TICK_S: Final = 0.5
_KILL_S: Final = 0.3
"""What it takes to kill a process and all that it has started, seconds."""


def orders(tracking: Tracking) -> list[Order]:
    """Return the trackers that are switched on."""
    chosen: list[Order] = []
    if tracking.tensorboard is not None:
        chosen.append(Order("tensorboard", {"folder": str(tracking.tensorboard)}))
    wandb, mlflow = tracking.wandb, tracking.mlflow
    if wandb.run_id is not None:
        settings = {"run_id": wandb.run_id, "project": wandb.project, "entity": wandb.entity, "mode": wandb.mode}
        chosen.append(Order("wandb", settings))
    if mlflow.uri is not None:
        chosen.append(Order("mlflow", {"uri": mlflow.uri, "run_id": mlflow.run_id, "experiment": mlflow.experiment}))
    return chosen


class Trackers:
    """All trackers of an exporter.

    Args:
        chosen: The trackers.
        snapshot: Returns the latest snapshot.
        count: Counts a point, by tracker.
        interval_s: Seconds between two points while the trainer's version does not change.
        clock: Spaces points and log lines.
        process: Makes a tracker's process; for tests.
    """

    def __init__(
        self,
        chosen: Sequence[Order],
        snapshot: Callable[[], Snapshot],
        count: Callable[[str, PointOutcome], None],
        *,
        interval_s: float,
        clock: Clock,
        process: Callable[[Order], TrackerProcess] = TrackerProcess,
    ) -> None:
        self._feeders = [
            Feeder(order.tracker, process(order), snapshot, count, interval_s=interval_s, clock=clock)
            for order in chosen
        ]
        self._clock = clock
        self._ends: list[threading.Thread] = []
        self._stopped_by = 0.0

    def start(self) -> None:
        """Start a thread per tracker."""
        for feeder in self._feeders:
            feeder.start()

    def stop(self, timeout_s: float) -> None:
        """Begin to stop: each tracker may take *timeout_s* seconds to write what is left. Returns at once."""
        self._stopped_by = self._clock.monotonic() + timeout_s + _KILL_S
        self._ends = [
            threading.Thread(target=feeder.stop, args=(timeout_s,), name="tq-tracker-stop", daemon=True)
            for feeder in self._feeders
        ]
        for end in self._ends:
            end.start()

    def join(self) -> None:
        """Wait until every tracker has stopped or was killed."""
        for end in self._ends:
            end.join(max(self._stopped_by - self._clock.monotonic(), 0.0))


class Feeder:
    """One tracker and the thread that feeds it. See :class:`Trackers`."""

    def __init__(
        self,
        name: str,
        process: TrackerProcess,
        snapshot: Callable[[], Snapshot],
        count: Callable[[str, PointOutcome], None],
        *,
        interval_s: float,
        clock: Clock,
    ) -> None:
        self._name = name
        self._process = process
        self._snapshot = snapshot
        self._count = count
        self._interval_s = interval_s
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tq-tracker-{name}", daemon=True)
        self._window = Window()
        self._before: Mapping[str, Histogram] | None = None
        self._works: bool | None = None
        self._started = False
        self._start_at = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop the thread, and the process within *timeout_s* seconds."""
        self._stopped.set()
        if not self._process.close(timeout_s):
            logger.warning(
                "%s did not finish within %g s and was killed; its last points may be lost", self._name, timeout_s
            )

    def _run(self) -> None:
        step: int | None = None
        due = 0.0
        taken_at: float | None = None
        while not self._stopped.is_set():
            snapshot, now = self._snapshot(), self._clock.monotonic()
            changed = snapshot.reference_version != step
            if snapshot.ready and snapshot.taken_at != taken_at and (changed or now >= due):
                late = 0 if due == 0.0 else int((now - due) / self._interval_s)
                for _ in range(late):
                    self._count(self._name, "dropped")
                step, due, taken_at = snapshot.reference_version, now + self._interval_s, snapshot.taken_at
                self.feed()
            self._clock.wait(self._stopped, _TICK_S)

    def feed(self) -> None:
        """Have one point written, and start the tracker before if it does not run."""
        if not self._started and not self._start_tracker():
            return
        outcome = self._process.log(self._point(self._snapshot()), LOG_TIMEOUT_S)  # a start may have taken long
        if self._stopped.is_set():
            return
        self._started = self._process.pid is not None
        self._count(self._name, "ok" if outcome.error is None else "failed")
        self._say(outcome.error)

    def _start_tracker(self) -> bool:
        now = self._clock.monotonic()
        if now < self._start_at:
            self._count(self._name, "dropped")
            return False
        self._start_at = now + RESTART_S
        error = self._process.start(START_TIMEOUT_S).error
        if self._stopped.is_set():
            return False
        self._started = error is None
        if error is not None:
            self._count(self._name, "failed")
            self._say(error)
        return self._started

    def _point(self, snapshot: Snapshot) -> Point:
        now = readings(snapshot)
        totals = histograms(snapshot)
        left = {}
        if self._before is not None:
            # What was not there at the last point was empty then.
            changes = {key: _difference(self._before.get(key), total) for key, total in totals.items()}
            left = {key: gone for key, gone in changes.items() if gone is not None}
        self._before = totals
        return Point(now.at, now.step, self._window.add(now), left)

    def _say(self, error: str | None) -> None:
        works = error is None
        if works == self._works:
            return
        if not works:
            logger.warning("%s gets no figures; polling continues: %s", self._name, mask(str(error)))
        else:
            logger.info("%s gets the figures%s", self._name, "" if self._works is None else " again")
        self._works = works


def _difference(before: Histogram | None, now: Histogram) -> Histogram | None:
    """Return what came to a histogram, None if that is nothing or the histogram started again."""
    if before is None:
        return now if now.count else None
    counts = tuple(new - old for old, new in zip(before.counts, now.counts, strict=True))
    if min(counts) < 0 or not any(counts):
        return None
    return Histogram(now.bounds, counts, now.sum - before.sum)
