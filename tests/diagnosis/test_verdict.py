"""The verdict names the culprit of each incident, what works, and what is unknown."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from exporter.conditions import CONDITIONS
from exporter.demo.scenarios import SCENARIOS
from exporter.diagnosis.verdict import Verdict, exit_code, give_verdict
from exporter.model.condition import Condition
from exporter.model.window import Window
from tests.diagnosis.incidents import INCIDENTS, Played, played
from tests.support.snapshots import empty_snapshot, rich_snapshot

end_of = functools.cache(played)

NAMES = {
    "healthy": ("", ("nothing is wrong", "groups flow"), ("controller", "2 storage units answer", "groups arrive"), ()),
    "stalled-trainer": (
        "the trainer",
        ("training has taken nothing for 15 min", "while 132 groups are ready", "the trainer's version is 47 since"),
        ("the controller and 2 storage units answer", "groups arrive"),
        (),
    ),
    "failing-rollouts": (
        "the rollout workers",
        ("none has been completed for", "failed or left unfinished"),
        ("the controller and 2 storage units answer", "groups arrive"),
        (),
    ),
    "dead-weight-sync": (
        "the weight synchronization to the rollout workers",
        ("versions behind the trainer's version 63", "new weights do not reach the rollout workers"),
        ("groups arrive", "groups leave"),
        (),
    ),
    "no-rollouts": ("the rollout workers", ("4 of 8 are ready", "no group has arrived since"), ("controller",), ()),
    "controller-gone": (
        "the controller (tcp://10.0.0.7:40001)",
        ("the data plane is gone", "when it last answered", "4 groups were ready"),
        (),
        ("what the queue holds now",),
    ),
    "controller-silent": ("the controller (tcp", ("does not answer in time",), (), ("what the queue holds now",)),
    "unit-silent": (
        "storage unit 1 (tcp://10.0.0.7:71)",
        ("1 of 2 storage units does not answer",),
        ("the controller and 1 of 2 storage units answer",),
        (),
    ),
    "unreadable": (
        "this exporter's view of",
        ("partition “broken”",),
        ("groups leave",),
        ("the state of generation and",),
    ),
    "never": ("", ("no TransferQueue has been found yet (no record)",), (), ("what the queue holds now",)),
}
"""Of each incident: the culprit, and what is in the cause, in what is well and in what is unknown."""


def verdict_on(end: Played) -> Verdict:
    return give_verdict(end.snapshot, end.recent)


def test_every_incident_has_its_verdict() -> None:
    assert INCIDENTS.keys() == NAMES.keys()
    assert INCIDENTS.keys() >= SCENARIOS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_names_the_culprit(name: str) -> None:
    culprit, cause, healthy, unknown = NAMES[name]
    verdict = verdict_on(end_of(name))
    assert verdict.culprit.startswith(culprit)
    assert bool(verdict.culprit) == bool(culprit)
    for expected, said in ((cause, verdict.cause), (healthy, ", ".join(verdict.healthy)), (unknown, verdict.unknown)):
        assert all(part in "".join(said) for part in expected), said
        assert expected or not said or said == verdict.cause
    assert 1 <= len(verdict.sentences) <= 3


def test_what_is_given_up_is_not_said_to_leave() -> None:
    assert "groups leave" not in verdict_on(end_of("failing-rollouts")).healthy


@pytest.mark.parametrize(
    ("name", "code"), [("healthy", 0), ("stalled-trainer", 3), ("controller-gone", 1), ("never", 1)]
)
def test_the_exit_code(name: str, code: int) -> None:
    assert exit_code(end_of(name).snapshot) == code


def test_a_warning_counts_where_it_is_asked_for() -> None:
    end = end_of("dead-weight-sync")
    assert (exit_code(end.snapshot), exit_code(end.snapshot, strict=True)) == (0, 3)


@pytest.mark.parametrize("rule", CONDITIONS, ids=lambda rule: rule.name)
def test_every_condition_has_a_culprit(rule: Condition) -> None:
    held = Condition(rule.name, rule.stage, rule.severity, True, text="it is so", evidence={"unit": 1})
    verdict = give_verdict(replace(rich_snapshot(), conditions=(held,)))
    assert bool(verdict.culprit) == (rule.severity in ("critical", "warning"))
    assert ("storage unit 1" in verdict.culprit) == verdict.condition.startswith(
        ("DataPlaneStorage", "DataPlaneFull", "DataPlaneNear")
    )


def test_a_queue_that_is_full_since_nobody_takes_from_it() -> None:
    trainer = Condition("DataPlaneQueueStalled", "training", "critical", True, degrades=True, text="stands still")
    full = Condition("DataPlaneStorageFull", "queue", "critical", True, degrades=True, text="full")
    assert give_verdict(replace(rich_snapshot(), conditions=(trainer, full))).culprit == "the trainer"


def test_what_is_critical_is_named_before_a_warning() -> None:
    unread = Condition("DataPlaneMetadataFailing", "queue", "warning", True, text="cannot be listed")
    full = Condition(
        "DataPlaneStorageFull", "queue", "critical", True, degrades=True, text="full", evidence={"unit": 0}
    )
    verdict = give_verdict(replace(rich_snapshot(), conditions=(unread, full)))
    assert (verdict.condition, verdict.severity) == ("DataPlaneStorageFull", "critical")


def test_little_is_known_at_the_start() -> None:
    verdict = give_verdict(empty_snapshot())
    assert verdict.sentences == ("No TransferQueue has been found yet.", "Unknown: what the queue holds now.")


def test_a_window_tells_growth_and_rate() -> None:
    window = Window(
        "recent", 2.0, [10.0, 12.0, 14.0, 16.0], trained={"arrived": [1, None, 5, 5], "departed": [3, 1, 1, 1]}
    )
    assert (window.last_growth("arrived"), window.last_growth("departed"), window.last_growth("none")) == (
        None,
        None,
        None,
    )
    assert (window.rate("arrived", 60), window.rate("departed", 60), window.rate("none", 60)) == (4 / 6, 0.0, None)
