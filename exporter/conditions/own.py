"""Conditions of the exporter itself."""

from __future__ import annotations

from dataplane.visible import visible
from exporter.conditions.base import CLEAR, Finding, Scene, Verdict, rule
from exporter.conditions.words import span

__all__ = ["over_budget", "polls_stretched"]


@rule(
    "TQExporterOverBudget",
    "exporter",
    "warning",
    remedy="Raise metadata.interval, or lower metadata.max_controller_share.",
)
def over_budget(scene: Scene) -> Verdict:
    """The exporter takes too much of the controller's time."""
    busy = scene.snapshot.controller_busy_ratio
    if busy is None:
        return None
    if busy <= scene.limit("controller_busy_ratio"):
        return CLEAR
    return Finding(f"this exporter takes {busy * 100:.2g} % of the controller's time", {"busy_ratio": busy})


@rule(
    "TQExporterPollsStretched",
    "exporter",
    "notice",
    remedy="Do nothing if the figures are recent enough for you. Otherwise clear consumed keys.",
)
def polls_stretched(scene: Scene) -> Verdict:
    """Partitions are listed less often than configured, to spare the controller."""
    metadata = scene.source("metadata")
    if metadata is None or metadata.up is None:
        return None
    if metadata.reason != "budget" or metadata.interval is None:
        return CLEAR
    why = f": {visible(metadata.detail)}" if metadata.detail else ""
    said = f"partitions are listed only every {span(metadata.interval)}{why}"
    return Finding(said, {"interval_seconds": metadata.interval})
