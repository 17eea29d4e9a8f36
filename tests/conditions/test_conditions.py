"""Every condition: it holds, it does not hold just below its limit, and it is unknown while its figures are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataplane.groups import GroupState
from exporter.conditions import CONDITIONS
from exporter.conditions.base import Rule, Scene
from exporter.model.occupancy import nothing
from exporter.model.past import Past, Samples, TaskProgress
from exporter.model.snapshot import (
    ALL_PARTITIONS,
    Incident,
    OldestGroup,
    PartitionState,
    PartitionStatus,
    RoleFlow,
    Snapshot,
    SourceState,
)
from exporter.model.storage import LastAnswer, StorageState, StoreState
from exporter.model.tasks import PartitionSamples

NOW = 1_900_000_000.0
ZERO: dict[GroupState, int] = {"ready": 0, "incomplete": 0, "uncommitted": 0, "failed": 0, "taken": 0}
RULES = {rule.name: rule for rule in CONDITIONS}

Case = Callable[[], Scene]


def part(name: str = "train", **fields: Any) -> PartitionState:
    return replace(nothing(name, NOW), **fields)


def past(seconds: float = 1800.0, *, known: bool = True, **columns: Sequence[tuple[float, float]]) -> Past:
    """Return a history of *seconds*, a sample every 10 s. Columns: at which age they took which value; 0 before."""
    ages = [10.0 * index for index in range(int(seconds / 10), -1, -1)]

    def value(steps: Sequence[tuple[float, float]], age: float) -> float:
        return next((value for since, value in sorted(steps) if age <= since), 0.0)

    names = ("arrived", "completed", "departed", "given_up", "failed", "reference_version", "staleness_max")
    values: dict[str, list[float | None]] = {
        name: [value(columns.get(name, ()), age) for age in ages]
        for name in (*names, "generation", "fill", "ping", "down", "unlisted", "evicted", "unplaced")
    }
    values["listed"] = [0.0 if known else None] * len(ages)
    window = Samples([NOW - age for age in ages], [known] * len(ages), values)
    return Past(window, window, state_since=NOW - seconds)


def scene(history: Past | None = None, parts: Sequence[PartitionState] = (), **fields: Any) -> Scene:
    """Return what is seen of a data plane that answers, with one partition that trains."""
    parts = tuple(parts) or (part(),)
    statuses = tuple(PartitionStatus(one.partition, True, None, NOW, one.role) for one in parts)
    seen = Snapshot(
        NOW,
        NOW - 3600,
        discovery="found",
        up=True,
        generation=1,
        partitions=parts,
        statuses=statuses,
        total=replace(parts[0], partition=ALL_PARTITIONS),
        trained=replace(parts[0], partition=ALL_PARTITIONS),
        role_flows=(RoleFlow("train", 5, 5, dict(ZERO), 0, 0),),
        sources=(SourceState("ping", "ok", True, NOW - 3), SourceState("metadata", "ok", True, NOW, interval=5.0)),
    )
    return Scene(replace(seen, **fields), past() if history is None else history)


def hidden(history: Past | None = None, **fields: Any) -> Scene:
    """Return a scene in which the partition that trains cannot be read."""
    status = PartitionStatus("train", False, "timeout", NOW - 60)
    return scene(history, statuses=(status,), partitions=(), trained=None, **fields)


def silent(error_type: str, **fields: Any) -> Scene:
    incident = Incident(NOW - 1, "ping", "ping", error_type, "why")
    return scene(up=False, incidents=(incident,), **{"discovery": "found", **fields})


def of_state(state: str, seconds: float) -> Scene:
    return scene(past(seconds), up=False, discovery=state)


def units(*units: StorageState) -> Scene:
    return scene(storage=units)


def unit(keys: int, capacity: int | None = 100) -> StorageState:
    return StorageState(0, "u0", capacity=capacity, keys=keys)


def down(error_type: str) -> StorageState:
    return StorageState(1, "u1", error_type=error_type, last_answer=LastAnswer(NOW - 40, 100, 80))


def queue(history: Past | None = None, **groups: int) -> Scene:
    return scene(history, [part(groups=ZERO | groups)])


def task(waiting: int | None, consumed: int, quiet_s: float, *, reason: Any = "not_listable") -> Scene:
    progress = TaskProgress(consumed, 10, NOW - quiet_s, NOW - quiet_s)
    return scene(
        replace(past(), tasks={"raw": progress}),
        partitions=(),
        trained=None,
        statuses=(PartitionStatus("raw", reason is None, reason),),
        samples=(PartitionSamples("raw", 10, "ref", waiting),),
    )


def source(reason: Any, detail: str = "", **fields: Any) -> Scene:
    return scene(
        sources=(SourceState("metadata", reason, reason == "budget", NOW, interval=90.0, detail=detail),), **fields
    )


def oldest(state: Any, age: float) -> Scene:
    return scene(parts=[part(oldest=(OldestGroup(state, "tag", NOW - age, "g1"),))])


# Counters that grew at these ages: four gaps of 100 s, then quiet for as long as the name says.
QUIET_900 = ((1300, 1), (1200, 2), (1100, 3), (1000, 4), (900, 5))
QUIET_910 = ((1310, 1), (1210, 2), (1110, 3), (1010, 4), (910, 5))
QUIET_300 = ((700, 1), (600, 2), (500, 3), (400, 4), (300, 5))
QUIET_310 = ((710, 1), (610, 2), (510, 3), (410, 4), (310, 5))
QUIET_600 = ((1000, 1), (900, 2), (800, 3), (700, 4), (600, 5))
QUIET_610 = ((1010, 1), (910, 2), (810, 3), (710, 4), (610, 5))
MOVING = tuple((100.0 * index + 10, float(20 - index)) for index in range(15))

CASES: dict[str, tuple[Scene, Scene, Scene | None]] = {
    # name: (holds, just below, unknown). None where it is never unknown.
    "DataPlaneLost": (of_state("lost", 5), of_state("ended", 5), None),
    "DataPlaneUnavailable": (silent("DataPlaneUnavailable"), silent("DataPlaneTimeout"), None),
    "DataPlaneTimeouts": (silent("DataPlaneTimeout"), silent("DataPlaneTimeout", discovery="lost"), None),
    "DataPlaneUnreachable": (
        of_state("unreachable", 610),
        of_state("unreachable", 590),
        Scene(Snapshot(NOW, NOW, discovery="unreachable")),
    ),
    "DataPlaneStarting": (
        of_state("starting", 610),
        of_state("starting", 590),
        Scene(Snapshot(NOW, NOW, discovery="starting")),
    ),
    "DataPlaneControllerRestarting": (
        scene(past(generation=[(1800, 1)]), generation=4),
        scene(past(generation=[(1800, 1)]), generation=3),
        scene(Past()),
    ),
    "DataPlanePingSlow": (
        scene(past(300, ping=[(300, 0.26)])),
        scene(past(300, ping=[(300, 0.25)])),
        scene(past(300, ping=[(300, 0.26)]), up=False),
    ),
    "DataPlaneStorageUnitLost": (
        units(unit(1), down("DataPlaneUnavailable")),
        units(unit(1), down("DataPlaneTimeout")),
        units(),
    ),
    "DataPlaneStorageUnitSilent": (
        units(unit(1), down("DataPlaneTimeout")),
        units(unit(1), down("DataPlaneUnavailable")),
        units(),
    ),
    "DataPlaneStorageFull": (units(unit(100)), units(unit(99)), units(unit(99), down("DataPlaneTimeout"))),
    "DataPlaneNearCapacity": (units(unit(91)), units(unit(90)), units(unit(90), down("DataPlaneTimeout"))),
    "DataPlaneFullSoon": (
        replace(units(unit(80)), past=past(fill=[(1800.0 - 180 * n, 0.5 + 0.03 * n) for n in range(11)])),
        replace(units(unit(80)), past=past(fill=[(1800.0 - 180 * n, 0.79 + 0.001 * n) for n in range(11)])),
        replace(units(unit(80)), past=Past()),
    ),
    "DataPlaneStorageUnitFlapping": (
        replace(units(unit(1)), past=past(down=[(1800, 0), (900, 1), (600, 0), (300, 1), (200, 0)])),
        replace(units(unit(1)), past=past(down=[(1800, 0), (900, 1), (600, 0), (300, 1)])),
        replace(units(unit(1)), past=Past()),
    ),
    "DataPlaneFullRepeatedly": (
        replace(units(unit(1)), past=past(fill=[(1800, 0), (900, 0.95), (600, 0), (300, 0.95), (200, 0)])),
        replace(units(unit(1)), past=past(fill=[(1800, 0), (900, 0.9), (600, 0), (300, 0.9), (200, 0)])),
        replace(units(unit(1)), past=Past()),
    ),
    "DataPlaneStorageEvicting": (
        scene(past(evicted=[(1800, 5), (590, 7)]), store=StoreState(evicted_objects=7)),
        scene(past(evicted=[(1800, 5), (610, 7)]), store=StoreState(evicted_objects=7)),
        scene(past(evicted=[(590, 7)])),
    ),
    "DataPlaneStorageAllocationsFailing": (
        scene(past(unplaced=[(590, 7)]), store=StoreState()),
        scene(past(unplaced=[(610, 7)]), store=StoreState()),
        scene(past(unplaced=[(590, 7)]), store=StoreState(), up=False),
    ),
    "DataPlaneStorageLeaking": (
        scene(past(3600, unlisted=[(3600, 3), (2410, 5), (1210, 9)]), storage=(unit(90),), unlisted_keys=10),
        scene(past(3600, unlisted=[(3600, 3), (2410, 5), (1210, 9)]), storage=(unit(90),), unlisted_keys=9),
        scene(past(2000, unlisted=[(3600, 3), (1100, 9)]), storage=(unit(90),), unlisted_keys=10),
    ),
    "DataPlaneGroupsGivenUp": (
        scene(past(departed=[(900, 10)], given_up=[(900, 4)], completed=[(900, 6)])),
        scene(past(departed=[(900, 10)], given_up=[(900, 3)], completed=[(900, 6)])),
        hidden(past(departed=[(900, 10)], given_up=[(900, 4)], completed=[(900, 6)], known=False)),
    ),
    "DataPlaneMetadataFailing": (
        source("failing", "no", statuses=(), partitions=(), total=None),
        source("failing", "no"),
        source("failing", "no", up=False),
    ),
    "DataPlanePartitionUnreadable": (hidden(), scene(), scene(statuses=(), total=None)),
    "DataPlaneGroupsOrphaned": (scene(parts=[part(orphaned=1)]), scene(), hidden()),
    "DataPlaneRowsMalformed": (scene(parts=[part(malformed_rows=1)]), scene(), hidden()),
    "DataPlaneQueueStalled": (
        queue(past(departed=QUIET_910), ready=1),
        queue(past(departed=QUIET_900), ready=1),
        hidden(past(departed=QUIET_910, known=False)),
    ),
    "DataPlaneTrainingQuiet": (
        queue(past(departed=QUIET_310), taken=1),
        queue(past(departed=QUIET_300), taken=1),
        hidden(past(departed=QUIET_310, known=False)),
    ),
    "DataPlaneTaskStalled": (task(5, 5, 910), task(5, 5, 890), task(None, 5, 910)),
    "DataPlaneTaskStarved": (task(0, 10, 910), task(0, 10, 890), task(None, 10, 910)),
    "DataPlaneTaskBehind": (
        replace(task(5, 5, 0), past=Past()),
        replace(task(0, 10, 0), past=Past()),
        replace(scene(), past=Past()),
    ),
    "DataPlaneNoGroupCompleted": (
        queue(past(arrived=MOVING, completed=QUIET_310, given_up=[(200, 4)]), uncommitted=4),
        queue(past(arrived=MOVING, completed=QUIET_310, given_up=[(200, 4)]), uncommitted=5),
        hidden(past(arrived=MOVING, completed=QUIET_310, given_up=[(200, 4)], known=False)),
    ),
    "DataPlaneTrainerStarved": (
        queue(past(completed=QUIET_610)),
        queue(past(completed=QUIET_600)),
        hidden(past(completed=QUIET_610, known=False)),
    ),
    "DataPlaneTrainerWaiting": (
        queue(past(completed=QUIET_310)),
        queue(past(completed=QUIET_300)),
        hidden(past(completed=QUIET_310, known=False)),
    ),
    "DataPlaneArrivalsQuiet": (
        queue(past(arrived=QUIET_310), ready=1),
        queue(past(arrived=QUIET_300), ready=1),
        hidden(past(arrived=QUIET_310, known=False)),
    ),
    "DataPlaneStepIncomplete": (
        scene(Past(), [part(groups=ZERO | {"ready": 15}, groups_per_step=16)]),
        scene(Past(), [part(groups=ZERO | {"ready": 16}, groups_per_step=16)]),
        hidden(Past()),
    ),
    "DataPlaneIncompleteOrphaned": (oldest("incomplete", 1801), oldest("incomplete", 1799), hidden()),
    "DataPlaneUncommittedLeaking": (oldest("uncommitted", 3601), oldest("uncommitted", 3599), hidden()),
    "DataPlaneWeightVersionStuck": (
        scene(past(departed=MOVING, reference_version=QUIET_310), reference_version=5, reference_changed_at=NOW - 310),
        scene(past(departed=MOVING, reference_version=QUIET_300), reference_version=5, reference_changed_at=NOW - 300),
        hidden(past(departed=MOVING, reference_version=QUIET_310), reference_version=5, reference_changed_at=NOW - 310),
    ),
    "DataPlaneWeightVersionSteppedBack": (
        scene(past(reference_version=[(1800, 9), (590, 2)]), version_regressions=1),
        scene(past(reference_version=[(1800, 9), (600, 2)]), version_regressions=1),
        hidden(past(reference_version=[(1800, 9), (590, 2)]), version_regressions=1),
    ),
    "DataPlaneRolloutsBehind": (
        scene(parts=[part(newest_finished_version=8)], reference_version=13, reference="rows"),
        scene(parts=[part(newest_finished_version=8)], reference_version=12, reference="rows"),
        scene(parts=[part(newest_finished_version=8)]),
    ),
    "DataPlaneLagUnusual": (
        scene(past(staleness_max=[(1800, 4)]), [part(staleness_max=13)]),
        scene(past(staleness_max=[(1800, 4)]), [part(staleness_max=12)]),
        scene(past(staleness_max=[(1800, 4)])),
    ),
    "DataPlaneStalenessAboveWindow": (
        scene(parts=[part(staleness_max=5)]),
        scene(parts=[part(staleness_max=4)]),
        hidden(),
    ),
    "TQExporterOverBudget": (scene(controller_busy_ratio=0.021), scene(controller_busy_ratio=0.02), scene()),
    "TQExporterPollsStretched": (source("budget"), source("ok"), scene(sources=())),
    "DataPlaneFlows": (
        scene(past(arrived=MOVING, departed=MOVING)),
        scene(past(arrived=MOVING, departed=QUIET_310)),
        hidden(past(arrived=MOVING, departed=MOVING)),
    ),
}


def test_every_condition_has_its_cases() -> None:
    assert CASES.keys() == RULES.keys()
    assert len(RULES) == len(CONDITIONS)


@pytest.mark.parametrize("name", CASES)
def test_a_condition_holds_with_its_evidence(name: str) -> None:
    found = RULES[name].check(CASES[name][0])
    assert found, f"{name} does not hold"
    assert not found.text[0].isupper()
    assert not found.text.endswith(".")
    assert found.evidence, "figures that it was judged by"
    assert all(isinstance(figure, (int, float)) for figure in found.evidence.values())


@pytest.mark.parametrize("name", CASES)
def test_just_below_its_limit_it_does_not_hold(name: str) -> None:
    assert RULES[name].check(CASES[name][1]) is False


@pytest.mark.parametrize("name", [name for name, cases in CASES.items() if cases[2] is not None])
def test_without_its_figures_it_is_unknown(name: str) -> None:
    unknown = CASES[name][2]
    assert unknown is not None
    assert RULES[name].check(unknown) is None


@pytest.mark.parametrize("rule", CONDITIONS, ids=lambda rule: rule.name)
def test_a_condition_is_declared_in_full(rule: Rule) -> None:
    assert Path(__file__).parents[2].joinpath(rule.runbook).is_file()
    assert rule.remedy.endswith(".")
    assert rule.check.__doc__
    assert rule.degrades or rule.severity != "critical"


@pytest.mark.parametrize("rule", CONDITIONS, ids=lambda rule: rule.name)
def test_nothing_holds_before_anything_is_known(rule: Rule) -> None:
    assert not rule.check(Scene(Snapshot(NOW, NOW)))


def test_what_holds_in_one_partition_holds_though_another_cannot_be_read() -> None:
    statuses = (PartitionStatus("train", True), PartitionStatus("train_2", False, "timeout"))
    seen = scene(parts=[part(malformed_rows=3)], statuses=statuses, trained=None)
    found = RULES["DataPlaneRowsMalformed"].check(seen)
    assert found
    assert found.partitions == ("train",)
    assert found.text == "3 rows of partition “train” have a tag that cannot be read"


def test_several_partitions_are_one_condition() -> None:
    found = RULES["DataPlaneRowsMalformed"].check(
        scene(parts=[part("a", malformed_rows=3), part("b", malformed_rows=1)])
    )
    assert found
    assert found.partitions == ("a", "b")
    assert found.text.endswith("; and 1 more")


def test_a_unit_that_does_not_answer_is_dated() -> None:
    found = RULES["DataPlaneStorageUnitSilent"].check(units(unit(1), down("DataPlaneTimeout")))
    assert found
    assert found.text == "1 of 2 storage units does not answer since 17:46:00 UTC: busy or stopped (unit 1)"
    assert found.since == NOW - 40


def test_a_segment_is_full_by_its_bytes() -> None:
    segment = StorageState(0, "10.0.0.7:13224", memory_bytes=19 * 2**20, memory_limit_bytes=20 * 2**20)
    found = RULES["DataPlaneNearCapacity"].check(units(segment))
    assert found
    assert found.text == "storage unit 0 is 95 % full (of 20 MiB): when it is full, puts fail"


def test_a_storage_without_limit_is_never_full() -> None:
    assert RULES["DataPlaneStorageFull"].check(units(unit(10**9, None))) is False
