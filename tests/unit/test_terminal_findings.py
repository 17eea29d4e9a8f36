"""What ``once`` says is wrong, from one poll and from a while of watching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from dataplane.groups import GROUP_STATES
from exporter.model.occupancy import nothing
from exporter.model.snapshot import ALL_PARTITIONS, OldestGroup, PartitionState, RoleFlow, Snapshot
from exporter.model.tasks import PartitionSamples
from exporter.terminal.findings import findings

AT = 1_900_000_000.0


def trained(groups: Mapping[str, int], **fields: Any) -> PartitionState:
    return replace(
        nothing(ALL_PARTITIONS, AT), groups={state: groups.get(state, 0) for state in GROUP_STATES}, **fields
    )


def said(
    state: PartitionState | None,
    *,
    arrived: int = 0,
    completed: int = 0,
    departed: Mapping[str, int] | None = None,
    watched_s: float | None = 60.0,
    **fields: Any,
) -> list[str]:
    flow = RoleFlow(
        "train", arrived, completed, {state: (departed or {}).get(state, 0) for state in GROUP_STATES}, 0, 0
    )
    return list(findings(Snapshot(AT, AT - 60, trained=state, role_flows=(flow,), **fields), watched_s))


def test_one_poll_shows_no_flow() -> None:
    assert said(trained({"ready": 3}), watched_s=None) == []


def test_what_flows_is_well() -> None:
    assert said(trained({"ready": 3}), arrived=9, completed=9, departed={"ready": 8}) == []
    assert said(trained({"taken": 3}), arrived=9, completed=9, departed={"taken": 8}) == []


@pytest.mark.parametrize(
    ("groups", "what"), [({"ready": 4}, "4 groups are ready"), ({"ready": 1, "taken": 2}, "2 groups are taken")]
)
def test_a_stalled_trainer(groups: Mapping[str, int], what: str) -> None:
    assert said(trained(groups), arrived=2, completed=2, departed={"failed": 1}) == [
        f"{what}, and the trainer finished with none in 60 s"
    ]


def test_orphaned_groups_are_no_work_in_progress() -> None:
    assert said(trained({"taken": 2}, orphaned=2)) == ["the trainer waits, and no group was completed in 60 s"]


def test_every_rollout_fails() -> None:
    assert said(trained({"uncommitted": 4}), arrived=20, departed={"uncommitted": 14, "failed": 2}) == [
        "groups arrive and none was completed in 60 s: 16 failed or were given up"
    ]


def test_a_starved_trainer_and_the_groups_that_hold_it_up() -> None:
    unfinished = (OldestGroup("uncommitted", "tag", AT - 90, "u7"), OldestGroup("incomplete", "tag", AT - 30, "u\x1b9"))
    state = trained({"ready": 13, "uncommitted": 1, "incomplete": 1}, groups_per_step=16, unfinished=unfinished)
    named = "2 unfinished, the oldest: 'u7' since 17:45:10 UTC, 'u\\x1b9' since 17:46:10 UTC"
    assert said(state) == [
        f"13 of the 16 groups of a step are ready; {named}",
        f"the trainer waits, and no group was completed in 60 s; {named}",
    ]
    assert said(trained({"ready": 16}, groups_per_step=16), completed=1, departed={"ready": 1}) == []


def test_of_many_unfinished_groups_three_are_named_and_the_rest_counted() -> None:
    unfinished = tuple(OldestGroup("uncommitted", "tag", AT - 90 + at, f"{at}" * 128) for at in range(3))
    state = trained({"uncommitted": 1000}, groups_per_step=16, unfinished=unfinished)
    (text, _) = said(state)
    assert text == (
        f"0 of the 16 groups of a step are ready; 1000 unfinished, the oldest: '{'0' * 47}…' since 17:45:10 UTC, "
        f"'{'1' * 47}…' since 17:45:11 UTC, '{'2' * 47}…' since 17:45:12 UTC, and 997 more"
    )
    (text, _) = said(trained({"incomplete": 4}, groups_per_step=16))
    assert text.endswith("; 4 unfinished")


@pytest.mark.parametrize("watched_s", [None, 60.0])
def test_a_dead_weight_sync(watched_s: float | None) -> None:
    state = trained({"ready": 1}, newest_finished_version=8)
    moving: dict[str, Any] = {"completed": 1, "departed": {"ready": 1}, "watched_s": watched_s}
    assert said(state, reference_version=13, **moving) == [
        "even the newest finished group is 5 versions behind the trainer's version 13: new weights do not reach the "
        "rollouts"
    ]
    assert said(state, reference_version=12, **moving) == []
    assert said(state, reference_version=None, **moving) == []


def test_samples_without_keys_that_wait_for_a_task() -> None:
    samples = (PartitionSamples("raw", 10, "ref", 4), PartitionSamples("val", 3, "ref", 0), PartitionSamples("x", 3))
    assert said(None, samples=samples) == ["4 samples of 'raw' wait for the task 'ref'"]
