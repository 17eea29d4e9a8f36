"""Each condition that counts groups says which ones: those that made it hold, and no others."""

from __future__ import annotations

import pytest

from exporter.conditions import CONDITIONS, Limits
from exporter.conditions.base import Candidate
from exporter.groups.query import SELECTING, STUCK_NAME

ORDINARY = Candidate("train", "ready", 0, 10.0, False, 0)
UNFINISHED = ORDINARY._replace(state="uncommitted")

CASES: dict[str, tuple[dict[str, float], Candidate, Candidate]] = {
    # name: (evidence, a group that it is about, one that just is not)
    "DataPlaneQueueStalled": ({"ready": 3}, ORDINARY, ORDINARY._replace(state="taken")),
    "DataPlaneTrainingQuiet": (
        {"taken": 3},
        ORDINARY._replace(state="taken"),
        ORDINARY._replace(state="taken", orphaned=True),
    ),
    "DataPlaneNoGroupCompleted": ({}, ORDINARY._replace(state="failed"), ORDINARY),
    "DataPlaneGroupsGivenUp": ({}, ORDINARY._replace(state="failed"), UNFINISHED),
    "DataPlaneTrainerStarved": ({}, UNFINISHED, UNFINISHED._replace(role="eval")),
    "DataPlaneTrainerWaiting": ({}, UNFINISHED._replace(state="incomplete"), ORDINARY),
    "DataPlaneStepIncomplete": ({}, UNFINISHED, ORDINARY),
    "DataPlaneIncompleteOrphaned": (
        {},
        ORDINARY._replace(state="incomplete", age_s=1801),
        ORDINARY._replace(state="incomplete", age_s=1800),
    ),
    "DataPlaneUncommittedLeaking": ({}, UNFINISHED._replace(age_s=3601), UNFINISHED._replace(age_s=3600)),
    "DataPlaneGroupsOrphaned": ({}, ORDINARY._replace(orphaned=True), ORDINARY),
    "DataPlaneRowsMalformed": ({}, ORDINARY._replace(malformed=1), ORDINARY),
    "DataPlaneWeightVersionSteppedBack": ({}, ORDINARY._replace(lag=-1), ORDINARY._replace(lag=None)),
    "DataPlaneRolloutsBehind": ({}, ORDINARY._replace(lag=5), ORDINARY._replace(lag=4)),
    "DataPlaneStalenessAboveWindow": ({}, ORDINARY._replace(lag=5), ORDINARY._replace(lag=4)),
    "DataPlaneLagUnusual": ({"usual_lag": 4}, ORDINARY._replace(lag=13), ORDINARY._replace(lag=12)),
}


def test_every_condition_about_groups_has_its_case() -> None:
    assert SELECTING.keys() - {STUCK_NAME} == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_it_selects_what_made_it_hold(name: str) -> None:
    evidence, about, other = CASES[name]
    [selects] = [rule.selects for rule in CONDITIONS if rule.name == name]
    assert selects is not None
    assert selects(about, Limits(), evidence)
    assert not selects(other, Limits(), evidence)


def test_an_unusual_lag_is_none_while_it_is_not_known_what_is_usual() -> None:
    [(_, selects)] = SELECTING["DataPlaneLagUnusual"]
    assert not selects(ORDINARY._replace(lag=1000), Limits(), {})
