"""Judges every snapshot before it is published."""

from __future__ import annotations

import logging
from dataclasses import replace

from exporter.conditions.base import CLEAR, Limits, Rule, Scene, Verdict
from exporter.conditions.registry import CONDITIONS
from exporter.model.condition import Condition
from exporter.model.history import History
from exporter.model.snapshot import LastKnown, Snapshot

__all__ = ["Judge"]

logger = logging.getLogger(__name__)


class Judge:
    """Adds the conditions to snapshots, and what was last known to those of a data plane that does not answer.

    Not thread-safe: the poller serialises the calls.

    Args:
        history: Records every snapshot that is judged.
        limits: What is judged by.
    """

    def __init__(self, history: History, limits: Limits | None = None) -> None:
        self._history = history
        self._limits = limits or Limits()
        self._since: dict[str, float] = {}
        self._defects: set[str] = set()
        self._last_known: LastKnown | None = None

    def judge(self, snapshot: Snapshot) -> Snapshot:
        """Record *snapshot*, and return it with its conditions."""
        self._history.observe(snapshot)
        scene = Scene(snapshot, self._history.past(), self._limits)
        found = [self._condition(rule, self._check(rule, scene), scene.now) for rule in CONDITIONS]
        wrong = any(one.holds and one.severity in ("warning", "critical") for one in found)
        # Whatever the counters do: with a fault, all is not well.
        conditions = tuple(
            self._condition(rule, CLEAR, scene.now)
            if wrong and condition.holds and condition.severity == "ok"
            else condition
            for rule, condition in zip(CONDITIONS, found, strict=True)
        )
        judged = replace(snapshot, conditions=conditions, last_known=self._known(snapshot))
        if judged.degraded:
            self._history.note_degraded()
        return judged

    def _known(self, snapshot: Snapshot) -> LastKnown | None:
        if not snapshot.up:
            return self._last_known
        if snapshot.partitions or snapshot.storage:
            self._last_known = LastKnown(snapshot.taken_at, snapshot.partitions, snapshot.statuses, snapshot.storage)
        return None

    def _check(self, rule: Rule, scene: Scene) -> Verdict:
        try:
            return rule.check(scene)
        except Exception:  # our bug must not end the polling: this condition is unknown
            if rule.name not in self._defects:
                self._defects.add(rule.name)
                logger.exception("evaluating %s failed with an unexpected error", rule.name)
            return None

    def _condition(self, rule: Rule, verdict: Verdict, now: float) -> Condition:
        about_groups = rule.selects is not None
        fixed = (rule.name, rule.stage, rule.severity)
        if not verdict:
            self._since.pop(rule.name, None)
            holds = None if verdict is None else False
            return Condition(
                *fixed, holds, rule.degrades, remedy=rule.remedy, runbook=rule.runbook, about_groups=about_groups
            )
        since = self._since.setdefault(rule.name, now if verdict.since is None else verdict.since)
        return Condition(
            *fixed,
            True,
            rule.degrades,
            since,
            verdict.text,
            verdict.evidence,
            verdict.partitions,
            verdict.groups,
            rule.remedy,
            rule.runbook,
            about_groups,
        )
