"""Whether generation and training flow: judged over the partitions that train, from histories of scripted runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataplane.discovery.record import Endpoint
from exporter.conditions import CONDITIONS, Limits
from exporter.model.snapshot import OldestGroup, PartitionStatus
from exporter.model.storage import StorageState
from tests.conditions.run import Run, flow


@pytest.fixture
def run() -> Run:
    return Run()


def test_a_run_that_flows_is_well(run: Run) -> None:
    run.groups["taken"] = 4
    flow(run, 10)
    assert run.found() == []
    flows = run.condition("DataPlaneFlows")
    assert flows.holds is True
    assert flows.text == "groups flow through generation, queue and training"
    assert flows.evidence == {"arrived_ago_seconds": 20, "departed_ago_seconds": 20}


@pytest.mark.parametrize("still", ["arrived", "departed"])
def test_all_flow_only_if_both_counters_grow(run: Run, still: str) -> None:
    run.groups["ready"] = 4
    flow(run, 6)
    for _ in range(10):
        if still == "departed":
            run.arrived, run.completed = run.arrived + 1, run.completed + 1
        else:
            run.departed["ready"] += 1
        run.last(20)
    assert run.condition("DataPlaneFlows").holds is False


def test_before_anything_was_seen_to_move_nothing_is_said_to_flow(run: Run) -> None:
    assert run.condition("DataPlaneFlows").holds is None
    run.last(300)
    assert run.condition("DataPlaneFlows").holds is None, "nobody knows how often groups come and go"


def test_leftovers_of_validation_do_not_hide_a_starved_trainer(run: Run) -> None:
    flow(run, 6)
    run.last(120)
    assert run.found() == [
        (
            "DataPlaneTrainerWaiting",
            "no group is ready, and none has been completed for 2 min 20 s; no group is unfinished",
        )
    ]
    run.last(500)
    assert [name for name, _ in run.found()] == ["DataPlaneTrainerStarved"]


def test_ready_groups_that_nobody_takes(run: Run) -> None:
    flow(run, 6)
    run.groups["ready"] = 13

    def go_on(times: int) -> None:
        for _ in range(times):
            run.arrived += 1
            run.completed += 1
            run.last(6)

    go_on(20)
    assert run.found() == [("DataPlaneTrainingQuiet", "13 groups are ready and none has left for 2 min 20 s")]
    quiet = run.condition("DataPlaneTrainingQuiet")
    assert quiet.since == run.clock.time() - 140
    assert quiet.evidence == {"ready": 13, "quiet_seconds": 140}
    assert run.look().degraded is False
    go_on(140)
    assert [name for name, _ in run.found()] == ["DataPlaneQueueStalled"]
    assert run.look().degraded is True


def test_a_queue_that_fills_up_comes_after_the_trainer_that_stopped(run: Run) -> None:
    flow(run, 6)
    run.groups["ready"] = 13
    run.more["storage"] = (StorageState(0, "u0", capacity=100, keys=100),)
    run.last(120)
    assert [name for name, _ in run.found()][:2] == ["DataPlaneTrainingQuiet", "DataPlaneStorageFull"]
    run.last(900)
    assert [name for name, _ in run.found()][:2] == ["DataPlaneQueueStalled", "DataPlaneStorageFull"]


def test_fewer_groups_than_a_step_takes_are_a_starved_trainer(run: Run) -> None:
    run.per_step = 16
    flow(run, 6)
    run.groups |= {"ready": 13, "uncommitted": 2, "incomplete": 1}
    run.unfinished = (
        OldestGroup("uncommitted", "tag", run.clock.time() - 80, "u\x1b17"),
        OldestGroup("incomplete", "first_seen", run.clock.time() - 30, "x" * 90),
    )
    run.last(120)
    assert run.found() == [
        (
            "DataPlaneTrainerWaiting",
            "the trainer waits for 3 more groups, 13 of 16 are ready, and none has been completed for 2 min 20 s; "
            f"3 unfinished, the oldest: “u␛17” since 22:14:00 UTC (3 min 20 s), “{'x' * 47}…” since 22:14:50 UTC "
            "(2 min 30 s), and 1 more",
        )
    ]
    assert run.condition("DataPlaneTrainerWaiting").groups == ("u\x1b17", "x" * 90)
    run.unfinished = ()
    ((_, text),) = run.found()
    assert text.endswith("; 3 unfinished")
    run.groups["ready"] = 16
    assert [name for name, _ in run.found()] == ["DataPlaneTrainingQuiet", "DataPlaneArrivalsQuiet"]


def test_a_batch_that_is_being_trained_starves_nobody(run: Run) -> None:
    run.per_step = 16
    flow(run, 6, seconds=100)
    run.groups["taken"] = 16
    run.last(150)
    assert run.found() == []
    run.last(150)
    ((name, text),) = run.found()
    assert name == "DataPlaneTrainingQuiet"
    assert text.startswith("16 groups are taken and none has left for 6 min ")  # to 24 s: the coarse history


def test_orphaned_groups_are_no_work_in_progress(run: Run) -> None:
    run.orphaned = run.groups["taken"] = 5
    run.last(120)
    assert [name for name, _ in run.found()] == ["DataPlaneTrainerWaiting", "DataPlaneGroupsOrphaned"]


def test_groups_that_all_fail(run: Run) -> None:
    run.last(10)
    run.groups["uncommitted"] = 16
    for _ in range(10):
        run.arrived += 16
        run.departed["uncommitted"] += 16
        run.last(12)
    assert run.found() == [
        (
            "DataPlaneNoGroupCompleted",
            "groups arrive and none has been completed for 2 min 10 s: 160 failed or left unfinished",
        )
    ]


def test_groups_that_are_slow_have_not_failed(run: Run) -> None:
    run.per_step = 16
    run.last(10)
    for _ in range(10):
        run.arrived += 2
        run.groups["uncommitted"] += 2
        run.last(12)
    run.departed["uncommitted"] += 1
    assert [text.partition(";")[0] for _, text in run.found()] == [
        "the trainer waits for 16 more groups, 0 of 16 are ready, and none has been completed for 2 min 10 s"
    ]


def test_a_version_that_does_not_move_while_groups_leave(run: Run) -> None:
    flow(run, 6)
    for _ in range(6):
        run.arrived += 4
        run.completed += 4
        run.departed["ready"] += 4
        run.last(20)
    assert run.found() == [
        (
            "DataPlaneWeightVersionStuck",
            "the trainer's version is still 13, unchanged for 2 min 20 s, although 24 groups have left",
        )
    ]


def test_a_version_that_stepped_back_is_named_for_a_while(run: Run) -> None:
    flow(run, 6)
    run.move(1)
    flow(run, 2)
    assert run.found() == [
        (
            "DataPlaneWeightVersionSteppedBack",
            "the trainer's version stepped back from 13 to 2 at 22:15:20 UTC",
        )
    ]
    flow(run, 30)
    assert run.found() == []


def test_a_lag_far_above_the_usual_is_no_flow(run: Run) -> None:
    run.lag = 1
    flow(run, 30)
    run.lag = 6
    assert run.condition("DataPlaneLagUnusual").holds is False
    run.lag = 7
    unusual = run.condition("DataPlaneLagUnusual")
    assert unusual.text == "the largest lag is 7 weight versions; in the last hour it was usually 1"
    assert run.condition("DataPlaneFlows").holds is False


def test_nothing_is_judged_while_a_partition_that_trains_cannot_be_read(run: Run) -> None:
    flow(run, 6)
    run.statuses = [
        PartitionStatus("train", False, "held", run.clock.time() - 30),
        *(PartitionStatus(f"train_{number}", False, "not_listable") for number in range(3)),
        PartitionStatus("val", False, "timeout", None, "eval"),
    ]
    run.last(2000)
    assert run.found() == [
        (
            "DataPlanePartitionUnreadable",
            "generation and training are not evaluated, because partition “train” cannot be read (backing off after a "
            "failed listing; last listed 33 min 50 s ago), partition “train_0” cannot be read (not listable: samples "
            "were put without keys; never listed), 3 more cannot be read",
        )
    ]
    unknown = {one.name for one in run.look().conditions if one.holds is None}
    assert {
        "DataPlaneQueueStalled",
        "DataPlaneTrainingQuiet",
        "DataPlaneTrainerStarved",
        "DataPlaneTrainerWaiting",
        "DataPlaneNoGroupCompleted",
        "DataPlaneWeightVersionStuck",
        "DataPlaneStalenessAboveWindow",
        "DataPlaneGroupsOrphaned",
        "DataPlaneTaskStalled",
        "DataPlaneFlows",
    } <= unknown


def test_time_that_nobody_watched_is_not_quiet(run: Run) -> None:
    """Once the partition can be read again, a trainer is not stalled by what was not seen."""
    flow(run, 6)
    run.groups["ready"] = 4
    readable, run.statuses = run.statuses, [PartitionStatus("train", False, "timeout")]
    run.last(1200)
    run.statuses = readable
    run.last(40)
    assert run.found() == []
    run.last(60)
    assert [name for name, _ in run.found()] == ["DataPlaneTrainingQuiet", "DataPlaneArrivalsQuiet"]


def test_validation_that_cannot_be_read_leaves_training_judged(run: Run) -> None:
    flow(run, 6)
    run.statuses = [*run.statuses, PartitionStatus("val", False, "timeout", None, "eval")]
    run.last(120)
    assert run.found()[1:] == [
        ("DataPlanePartitionUnreadable", "partition “val” cannot be read (timed out; never listed)")
    ]
    assert run.found()[0][0] == "DataPlaneTrainerWaiting"


def test_one_look_shows_no_flow_and_says_what_is_missing(run: Run) -> None:
    run.per_step = 16
    run.groups |= {"ready": 13, "uncommitted": 1}
    run.unfinished = (OldestGroup("uncommitted", "tag", run.clock.time() - 90, "u7"),)
    assert run.found() == [
        (
            "DataPlaneStepIncomplete",
            "13 of the 16 groups of a step are ready; 1 unfinished, the oldest: “u7” since 22:11:50 UTC (1 min 30 s)",
        )
    ]


def test_who_watches_for_less_waits_for_less() -> None:
    run = Run(Limits(quiet_s=5.0))
    run.groups["ready"] = 2
    run.last(8)
    assert [name for name, _ in run.found()] == ["DataPlaneTrainingQuiet", "DataPlaneArrivalsQuiet"]


def test_a_lost_data_plane_leaves_the_rest_unknown_and_what_was_known_dated(run: Run) -> None:
    flow(run, 3)
    run.more["storage"] = (StorageState(0, "u0", capacity=100, keys=4),)
    before = run.look()
    assert before.last_known is None
    run.clock.advance(2)
    run.more |= {"up": False, "discovery": "lost", "partitions": (), "total": None, "trained": None, "storage": ()}
    after = run.look()
    assert [one.name for one in after.held] == ["DataPlaneLost"]
    assert after.degraded is False
    assert after.last_known is not None
    assert after.last_known.at == before.taken_at
    assert after.last_known.partitions == before.partitions
    assert after.last_known.storage == before.storage
    run.last(20)
    run.more = {"endpoint": Endpoint("tcp://x:1")}
    assert run.look().last_known is None


def test_a_condition_keeps_its_beginning_and_begins_anew(run: Run) -> None:
    run.more["controller_busy_ratio"] = 0.5
    began = run.clock.time()
    run.last(10)
    assert run.condition("TQExporterOverBudget").since == began
    run.more["controller_busy_ratio"] = 0.001
    run.last(10)
    run.more["controller_busy_ratio"] = 0.5
    assert run.condition("TQExporterOverBudget").since == run.clock.time() == began + 20


def test_a_defect_in_one_judgement_is_unknown_and_ends_nothing(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporter.conditions import judge

    def broken(scene: object) -> None:
        raise ZeroDivisionError

    rules = [replace(one, check=broken) if one.name == "DataPlaneLost" else one for one in CONDITIONS]
    monkeypatch.setattr(judge, "CONDITIONS", tuple(rules))
    run.last(10)
    assert run.condition("DataPlaneLost").holds is None
    assert run.condition("DataPlaneRowsMalformed").holds is False
    assert caplog.text.count("evaluating DataPlaneLost failed") == 1


def test_a_look_that_takes_long_is_still_one_look(run: Run) -> None:
    """A look-up through Ray takes seconds, in which nothing is known yet."""
    run.per_step = 16
    run.more |= {"up": False, "discovery": "never_found", "partitions": (), "total": None, "trained": None}
    run.last(10)
    run.more = {}
    assert [name for name, _ in run.found()] == ["DataPlaneStepIncomplete"]
