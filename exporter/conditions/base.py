"""What a condition is made of: the scene that it looks at, the finding that it returns, and its declaration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, NamedTuple

from dataplane.groups import GroupState
from dataplane.partitions import Role
from exporter.model.condition import Severity, Stage
from exporter.model.past import Past, Pulse
from exporter.model.snapshot import PartitionState, RoleFlow, Snapshot, SourceState
from exporter.shipped.thresholds import THRESHOLDS

__all__ = [
    "CLEAR",
    "Candidate",
    "Check",
    "Finding",
    "Limits",
    "Rule",
    "Scene",
    "Selects",
    "Verdict",
    "any_of",
    "is_finished",
    "is_unfinished",
    "rule",
]

_DEFAULTS: Final = {threshold.name: threshold.default for threshold in THRESHOLDS}


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a condition holds. See :class:`~exporter.model.condition.Condition` for the fields."""

    text: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    partitions: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    since: float | None = None


CLEAR: Final = False
Verdict = Finding | Literal[False] | None
"""A finding when the condition holds, :data:`CLEAR` when it does not, None when that is unknown."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is judged by. The thresholds have the defaults of the alerts' thresholds, by the same names.

    Attributes:
        quiet_s: A counter that does not grow for less than this many seconds is not quiet.
        ping_slo_s: A ping that takes longer is slow.
        thresholds: Thresholds by name.
    """

    quiet_s: float = 60.0
    ping_slo_s: float = _DEFAULTS["ping_slo_seconds"]
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(_DEFAULTS))


@dataclass(frozen=True)
class Scene:
    """What is judged: a snapshot, the history up to it, and the limits."""

    snapshot: Snapshot
    past: Past = field(default_factory=Past)
    limits: Limits = field(default_factory=Limits)

    @property
    def now(self) -> float:
        """When the snapshot was made, seconds since the epoch."""
        return self.snapshot.taken_at

    @cached_property
    def trained(self) -> PartitionState | None:
        """The partitions that train, together; None while one of them cannot be read, or nothing answers."""
        return self.snapshot.trained if self.snapshot.up else None

    @cached_property
    def train_flow(self) -> RoleFlow | None:
        """The flow through the partitions that train."""
        return next((flow for flow in self.snapshot.role_flows if flow.role == "train"), None)

    @property
    def needed(self) -> int:
        """How many ready groups the trainer waits for: those of a step, 1 if that is not known."""
        return (self.trained.groups_per_step if self.trained else None) or 1

    @property
    def training(self) -> int:
        """Groups that the trainer works on. Orphaned groups are no work in progress."""
        return self.trained.groups["taken"] - (self.trained.orphaned or 0) if self.trained else 0

    @property
    def enough(self) -> bool:
        """Whether the trainer can take a step."""
        return self.trained is not None and self.trained.depth >= self.needed

    @property
    def unwatched(self) -> bool:
        """Whether the partitions that train were seen at most once, which shows no flow."""
        return sum(self.past.recent.known) < 2

    @cached_property
    def pings(self) -> list[float]:
        """Durations of the pings of the last minutes, in seconds, oldest first."""
        return [one for one in self.past.recent.columns.get("ping", ()) if one is not None]

    def limit(self, name: str) -> float:
        """Return a threshold."""
        return self.limits.thresholds[name]

    def source(self, name: str) -> SourceState | None:
        """Return the health of a source, None when there is none of that name."""
        return next((one for one in self.snapshot.sources if one.source == name), None)

    def pulse(self, column: str) -> Pulse | None:
        """Return how a counter of the partitions that train grows, None while that is unknown."""
        return None if self.trained is None or self.unwatched else self.past.pulse(column)

    def patience(self, pulse: Pulse, least: float | None = None) -> float:
        """Return the seconds after which a counter is quiet for long: 3 times what is usual, and at least *least*."""
        return max(self.limits.quiet_s if least is None else least, 3 * (pulse.usual or 0.0))

    def quiet(self, pulse: Pulse, least: float | None = None) -> bool:
        """Return whether a counter has not grown for longer than :meth:`patience`."""
        return pulse.quiet_for > self.patience(pulse, least)

    def partitions(self, judge: Callable[[PartitionState], Finding | None], *, train: bool = False) -> Verdict:
        """Judge each partition that is listed; return the finding of the first one that has one.

        Without a finding the result is unknown while a partition cannot be read.

        Args:
            judge: Returns why the condition holds for a partition, None when it does not.
            train: Judge only partitions that train.
        """
        if not self.snapshot.up:
            return None
        parts = [part for part in self.snapshot.partitions if part.role == "train" or not train]
        found = any_of(judge(part) or CLEAR for part in parts)
        hidden = self.snapshot.total is None or any(
            not one.readable for one in self.snapshot.statuses if one.role == "train" or not train
        )
        return None if not found and hidden else found


def is_unfinished(group: Candidate) -> bool:
    """Return whether a group of a partition that trains is not ready yet."""
    return group.role == "train" and group.state in ("uncommitted", "incomplete")


def is_finished(group: Candidate) -> bool:
    """Return whether a group of a partition that trains is ready or taken."""
    return group.role == "train" and group.state in ("ready", "taken")


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the first finding; without one unknown if one is unknown, else :data:`CLEAR`.

    Further findings add their partitions and groups to the first.
    """
    unknown, found = False, list[Finding]()
    for verdict in verdicts:
        unknown = unknown or verdict is None
        if verdict:
            found.append(verdict)
    if not found:
        return None if unknown else CLEAR
    first = found[0]
    text = first.text if len(found) == 1 else f"{first.text}; and {len(found) - 1} more"
    partitions = tuple(name for one in found for name in one.partitions)
    return Finding(text, first.evidence, partitions, tuple(name for one in found for name in one.groups), first.since)


Check = Callable[[Scene], Verdict]


class Candidate(NamedTuple):
    """A group as a condition sees it that selects groups.

    Attributes:
        role: What its partition is for.
        state: Its state.
        lag: Its lag, None when unknown.
        age_s: Its age in seconds.
        orphaned: Whether it stays taken although the trainer's version has moved on.
        malformed: Number of its rows with a tag that could not be read.
    """

    role: Role
    state: GroupState
    lag: int | None
    age_s: float
    orphaned: bool
    malformed: int


Selects = Callable[[Candidate, Limits, Mapping[str, float]], bool]
"""Whether a condition is about a group, given the limits, and the condition's evidence while it holds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition as declared. For the fields see :class:`~exporter.model.condition.Condition`.

    Attributes:
        check: Judges a scene.
        selects: Tells which groups the condition is about, None when it is about none.
    """

    name: str
    stage: Stage
    severity: Severity
    remedy: str
    runbook: str
    degrades: bool
    check: Check
    selects: Selects | None = None


def rule(
    name: str,
    stage: Stage,
    severity: Severity,
    *,
    remedy: str,
    runbook: str | None = None,
    degrades: bool | None = None,
    selects: Selects | None = None,
) -> Callable[[Check], Rule]:
    """Make a function that judges a scene into a condition.

    Args:
        name: See :class:`~exporter.model.condition.Condition`.
        stage: Likewise.
        severity: Likewise.
        remedy: Likewise.
        runbook: The name of its runbook, by default *name*.
        degrades: Likewise; by default when it is critical.
        selects: See :class:`Rule`. It agrees with the check: the groups that a finding counts are selected.
    """
    page = f"docs/runbooks/{runbook or name}.md"
    serious = severity == "critical" if degrades is None else degrades
    return lambda check: Rule(name, stage, severity, remedy, page, serious, check, selects)
