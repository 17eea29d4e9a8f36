"""The verdict: which part is at fault, what works, what is unknown. The conditions decide; this says it in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from exporter.conditions.words import clock, count, span
from exporter.model.condition import SEVERITIES, Condition, Severity, Stage
from exporter.model.snapshot import DiscoveryState, Snapshot
from exporter.model.window import Window

__all__ = ["Verdict", "exit_code", "give_verdict"]

_CULPRITS: Final[dict[Stage, str]] = {
    "generation": "the rollout workers",
    "queue": "the content of the queue",
    "training": "the trainer",
    "data_plane": "the controller",
    "exporter": "this exporter",
}
"""The part at fault, by the stage of a condition."""

_OTHERS: Final[dict[str, str]] = {
    "DataPlaneMetadataFailing": "this exporter's view of the queue",
    "DataPlanePartitionUnreadable": "this exporter's view of a part of the queue",
    "DataPlaneWeightVersionStuck": "the weight synchronization or the version that the trainer publishes",
    "DataPlaneRolloutsBehind": "the weight synchronization to the rollout workers",
    "DataPlaneLagUnusual": "the pace of trainer and rollout workers",
    "DataPlaneStalenessAboveWindow": "groups that are neither taken nor evicted",
    "DataPlaneTaskStarved": "the producers of samples",
    "DataPlaneTaskStalled": "the process of a task",
    "DataPlaneTaskBehind": "the process of a task",
}
"""The part at fault, where the stage does not say it."""

_STORAGE: Final = (
    "DataPlaneStorage",
    "DataPlaneNearCapacity",
    "DataPlaneFull",
)
"""How the names of the conditions of storage begin."""

_CAUSES: Final = ("DataPlaneStorageUnitSilent",)
"""Warnings that explain what is critical in generation and training: puts and reads wait for that unit."""

_NOT_UP: Final[dict[DiscoveryState, str]] = {
    "never_found": "no TransferQueue has been found yet",
    "starting": "the controller is starting",
    "unreachable": "the controller's address is known, and it has not answered yet",
    "found": "the controller does not answer",
    "lost": "the controller is gone",
    "ended": "the controller was ended on purpose: no job runs",
}

_LATELY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to "what is wrong?".

    Attributes:
        culprit: The part at fault, empty while nothing is known to be wrong.
        condition: The name of the condition that says so, empty without one.
        severity: The worst of what holds; ``ok`` when nothing does.
        cause: What is the matter.
        healthy: What is seen to work.
        unknown: What is not known.
    """

    culprit: str
    condition: str
    severity: Severity
    cause: str
    healthy: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """One to three sentences."""
        said = [f"{self.culprit}: {self.cause}" if self.culprit else self.cause]
        if self.healthy:
            said.append(_listed(self.healthy))
        if self.unknown:
            said.append(f"unknown: {_listed(self.unknown)}")
        return tuple(f"{one[0].upper()}{one[1:]}." for one in said)


def give_verdict(snapshot: Snapshot, recent: Window | None = None) -> Verdict:
    """Return the verdict on a judged snapshot.

    Args:
        snapshot: The latest snapshot, with its conditions.
        recent: The last minutes, which show what still moves; None when they are not known.
    """
    worst: Severity = max((one.severity for one in snapshot.held), key=SEVERITIES.index, default="ok")
    healthy = tuple(_healthy(snapshot, recent))
    unknown = tuple(_unknown(snapshot))
    main = _main(snapshot, worst)
    if main is not None:
        facts = [_cause(main), *_facts(snapshot, main, recent)]
        return Verdict(_culprit(snapshot, main), main.name, worst, "; ".join(facts), healthy, unknown)
    if not snapshot.up:
        details = {one.source: one.detail for one in snapshot.sources}
        why = details.get("discovery") or details.get("ping")
        said = _NOT_UP[snapshot.discovery] + (f" ({why})" if why else "")
        return Verdict("", "", worst, said, healthy, unknown)
    flows = next((one.text for one in snapshot.conditions if one.holds and one.severity == "ok"), "")
    well = f"nothing is wrong: {flows}" if flows else "no fault was found"
    return Verdict("", "", worst, "; ".join([well, *_facts(snapshot, None, recent)]), healthy, unknown)


def exit_code(snapshot: Snapshot, *, strict: bool = False) -> int:
    """Return 0, 1 when TransferQueue did not answer, 3 while a critical condition holds, with *strict* a warning."""
    if not snapshot.up:
        return 1
    serious = ("critical", "warning") if strict else ("critical",)
    return 3 if any(one.severity in serious for one in snapshot.held) else 0


