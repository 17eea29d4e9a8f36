"""What the page says is wrong: judged over the partitions that train, from real histories of scripted runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from dataplane.groups import GROUP_STATES, GroupState
from exporter.model.history import WINDOWS, History
from exporter.model.occupancy import nothing
from exporter.model.snapshot import (
    OldestGroup,
    PartitionState,
    PartitionStatus,
    Reference,
    RoleFlow,
    Snapshot,
    SourceState,
    encode_snapshot,
)
from tests.page.support import Served
from tests.support.clock import StoppedClock

JUDGE = """([snapshot, histories, now]) => Promise.all(
  ["findings", "format"].map(name => import(new URL(`page/${name}.js`, location).href))
).then(([findings, format]) => findings.findings(snapshot, histories, now, format))"""


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    served = Served()
    opened = browser.new_page(timezone_id="UTC")
    opened.goto(served.url)
    yield opened
    opened.close()
    served.stop()


class Run:
    """A training run, seen every two seconds. ``groups`` are those of its partition ``train``."""

    def __init__(self) -> None:
        self.clock = StoppedClock()
        self.history = History(self.clock)
        self.groups: dict[GroupState, int] = dict.fromkeys(GROUP_STATES, 0)
        self.departed: dict[GroupState, int] = dict.fromkeys(GROUP_STATES, 0)
        self.arrived = self.completed = self.orphaned = self.regressions = 0
        self.per_step: int | None = None
        self.version, self.kind, self.newest = 7, "published", 7
        self.changed_at = self.clock.time()
        self.unfinished: tuple[OldestGroup, ...] = ()
        self.statuses = [PartitionStatus("train", True, None, self.clock.time())]

    def last(self, seconds: float) -> None:
        """Let time pass. Nothing happens to groups."""
        for _ in range(int(seconds / WINDOWS["recent"])):
            self.history.observe(self.snapshot())
            self.clock.advance(WINDOWS["recent"])

    def move(self, version: int) -> None:
        """Let the trainer's version become *version*."""
        self.regressions += version < self.version
        self.version, self.changed_at = version, self.clock.time()

    def snapshot(self) -> Snapshot:
        time = self.clock.time()
        kind: Reference = "rows" if self.kind == "rows" else "published"
        train = replace(
            nothing("train", time),
            groups=dict(self.groups),
            orphaned=self.orphaned,
            groups_per_step=self.per_step,
            newest_finished_version=self.newest,
            reference_version=self.version,
            reference=kind,
            unfinished=self.unfinished,
        )
        val = replace(nothing("val", time), groups=dict.fromkeys(GROUP_STATES, 0) | {"ready": 2}, role="eval")
        readable = all(one.readable for one in self.statuses if one.role == "train")
        parts: tuple[PartitionState, ...] = (train, val) if readable else (val,)
        zero = dict.fromkeys(GROUP_STATES, 0)
        return Snapshot(
            time,
            0.0,
            discovery="found",
            up=True,
            ready=True,
            partitions=parts,
            statuses=tuple(self.statuses),
            total=train,
            trained=train if readable else None,
            role_flows=(
                RoleFlow("train", self.arrived, self.completed, dict(self.departed), 0, 0),
                RoleFlow("eval", int(time), int(time), zero | {"ready": int(time)}, 0, 0),  # validation never rests
            ),
            reference_version=self.version,
            reference=kind,
            reference_changed_at=self.changed_at,
            version_regressions=self.regressions,
            sources=(SourceState("metadata", "ok", up=True, last_success=time, interval=2.0),),
        )

    def findings(self, page: Page) -> list[tuple[str, str]]:
        self.history.observe(self.snapshot())
        snapshot = json.loads(encode_snapshot(self.snapshot()))
        histories = [json.loads(self.history.encode(window)) for window in WINDOWS]
        found: list[dict[str, Any]] = page.evaluate(JUDGE, [snapshot, histories, self.clock.time()])
        return [(one["where"], one["text"]) for one in found]


@pytest.fixture
def run() -> Run:
    return Run()


def flow(run: Run, steps: int, *, seconds: float = 20.0, size: int = 4) -> None:
    """Let groups arrive, be completed, be taken and leave, a step every few seconds."""
    for _ in range(steps):
        run.arrived += size
        run.completed += size
        run.departed["taken"] += size
        run.move(run.version + 1)
        run.newest = run.version
        run.last(seconds)


def test_a_run_that_flows_has_no_findings(run: Run, page: Page) -> None:
    run.groups["taken"] = 4
    flow(run, 10)
    assert run.findings(page) == []


def test_leftovers_of_validation_do_not_hide_a_starved_trainer(run: Run, page: Page) -> None:
    flow(run, 6)
    run.last(120)
    assert run.findings(page) == [
        ("generation", "no group is ready, and none has been completed for 2 min 20 s; no group is unfinished")
    ]


def test_ready_groups_that_nobody_takes_are_stalled(run: Run, page: Page) -> None:
    flow(run, 6)
    run.groups["ready"] = 13
    for _ in range(20):
        run.arrived += 1
        run.completed += 1
        run.last(6)
    assert run.findings(page) == [("training", "13 groups are ready and none has left for 2 min 20 s")]


