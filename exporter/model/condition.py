"""A condition: one judgement on the data plane, as every output shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

__all__ = ["SEVERITIES", "STAGES", "Condition", "Severity", "Stage"]

Severity = Literal["ok", "notice", "warning", "critical"]
Stage = Literal["generation", "queue", "training", "data_plane", "exporter"]

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""From harmless to worst."""

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition at the time of a snapshot.

    Attributes:
        name: That of the alert that says the same, where there is one.
        stage: Where to look.
        severity: How bad it is while it holds: ``critical`` where GPUs are idle or data is lost, or will be soon;
            ``ok`` for the one that says that groups flow.
        holds: Whether it holds, None while that is unknown.
        degrades: Whether the data plane is degraded while it holds, though its controller answers.
        since: Since when it holds, seconds since the epoch, None while it does not.
        text: What is the matter, as part of a sentence, empty while it does not hold. For display only.
        evidence: The figures that it was judged by; the unit is in the name where it is not a count.
        partitions: The partitions concerned.
        groups: The ids of some of the groups concerned, cut to the length of a label. For display only.
        remedy: What to do first.
        runbook: The page that says more, below the repository's root.
        about_groups: Whether it is about groups: ``/api/v1/groups?condition=NAME`` has them.
    """

    name: str
    stage: Stage
    severity: Severity
    holds: bool | None = None
    degrades: bool = False
    since: float | None = None
    text: str = ""
    evidence: Mapping[str, float] = field(default_factory=dict)
    partitions: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    remedy: str = ""
    runbook: str = ""
    about_groups: bool = False