def _main(snapshot: Snapshot, worst: Severity) -> Condition | None:
    """Return the condition to name: they are ordered, causes before what follows. A notice is not a fault."""
    if worst not in ("critical", "warning"):
        return None
    first = next(one for one in snapshot.held if one.severity == worst)
    causes = (one for one in snapshot.held if one.name in _CAUSES) if first.stage in ("generation", "training") else ()
    return next(iter(causes), first)


def _culprit(snapshot: Snapshot, main: Condition) -> str:
    endpoint = snapshot.endpoint
    if main.stage == "data_plane" and endpoint is not None:
        return f"the controller ({_place(endpoint.address, endpoint.pid, endpoint.node_id)})"
    if main.name.startswith(_STORAGE):
        number = main.evidence.get("first_unit_down", main.evidence.get("unit"))
        if number is None:
            return "the storage"
        units = () if endpoint is None else endpoint.storage_units
        found = next((one for one in units if one.index == int(number)), None)
        at = "" if found is None else f" ({_place(found.address, found.pid, found.node_id)})"
        return f"storage unit {number:.0f}{at}"
    return _OTHERS.get(main.name, _CULPRITS[main.stage])


def _place(address: str, pid: int | None, node_id: str | None) -> str:
    return address + (f", process {pid}" if pid else "") + (f" on node {node_id}" if node_id else "")


def _cause(main: Condition) -> str:
    quiet = main.evidence.get("quiet_seconds")
    ready = main.evidence.get("ready")
    if main.name in ("DataPlaneQueueStalled", "DataPlaneTrainingQuiet") and quiet is not None and ready is not None:
        return f"training has taken nothing for {span(quiet)} while {count(ready)} groups are ready"
    return main.text


def _facts(snapshot: Snapshot, main: Condition | None, recent: Window | None) -> Iterator[str]:
    """Yield what helps to understand the cause."""
    version, changed = snapshot.reference_version, snapshot.reference_changed_at
    told = main is not None and "version" in main.evidence
    if snapshot.up and version is not None and not told:
        whose = "the newest version seen" if snapshot.reference == "newest_seen" else "the trainer's version"
        yield f"{whose} is {version}" + ("" if changed is None else f" since {clock(changed)}")
    if main is not None and main.stage == "generation" and recent is not None:
        arrived = recent.last_growth("arrived")
        if arrived is None or snapshot.taken_at - arrived > _LATELY_S:
            yield "no group arrives" if arrived is None else f"no group has arrived since {clock(arrived)}"
    known = snapshot.last_known
    if snapshot.up:
        return
    if main is not None and main.since is not None:
        yield f"since {clock(main.since)}"
    if known is not None:
        ready = sum(part.groups["ready"] for part in known.partitions if part.role == "train")
        yield f"when it last answered, {clock(known.at)}, {count(ready)} groups were ready"


def _healthy(snapshot: Snapshot, recent: Window | None) -> Iterator[str]:
    if not snapshot.up:
        return
    units = snapshot.storage
    down = sum(not unit.up for unit in units)
    if not units:
        yield "the controller answers"
    elif down:
        yield f"the controller and {len(units) - down} of {len(units)} storage units answer"
    else:
        yield f"the controller and {'its storage unit' if len(units) == 1 else f'{len(units)} storage units'} answer"
    for column, said in (("arrived", "groups arrive"), ("departed", "groups leave")):
        grown = None if recent is None else recent.last_growth(column)
        lately = grown is not None and snapshot.taken_at - grown <= _LATELY_S
        # Groups that are given up leave as well, and that is not a sign of health.
        if recent is not None and lately and (column != "departed" or grown != recent.last_growth("given_up")):
            yield said


def _unknown(snapshot: Snapshot) -> Iterator[str]:
    if not snapshot.up:
        yield "what the queue holds now"
        return
    if not snapshot.storage:
        storage = next((one for one in snapshot.sources if one.source == "storage"), None)
        why = "" if storage is None else storage.detail or storage.reason
        yield "the storage units" + (f" ({why})" if why and why != "ok" else "")
    dark = [stage for stage in ("generation", "training") if _is_dark(snapshot, stage)]
    if dark:
        why = "not all partitions can be read" if snapshot.trained is None else "not watched for long enough"
        yield f"the state of {' and '.join(dark)} ({why})"
    if snapshot.reference_version is None:
        yield "the trainer's version"


def _is_dark(snapshot: Snapshot, stage: str) -> bool:
    """Return whether most conditions of a stage are unknown."""
    known = [one.holds is not None for one in snapshot.conditions if one.stage == stage and one.severity != "ok"]
    return bool(known) and sum(known) * 2 < len(known)


def _listed(parts: tuple[str, ...]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
