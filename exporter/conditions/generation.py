"""Conditions of generation: whether groups arrive and are completed."""

from __future__ import annotations

from typing import Final, Literal

from exporter.conditions.base import CLEAR, Candidate, Finding, Scene, Verdict, is_unfinished, rule
from exporter.conditions.tasks import judge_tasks
from exporter.conditions.words import clock, count, quoted, span
from exporter.model.past import Pulse, TaskProgress
from exporter.model.snapshot import PartitionState

__all__ = [
    "arrivals_quiet",
    "trainer_waiting",
    "groups_given_up",
    "incomplete_orphaned",
    "no_group_completed",
    "step_incomplete",
    "task_starved",
    "trainer_starved",
    "uncommitted_leaking",
]

_GIVEN_UP_S: Final = 1800.0
"""The time over which the alert of the same name looks."""


@rule(
    "DataPlaneNoGroupCompleted",
    "generation",
    "critical",
    remedy="Read the log of the rollout workers: groups fail, or are removed before they are complete.",
    selects=lambda group, limits, evidence: is_unfinished(group) or _has_failed(group),
)
def no_group_completed(scene: Scene) -> Verdict:
    """Groups arrive and none is completed; at least as many failed or left unfinished as are in progress."""
    found = _failing(scene)
    if not found:
        return None if found is None else CLEAR
    completed, given_up = found
    return Finding(
        f"groups arrive and none has been completed for {span(completed.quiet_for)}: {count(given_up)} failed or left "
        "unfinished",
        {"given_up": given_up, "unfinished": _unfinished(scene), "quiet_seconds": completed.quiet_for},
        since=completed.quiet_since,
    )


@rule(
    "DataPlaneGroupsGivenUp",
    "generation",
    "warning",
    remedy="Read the log of the rollout workers: what was generated for these groups is wasted.",
    selects=lambda group, limits, evidence: _has_failed(group),
)
def groups_given_up(scene: Scene) -> Verdict:
    """Groups are completed, but many that left in the last 30 minutes had failed or were never complete."""
    if scene.pulse("departed") is None:
        return None
    given_up, left, completed = (
        scene.past.change(column, scene.now - _GIVEN_UP_S) for column in ("given_up", "departed", "completed")
    )
    many = given_up > scene.limit("given_up_groups") and given_up > scene.limit("given_up_ratio") * left
    if not many or not completed or left < 2 * scene.needed:
        return CLEAR
    said = (
        f"{count(given_up)} of the {count(left)} groups that left in the last 30 min had failed or were never complete"
    )
    return Finding(said, {"given_up": given_up, "departed": left, "completed": completed})


@rule(
    "DataPlaneTrainerStarved",
    "generation",
    "critical",
    remedy="Check whether the rollout workers are alive, and look at the unfinished groups.",
    selects=lambda group, limits, evidence: is_unfinished(group),
)
def trainer_starved(scene: Scene) -> Verdict:
    """The trainer lacks groups; none was completed for starved_seconds (10 minutes) and for 3 times the usual gap."""
    return _starved(scene, severe=True)


@rule(
    "DataPlaneTrainerWaiting",
    "generation",
    "warning",
    remedy="Look at the unfinished groups: the trainer waits for them.",
    selects=lambda group, limits, evidence: is_unfinished(group),
)
def trainer_waiting(scene: Scene) -> Verdict:
    """The trainer lacks groups, and none has been completed for longer than usual."""
    return _starved(scene, severe=False)


@rule(
    "DataPlaneTaskStarved",
    "generation",
    "critical",
    remedy="Check whether the rollout workers are alive and whether their puts return.",
)
def task_starved(scene: Scene) -> Verdict:
    """A task has consumed all samples, and none was added for 15 minutes."""

    def judge(progress: TaskProgress, waiting: int) -> tuple[str, float] | None:
        if waiting or not progress.consumed:
            return None
        return "has consumed all samples, and none was added", progress.samples_since

    return judge_tasks(scene, judge)


@rule(
    "DataPlaneArrivalsQuiet",
    "generation",
    "notice",
    runbook="DataPlaneTrainerStarved",
    remedy="Do nothing while enough groups are ready. If none arrives, the trainer will starve.",
)
def arrivals_quiet(scene: Scene) -> Verdict:
    """Enough groups are ready, and none arrives."""
    arrived, departed = scene.pulse("arrived"), scene.pulse("departed")
    if arrived is None or departed is None:
        return None
    if not scene.quiet(arrived) or not scene.enough or scene.training:
        return CLEAR
    said = f"no group has arrived for {span(arrived.quiet_for)}"
    return Finding(said, {"quiet_seconds": arrived.quiet_for}, since=arrived.quiet_since)