def test_fewer_groups_than_a_step_takes_are_a_starved_trainer(run: Run, page: Page) -> None:
    run.per_step = 16
    flow(run, 6)
    run.groups |= {"ready": 13, "uncommitted": 2, "incomplete": 1}
    run.unfinished = (
        OldestGroup("uncommitted", "tag", run.clock.time() - 80, "u17"),
        OldestGroup("incomplete", "first_seen", run.clock.time() - 30, "x" * 90),
    )
    run.last(120)
    assert run.findings(page) == [
        (
            "generation",
            "the trainer waits for 3 more groups, 13 of 16 are ready, and none has been completed for 2 min 20 s; "
            f"3 unfinished, the oldest: “u17” since 22:14:00 (3 min 20 s), “{'x' * 47}…” since 22:14:50 (2 min 30 s), "
            "and 1 more",
        )
    ]
    run.groups["uncommitted"] = 1
    ((_, text),) = run.findings(page)
    assert text.endswith("since 22:14:50 (2 min 30 s)")
    run.unfinished = ()
    ((_, text),) = run.findings(page)
    assert text.endswith("; 2 unfinished")
    run.groups["ready"] = 16
    assert [where for where, _ in run.findings(page)] == ["training", "generation"]


def test_a_batch_that_is_being_trained_starves_nobody(run: Run, page: Page) -> None:
    run.per_step = 16
    flow(run, 6, seconds=100)
    run.groups["taken"] = 16
    run.last(150)
    assert run.findings(page) == []
    run.last(150)
    assert run.findings(page) == [
        ("training", "16 groups are taken and none has left for 6 min 36 s")
    ]  # to 24 s: the coarse history


def test_orphaned_groups_are_named_and_are_no_work_in_progress(run: Run, page: Page) -> None:
    run.orphaned = run.groups["taken"] = 5
    run.last(120)
    assert run.findings(page) == [
        ("generation", "no group is ready, and none has been completed for 2 min; no group is unfinished"),
        ("queue", "5 taken groups are orphaned: the trainer's version has moved on, and nobody removes them"),
    ]


def test_groups_that_all_fail_are_named(run: Run, page: Page) -> None:
    run.last(10)
    run.groups["uncommitted"] = 16
    for _ in range(10):
        run.arrived += 16
        run.departed["uncommitted"] += 16
        run.last(12)
    assert run.findings(page) == [
        ("generation", "groups arrive and none has been completed for 2 min 10 s: 160 failed or were given up")
    ]


def test_groups_that_are_slow_have_not_failed(run: Run, page: Page) -> None:
    run.per_step = 16
    run.last(10)
    for _ in range(10):
        run.arrived += 2
        run.groups["uncommitted"] += 2
        run.last(12)
    run.departed["uncommitted"] += 1
    assert [text.partition(";")[0] for _, text in run.findings(page)] == [
        "the trainer waits for 16 more groups, 0 of 16 are ready, and none has been completed for 2 min 10 s"
    ]


def test_a_version_that_does_not_move_while_groups_leave_is_named(run: Run, page: Page) -> None:
    flow(run, 6)
    for _ in range(6):
        run.arrived += 4
        run.completed += 4
        run.departed["ready"] += 4
        run.last(20)
    assert run.findings(page) == [
        ("training", "the trainer's version is still 13, unchanged for 2 min 20 s, although 24 groups have left")
    ]


def test_weights_that_do_not_reach_the_rollouts_are_named(run: Run, page: Page) -> None:
    run.kind = "rows"
    flow(run, 6)
    run.newest = run.version - 5
    assert run.findings(page) == [
        (
            "training",
            "even the newest finished group is 5 versions behind the trainer's version 13: new weights do not reach "
            "the rollouts",
        )
    ]
    run.newest += 1
    assert run.findings(page) == []


def test_a_version_that_stepped_back_is_named_for_a_while(run: Run, page: Page) -> None:
    flow(run, 6)
    run.move(1)
    flow(run, 2)
    assert run.findings(page) == [("training", "the trainer's version stepped back from 13 to 2 at 22:15:20")]
    flow(run, 30)
    assert run.findings(page) == []


def test_nothing_is_judged_while_a_partition_that_trains_cannot_be_read(run: Run, page: Page) -> None:
    flow(run, 6)
    run.statuses = [
        PartitionStatus("train", False, "held", run.clock.time() - 30),
        *(PartitionStatus(f"train_{number}", False, "not_listable") for number in range(3)),
    ]
    run.last(120)
    assert run.findings(page) == [
        (
            "queue",
            "generation and training are not judged, since partition “train” cannot be read (held back, since it "
            "failed before; last listed 2 min 30 s ago), partition “train_0” cannot be read (not listable: samples "
            "were put without keys; never listed), 2 more cannot be read",
        )
    ]
    run.statuses = [PartitionStatus("train", True), PartitionStatus("val", False, "timeout", None, "eval")]
    assert [where for where, _ in run.findings(page)] == ["generation"]
