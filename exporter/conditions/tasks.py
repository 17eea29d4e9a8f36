"""Helper of the task conditions in ``generation`` and ``training``, for partitions whose samples have no keys.

Such a partition is judged by the task that has consumed least.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from exporter.conditions.base import CLEAR, Finding, Scene, Verdict, any_of
from exporter.conditions.words import quoted, span
from exporter.model.past import TaskProgress
from exporter.model.snapshot import PartitionStatus

__all__ = ["judge_tasks"]

_QUIET_S: Final = 900.0
"""The time over which the alerts of the same names look: the figures themselves are refreshed every 10 s or slower."""

_Judge = Callable[[TaskProgress, int], tuple[str, float] | None]


def judge_tasks(scene: Scene, judge: _Judge) -> Verdict:
    """Judge each partition that trains and cannot be listed, since its samples have no keys.

    Args:
        scene: What is judged.
        judge: Given a partition's progress and how many samples wait, returns what is the matter and since when.
    """
    if not scene.snapshot.up:
        return None
    return any_of(
        _one(scene, status, judge)
        for status in scene.snapshot.statuses
        if status.role == "train" and status.reason == "not_listable"
    )


def _one(scene: Scene, status: PartitionStatus, judge: _Judge) -> Verdict:
    samples = next((one for one in scene.snapshot.samples if one.partition == status.partition), None)
    progress = scene.past.tasks.get(status.partition)
    if samples is None or progress is None or samples.waiting is None:
        return None
    found = judge(progress, samples.waiting)
    if found is None:
        return CLEAR
    text, since = found
    quiet_for = scene.now - since
    if quiet_for <= _QUIET_S:
        return CLEAR
    task = f"task {quoted(samples.task or '')} of partition {quoted(status.partition)}"
    evidence = {"waiting": samples.waiting, "samples": samples.samples, "quiet_seconds": quiet_for}
    return Finding(f"{task} {text} for {span(quiet_for)}", evidence, (status.partition,), since=since)