@rule(
    "DataPlaneStepIncomplete",
    "generation",
    "notice",
    runbook="DataPlaneTrainerStarved",
    remedy="Watch for a while (once --watch 60s): one poll does not show whether groups are completed.",
    selects=lambda group, limits, evidence: is_unfinished(group),
)
def step_incomplete(scene: Scene) -> Verdict:
    """In a single poll, the trainer lacks groups."""
    trained = scene.trained
    if trained is None:
        return None
    step = trained.groups_per_step
    if not scene.unwatched or not step or scene.enough or scene.training:
        return CLEAR
    said = f"{count(trained.depth)} of the {count(step)} groups of a step are ready{_rest(scene)}"
    return Finding(said, {"ready": trained.depth, "needed": step}, groups=_ids(trained))


@rule(
    "DataPlaneIncompleteOrphaned",
    "generation",
    "warning",
    remedy="Evict the incomplete groups. If all groups are incomplete, the configured group_size is wrong.",
    selects=lambda group, limits, evidence: (
        group.state == "incomplete" and group.age_s > limits.thresholds["incomplete_age_seconds"]
    ),
)
def incomplete_orphaned(scene: Scene) -> Verdict:
    """Keys of a committed group never arrived."""
    return _old(scene, "incomplete", scene.limit("incomplete_age_seconds"))


@rule(
    "DataPlaneUncommittedLeaking",
    "generation",
    "warning",
    remedy="Read the producers' errors, then evict the keys of the groups that stay.",
    selects=lambda group, limits, evidence: (
        group.state == "uncommitted" and group.age_s > limits.thresholds["uncommitted_age_seconds"]
    ),
)
def uncommitted_leaking(scene: Scene) -> Verdict:
    """A group is never committed: its producer died, or its write failed."""
    return _old(scene, "uncommitted", scene.limit("uncommitted_age_seconds"))


def _failing(scene: Scene) -> tuple[Pulse, float] | Literal[False] | None:
    """Return the pulse of completions and the number of groups given up, :data:`CLEAR` if generation does not fail.

    A group is given up if it failed or left unfinished.
    """
    arrived, completed = scene.pulse("arrived"), scene.pulse("completed")
    if arrived is None or completed is None:
        return None
    since = completed.quiet_since
    given_up = scene.past.change("given_up", since) + max(scene.past.change("failed", since), 0.0)
    many = given_up >= max(_unfinished(scene), scene.limit("given_up_groups") + 1)
    failing = scene.quiet(completed) and not scene.quiet(arrived) and many
    return (completed, given_up) if failing else CLEAR


def _starved(scene: Scene, *, severe: bool) -> Verdict:
    completed, trained, flow = scene.pulse("completed"), scene.trained, scene.train_flow
    if completed is None or trained is None or flow is None:
        return None
    if scene.enough or scene.training or not scene.quiet(completed) or _failing(scene):
        return CLEAR
    if severe != (scene.quiet(completed, scene.limit("starved_seconds")) and flow.arrived > 0):
        return CLEAR
    step = trained.groups_per_step
    said = "no group is ready"
    if step is not None:
        missing = f"the trainer waits for {count(step - trained.depth)} more groups"
        said = f"{missing}, {count(trained.depth)} of {count(step)} are ready"
    rest = _rest(scene) or "; no group is unfinished"
    return Finding(
        f"{said}, and none has been completed for {span(completed.quiet_for)}{rest}",
        {"ready": trained.depth, "needed": scene.needed, "quiet_seconds": completed.quiet_for},
        groups=_ids(trained),
        since=completed.quiet_since,
    )


def _unfinished(scene: Scene) -> int:
    trained = scene.trained
    return 0 if trained is None else trained.groups["uncommitted"] + trained.groups["incomplete"]


def _ids(trained: PartitionState) -> tuple[str, ...]:
    return tuple(one.group_id for one in trained.unfinished)


def _rest(scene: Scene) -> str:
    """Return how many groups are unfinished, and which have been for longest."""
    number = _unfinished(scene)
    if scene.trained is None or not number:
        return ""
    named = [
        f"{quoted(one.group_id)} since {clock(one.created_at)} ({span(scene.now - one.created_at)})"
        for one in scene.trained.unfinished
    ]
    if named and number > len(named):
        named.append(f"and {count(number - len(named))} more")
    return f"; {count(number)} unfinished{', the oldest: ' if named else ''}{', '.join(named)}"


def _old(scene: Scene, state: str, limit: float) -> Verdict:
    def judge(part: PartitionState) -> Finding | None:
        oldest = min((one for one in part.oldest if one.state == state), key=lambda one: one.created_at, default=None)
        if oldest is None or (age := scene.now - oldest.created_at) <= limit:
            return None
        said = f"the oldest {state} group of partition {quoted(part.partition)} is {span(age)} old"
        return Finding(said, {"age_seconds": age}, (part.partition,), (oldest.group_id,) if oldest.group_id else ())

    return scene.partitions(judge)


def _has_failed(group: Candidate) -> bool:
    return group.role == "train" and group.state == "failed"
