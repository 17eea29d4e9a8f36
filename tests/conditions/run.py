"""A scripted training run, seen every two seconds and judged as the exporter judges it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dataplane.groups import GROUP_STATES, GroupState
from exporter.conditions import Judge, Limits
from exporter.model.condition import Condition
from exporter.model.history import WINDOWS, History
from exporter.model.occupancy import nothing
from exporter.model.snapshot import (
    ALL_PARTITIONS,
    OldestGroup,
    PartitionState,
    PartitionStatus,
    Reference,
    RoleFlow,
    Snapshot,
    SourceState,
)
from tests.support.clock import StoppedClock

__all__ = ["Run", "flow"]

EVERY_S = WINDOWS["recent"]


class Run:
    """A run whose state a test sets between looks. ``groups`` are those of its partition ``train``.

    ``more`` replaces fields of every snapshot.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = StoppedClock()
        self.history = History(self.clock)
        self.judge = Judge(self.history, limits)
        self.groups: dict[GroupState, int] = dict.fromkeys(GROUP_STATES, 0)
        self.departed: dict[GroupState, int] = dict.fromkeys(GROUP_STATES, 0)
        self.arrived = self.completed = self.orphaned = self.regressions = 0
        self.per_step: int | None = None
        self.lag: int | None = 0
        self.version: int | None = 7
        self.kind: Reference = "published"
        self.newest: int | None = 7
        self.changed_at = self.clock.time()
        self.unfinished: tuple[OldestGroup, ...] = ()
        self.statuses = [PartitionStatus("train", True, None, self.clock.time())]
        self.more: dict[str, Any] = {}

    def last(self, seconds: float) -> None:
        """Let time pass. Nothing happens to groups."""
        for _ in range(int(seconds / EVERY_S)):
            self.judge.judge(self.snapshot())
            self.clock.advance(EVERY_S)

    def move(self, version: int) -> None:
        """Let the trainer's version become *version*."""
        self.regressions += self.version is not None and version < self.version
        self.version, self.changed_at = version, self.clock.time()

    def snapshot(self) -> Snapshot:
        """Return what is seen now, not judged yet."""
        time = self.clock.time()
        train = replace(
            nothing("train", time),
            groups=dict(self.groups),
            orphaned=self.orphaned,
            groups_per_step=self.per_step,
            newest_finished_version=self.newest,
            reference_version=self.version,
            reference=self.kind,
            unfinished=self.unfinished,
            staleness_max=self.lag,
        )
        val = replace(nothing("val", time), groups=dict.fromkeys(GROUP_STATES, 0) | {"ready": 2}, role="eval")
        readable = all(one.readable for one in self.statuses if one.role == "train")
        parts: tuple[PartitionState, ...] = (train, val) if readable else (val,)
        zero = dict.fromkeys(GROUP_STATES, 0)
        seen = Snapshot(
            time,
            0.0,
            discovery="found",
            up=True,
            ready=True,
            generation=1,
            partitions=parts,
            statuses=tuple(self.statuses),
            total=replace(train, partition=ALL_PARTITIONS),
            trained=train if readable else None,
            role_flows=(
                RoleFlow("train", self.arrived, self.completed, dict(self.departed), 0, 0),
                RoleFlow("eval", int(time), int(time), zero | {"ready": int(time)}, 0, 0),  # validation never rests
            ),
            reference_version=self.version,
            reference=self.kind,
            reference_changed_at=self.changed_at,
            version_regressions=self.regressions,
            sources=(SourceState("metadata", "ok", up=True, last_success=time, interval=2.0),),
        )
        return replace(seen, **self.more)

    def look(self) -> Snapshot:
        """Return what is seen now, judged."""
        return self.judge.judge(self.snapshot())

    def found(self) -> list[tuple[str, str]]:
        """Return name and text of what is wrong now."""
        return [(one.name, one.text) for one in self.look().held]

    def condition(self, name: str) -> Condition:
        """Return one condition as of now."""
        return next(one for one in self.look().conditions if one.name == name)


def flow(run: Run, steps: int, *, seconds: float = 20.0, size: int = 4) -> None:
    """Let groups arrive, be completed, be taken and leave, a step every few seconds."""
    for _ in range(steps):
        run.arrived += size
        run.completed += size
        run.departed["taken"] += size
        run.move((run.version or 0) + 1)
        run.newest = run.version
        run.last(seconds)
