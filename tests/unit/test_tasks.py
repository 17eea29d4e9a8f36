"""Samples and tasks: what is kept, how it is bounded, and by which task a partition is judged."""

from __future__ import annotations

from collections.abc import Mapping

from dataplane.partitions import ByName
from exporter.config import Partition
from exporter.model.tasks import ControllerState, OwnMetrics, PartitionSamples, Tasks, TaskState
from tests.support.clock import StoppedClock


def tasks(max_partitions: int = 100, **judged: str) -> tuple[Tasks, StoppedClock]:
    clock = StoppedClock()
    settings = ByName({name: Partition(task=task) for name, task in judged.items()})
    return Tasks(clock, max_partitions=max_partitions, settings=settings), clock


def own(samples: Mapping[str, int], *states: TaskState) -> OwnMetrics:
    return OwnMetrics(samples, states, ControllerState(1), 1.0)


def test_a_reading_replaces_the_last_one() -> None:
    known, _ = tasks()
    known.note_metrics(own({"a": 3, "b": 4}, TaskState("a", "train", 0.5, 1.0)))
    assert known.controller == ControllerState(1)
    known.note_metrics(own({"b": 5}))
    assert known.states(str) == ((PartitionSamples("b", 5),), ())
    known.forget_reading()
    assert known.states(str) == ((), ())
    assert known.controller is None


def test_the_slowest_task_judges_and_a_whole_production_is_none() -> None:
    known, _ = tasks()
    states = (TaskState("a", "all", None, 0.9), TaskState("a", "ref", 0.2), TaskState("a", "train", 0.4))
    known.note_metrics(own({"a": 10}, *states))
    assert known.states(str) == ((PartitionSamples("a", 10, "ref", 8),), states)


def test_the_configured_task_judges_and_an_unknown_one_is_unknown() -> None:
    known, _ = tasks(a="train", b="never")
    known.note_metrics(
        own({"a": 1, "b": 1}, *(TaskState(p, t, r) for p in "ab" for t, r in (("ref", 0.2), ("train", 0.4))))
    )
    assert [one.task for one in known.states(str)[0]] == ["train", None]


def test_sixteen_tasks_are_kept_the_configured_one_and_all_among_them() -> None:
    known, _ = tasks(a="z")
    names = [f"t{number:02}" for number in range(20)] + ["z", "all"]
    known.note_metrics(own({"a": 1}, *(TaskState("a", name, 0.5) for name in names)))
    samples, states = known.states(str)
    assert samples == (PartitionSamples("a", 1, "z", 0, tasks_left_out=6),)
    assert [one.task for one in states] == ["all", *(f"t{number:02}" for number in range(14)), "z"]


def test_partitions_past_the_limit_are_summed_without_their_tasks() -> None:
    known, _ = tasks(max_partitions=1)
    known.note_metrics(own({"a": 1, "b": 2, "c": 4}, TaskState("a", "t", 0.5), TaskState("b", "t", 0.5)))
    samples, states = known.states(str)
    assert samples == (PartitionSamples("a", 1, "t", 0), PartitionSamples("other", 6, tasks_left_out=1))
    assert states == (TaskState("a", "t", 0.5),)


def test_a_tasks_name_that_is_no_label_is_left_out_and_counted() -> None:
    known, _ = tasks()
    known.note_metrics(own({"a": 1, "other": 4}, TaskState("a", "t" * 129, 0.5), TaskState("a", "t", 0.5)))
    assert known.states(str)[0] == (PartitionSamples("a", 1, "t", 0, tasks_left_out=1), PartitionSamples("other", 4))


def test_partitions_under_one_label_are_summed_and_their_tasks_weighted_by_samples() -> None:
    known, _ = tasks(s1="train")
    known.note_metrics(
        own(
            {"s1": 30, "s2": 10, "s3": 0},
            *(TaskState("s1", "train", 0.5, 1.0), TaskState("s2", "train", 0.1, 0.2), TaskState("s3", "train")),
        )
    )
    assert known.states(lambda name: "s*") == (
        (PartitionSamples("s*", 40, "train", 16),),
        (TaskState("s*", "train", 0.4, 0.8),),
    )


def test_answers_are_valid_for_a_time_and_while_their_partition_is_there() -> None:
    known, clock = tasks()
    known.asked("a", 10, [TaskState("a", "train", 0.4)], keep_s=30.0)
    known.asked("b", 1, [], keep_s=60.0)
    assert known.states(str) == (
        (PartitionSamples("a", 10, "train", 6), PartitionSamples("b", 1)),
        (TaskState("a", "train", 0.4),),
    )
    clock.advance(31.0)
    assert known.states(str) == ((PartitionSamples("b", 1),), ())
    known.retain(["c"])
    assert known.states(str) == ((), ())


def test_a_reading_wins_over_answers_and_everything_can_be_forgotten() -> None:
    known, _ = tasks()
    known.asked("a", 10, [TaskState("a", "train", 0.4)], keep_s=30.0)
    known.note_metrics(own({"a": 11}))
    assert known.states(str) == ((PartitionSamples("a", 11),), ())
    known.forget()
    assert known.states(str) == ((), ())


def test_what_waits_is_produced_and_not_consumed_by_the_judged_task() -> None:
    known, _ = tasks(a="train")
    known.note_metrics(
        own({"a": 100, "b": 50, "c": 9}, TaskState("a", "train", 0.25, 0.75), TaskState("a", "ref", 0.1, 0.75))
    )
    assert [(one.partition, one.waiting) for one in known.states(str)[0]] == [("a", 50), ("b", None), ("c", None)]
