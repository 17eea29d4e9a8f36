"""Conditions of training: whether groups are taken, how stale they are, and whether new weights come."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Final

from exporter.conditions.base import CLEAR, Candidate, Finding, Scene, Verdict, is_finished, rule
from exporter.conditions.tasks import judge_tasks
from exporter.conditions.words import clock, count, quoted, span
from exporter.model.past import TaskProgress
from exporter.model.snapshot import PartitionState

__all__ = [
    "flows",
    "lag_unusual",
    "queue_stalled",
    "rollouts_behind",
    "staleness_above_window",
    "task_behind",
    "task_stalled",
    "training_quiet",
    "version_stepped_back",
    "version_stuck",
]

_LEAST_LAG: Final = 5
"""If even the newest finished group is this many versions behind, new weights do not reach the rollout workers."""
_FRESH_S: Final = 600.0
"""For this long a version that stepped back is worth a warning."""
_LEAST_SAMPLES: Final = 15
"""Samples of the coarse window, 6 minutes, without which no lag is usual."""
_UNUSUAL: Final = 3.0


@rule(
    "DataPlaneQueueStalled",
    "training",
    "critical",
    remedy="Check whether the trainer is alive, and what it waits for: py-spy dump.",
    selects=lambda group, limits, evidence: _waits(group, evidence),
)
def queue_stalled(scene: Scene) -> Verdict:
    """The trainer has groups, and none has left for stalled_seconds (15 minutes) and for 3 times the usual gap."""
    return _stalled(scene, severe=True)


@rule(
    "DataPlaneTrainingQuiet",
    "training",
    "warning",
    runbook="DataPlaneQueueStalled",
    remedy="Wait for the end of the current step. If it does not end, check the trainer.",
    selects=lambda group, limits, evidence: _waits(group, evidence),
)
def training_quiet(scene: Scene) -> Verdict:
    """The trainer has groups, and none has left for longer than usual."""
    return _stalled(scene, severe=False)


@rule(
    "DataPlaneTaskStalled",
    "training",
    "critical",
    remedy="Find the task with the lowest ratio, and check whether its process is alive.",
)
def task_stalled(scene: Scene) -> Verdict:
    """Samples wait, and the slowest task has consumed none for 15 minutes."""

    def judge(progress: TaskProgress, waiting: int) -> tuple[str, float] | None:
        if not waiting:
            return None
        return f"has consumed none of the {count(waiting)} samples that wait", progress.consumed_since

    return judge_tasks(scene, judge)


@rule(
    "DataPlaneTaskBehind",
    "training",
    "notice",
    runbook="DataPlaneTaskStalled",
    remedy="Watch for a while: one poll does not show whether the task consumes.",
)
def task_behind(scene: Scene) -> Verdict:
    """In a single poll, samples wait for a task."""
    if not scene.snapshot.up or not scene.snapshot.samples:
        return None
    waiting = [one for one in scene.snapshot.samples if one.task is not None and one.waiting]
    if len(scene.pings) > 1 or not waiting:
        return CLEAR
    one = waiting[0]
    said = f"{count(one.waiting or 0)} samples of {quoted(one.partition)} wait for the task {quoted(one.task or '')}"
    return Finding(said, {"waiting": one.waiting or 0}, tuple(other.partition for other in waiting))


@rule(
    "DataPlaneWeightVersionStuck",
    "training",
    "warning",
    remedy="Check the trainer's own step counter. If it grows, the weight synchronization is broken.",
)
def version_stuck(scene: Scene) -> Verdict:
    """Groups leave, and the trainer's version does not change."""
    departed, versions = scene.pulse("departed"), scene.pulse("reference_version")
    changed, version = scene.snapshot.reference_changed_at, scene.snapshot.reference_version
    if departed is None or versions is None or changed is None or version is None:
        return None
    unchanged = scene.now - changed
    # While the usual time between changes is not known, what the alert allows.
    patience = scene.limit("version_unchanged_seconds") if versions.usual is None else scene.patience(versions)
    left = scene.past.change("departed", changed) - scene.past.change("given_up", changed)
    if unchanged <= patience or scene.quiet(departed) or left < 2 * scene.needed:
        return CLEAR
    return Finding(
        f"the trainer's version is still {version}, unchanged for {span(unchanged)}, although {count(left)} groups "
        "have left",
        {"version": version, "unchanged_seconds": unchanged, "departed": left},
        since=changed,
    )


@rule(
    "DataPlaneWeightVersionSteppedBack",
    "training",
    "warning",
    remedy="Check whether the trainer was restarted on purpose. Newer groups come from weights that no longer exist.",
    selects=lambda group, limits, evidence: group.role == "train" and _lag(group) < 0,
)
def version_stepped_back(scene: Scene) -> Verdict:
    """The trainer's version fell, with the same controller."""
    if scene.trained is None:
        return None
    fall = scene.past.last_fall("reference_version") if scene.snapshot.version_regressions else None
    if fall is None or scene.now - fall.at >= _FRESH_S:
        return CLEAR
    said = f"the trainer's version stepped back from {fall.before:.0f} to {fall.after:.0f} at {clock(fall.at)}"
    return Finding(said, {"before": fall.before, "after": fall.after}, since=fall.at)


