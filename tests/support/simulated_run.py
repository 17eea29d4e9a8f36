"""A simulated training run: snapshots as real polls give them, on a clock that a test moves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from dataplane.discovery.record import Endpoint
from dataplane.groups import GROUP_STATES, GroupState
from dataplane.labels import LAG_BOUNDS
from exporter.model.condition import Condition
from exporter.model.histogram import Histogram
from exporter.model.snapshot import (
    RESIDENCE_BOUNDS,
    Incident,
    PartitionFlow,
    PartitionState,
    PartitionStatus,
    Snapshot,
    SourceState,
)
from tests.support.clock import StoppedClock
from tests.support.snapshots import partition, with_totals

__all__ = ["STARVED", "SimulatedRun"]

STARVED = Condition(
    "DataPlaneTrainerStarved",
    "generation",
    "critical",
    True,
    True,
    since=0.0,
    text="no group is ready",
    evidence={"ready": 0, "quiet_seconds": 700.0},
    partitions=("train",),
    groups=("g17",),
    remedy="Check whether the rollout workers are alive.",
    runbook="docs/runbooks/DataPlaneTrainerStarved.md",
)


class SimulatedRun:
    """A queue that gets a group per second and trains it, with a new weight version every 90 s.

    Attributes:
        clock: Its clock.
        outage: The data plane does not answer.
        starved: Nothing arrives, and the condition says so.
        version: The trainer's version; by default that of the time.
        controller: The id of the controller.
        reason: Why it does not answer in an outage.
    """

    def __init__(self, clock: StoppedClock | None = None, *, partitions: int = 1) -> None:
        self.clock = clock or StoppedClock()
        self.outage = self.starved = False
        self.version: int | None = None
        self.controller = "TQ_CONTROLLER_1"
        self.reason = "no answer in 4 s"
        self._started = self.clock.time()
        self._arrived = 0
        self._incidents: tuple[Incident, ...] = ()
        self._names = ["train", *(f"train_{index}_b" for index in range(1, partitions))]

    def begin_again(self, *, controller: str | None = None, reason: str | None = None) -> None:
        """Watch it from now on as an exporter does that has just started."""
        self._started = self.clock.time()
        self._arrived = 0
        self._incidents = ()
        self.outage = self.starved = False
        self.controller = controller or self.controller
        self.reason = reason or self.reason

    def run(self, seconds: float, every_s: float = 1.0) -> Iterator[Snapshot]:
        """Yield the snapshots of the next *seconds*, and move the clock."""
        until = self.clock.time() + seconds
        while self.clock.time() < until - 1e-6:
            yield self.snapshot()
            self.clock.advance(every_s)
            if not self.outage and not self.starved:
                self._arrived += int(every_s)

    def snapshot(self) -> Snapshot:
        """Return the snapshot of now."""
        now = self.clock.time()
        listed_at = now - now % 10
        version = int((now - self._started) // 90) if self.version is None else self.version
        up = not self.outage
        if self.outage:
            self._incidents = (Incident(now, "ping", "ping", "DataPlaneTimeout", self.reason), *self._incidents)
            self._incidents = self._incidents[:50]
        sources = (
            SourceState("ping", "ok" if up else "failing", up, now, 0.002 + 0.001 * math.sin(now), 5.0),
            SourceState("metadata", "ok" if up else "failing", up, listed_at, 0.0123, 10.0),
        )
        return with_totals(
            Snapshot(
                taken_at=now,
                started_at=self._started,
                discovery="found",
                up=up,
                ready=True,
                generation=1,
                endpoint=Endpoint(
                    "tcp://10.0.0.7:40123", controller_id=self.controller, versions={"transfer_queue": "0.1.11"}
                ),
                partitions=tuple(self._partition(name, listed_at, version) for name in self._names) if up else (),
                statuses=tuple(PartitionStatus(name, True, None, listed_at) for name in self._names),
                flows=tuple(self._flow(name) for name in self._names),
                reference_version=version if up else None,
                reference="published" if up else None,
                sources=sources,
                incidents=self._incidents,
                conditions=(replace(STARVED, since=now),) if self.starved else (),
                version="0.1.0",
            ),
            listed=up,
        )

    def _partition(self, name: str, listed_at: float, version: int) -> PartitionState:
        part = partition(name, groups=self._arrived % 64, newest=version)
        return replace(
            part, listed_at=listed_at, newest_listing=listed_at, staleness_max=self._arrived % 5, unfinished=()
        )

    def _flow(self, name: str) -> PartitionFlow:
        gone = max(self._arrived - 64, 0)
        departed: dict[GroupState, int] = dict.fromkeys(GROUP_STATES, 0)
        departed["failed"] = gone // 20
        departed["ready"] = gone - departed["failed"]
        lags = Histogram(LAG_BOUNDS, (gone - gone // 10, 0, 0, 0, 0, gone // 10, 0, 0, 0), 7.0 * (gone // 10))
        residence = Histogram(RESIDENCE_BOUNDS, (gone, *(0,) * len(RESIDENCE_BOUNDS)), 60.0 * gone)
        return PartitionFlow(name, self._arrived, self._arrived, gone, departed, 0, 0, residence, lags)