@rule(
    "DataPlaneRolloutsBehind",
    "training",
    "warning",
    runbook="DataPlaneWeightVersionStuck",
    remedy="Check the weight synchronization from the trainer to the rollout workers.",
    selects=lambda group, limits, evidence: is_finished(group) and _lag(group) >= _LEAST_LAG,
)
def rollouts_behind(scene: Scene) -> Verdict:
    """Even the newest finished group was made by old weights."""
    snapshot, trained = scene.snapshot, scene.trained
    version = snapshot.reference_version
    # From the newest version that groups have, no group is behind: nobody knows the trainer's.
    if trained is None or trained.newest_finished_version is None or version is None:
        return None
    behind = version - trained.newest_finished_version
    if snapshot.reference == "newest_seen" or behind < _LEAST_LAG:
        return CLEAR
    return Finding(
        f"even the newest finished group is {behind} versions behind the trainer's version {version}: new weights do "
        "not reach the rollout workers",
        {"behind": behind, "version": version},
    )


@rule(
    "DataPlaneStalenessAboveWindow",
    "training",
    "warning",
    remedy="If the trainer takes such groups, lower its window; if they only stay, evict them.",
    selects=lambda group, limits, evidence: (
        group.role == "train" and group.state != "failed" and _lag(group) > limits.thresholds["staleness_versions"]
    ),
)
def staleness_above_window(scene: Scene) -> Verdict:
    """Groups are more weight versions behind than is acceptable."""

    def judge(part: PartitionState) -> Finding | None:
        lag = part.staleness_max
        if lag is None or lag <= scene.limit("staleness_versions"):
            return None
        said = f"the stalest group of partition {quoted(part.partition)} is {count(lag)} weight versions behind"
        return Finding(said, {"lag": lag}, (part.partition,))

    return scene.partitions(judge, train=True)


@rule(
    "DataPlaneLagUnusual",
    "training",
    "warning",
    runbook="DataPlaneStalenessAboveWindow",
    remedy="Find out what changed: a slower trainer, faster rollouts, or stale groups that are not evicted.",
    selects=lambda group, limits, evidence: (
        group.role == "train"
        and group.state != "failed"
        and _lag(group) > _unusual_lag(evidence.get("usual_lag", math.inf))
    ),
)
def lag_unusual(scene: Scene) -> Verdict:
    """The largest lag is far above what is usual in this run."""
    seen = scene.past.values("staleness_max")
    lag = scene.trained.staleness_max if scene.trained else None
    if lag is None or len(seen) < _LEAST_SAMPLES:
        return None
    usual = statistics.median(seen)
    if lag <= _unusual_lag(usual):
        return CLEAR
    return Finding(
        f"the largest lag is {count(lag)} weight versions; in the last hour it was usually {usual:g}",
        {"lag": lag, "usual_lag": usual},
    )


@rule("DataPlaneFlows", "training", "ok", remedy="Nothing.", runbook="DataPlaneQueueStalled")
def flows(scene: Scene) -> Verdict:
    """Groups arrived and departed within the time that is usual for this run."""
    pulses = {name: scene.pulse(name) for name in ("arrived", "departed")}
    evidence: dict[str, float] = {}
    for name, pulse in pulses.items():
        if pulse is None:
            return None
        if pulse.last is None or scene.now - pulse.last > scene.patience(pulse):
            return None if pulse.usual is None else CLEAR
        evidence[f"{name}_ago_seconds"] = scene.now - pulse.last
    return Finding("groups flow through generation, queue and training", evidence)


def _stalled(scene: Scene, *, severe: bool) -> Verdict:
    departed, trained = scene.pulse("departed"), scene.trained
    if departed is None or trained is None:
        return None
    if not (scene.training or scene.enough) or not scene.quiet(departed):
        return CLEAR
    if severe != scene.quiet(departed, scene.limit("stalled_seconds")):
        return CLEAR
    number, what = (scene.training, "taken") if scene.training else (trained.depth, "ready")
    return Finding(
        f"{count(number)} groups are {what} and none has left for {span(departed.quiet_for)}",
        {what: number, "quiet_seconds": departed.quiet_for},
        since=departed.quiet_since,
    )


def _waits(group: Candidate, evidence: Mapping[str, float]) -> bool:
    """Whether the trainer could go on with *group*: one that it has taken or, when it has none, one that is ready."""
    if "ready" in evidence:
        return group.role == "train" and group.state == "ready"
    return group.role == "train" and group.state == "taken" and not group.orphaned


def _lag(group: Candidate) -> float:
    """Return the lag of *group*; of an unknown one NaN, which is neither below nor above a limit."""
    return math.nan if group.lag is None else group.lag


def _unusual_lag(usual: float) -> float:
    """Return the lag above which a lag is unusual."""
    return max(_UNUSUAL * usual, usual + _LEAST_LAG)
