"""What a snapshot shows to be wrong or unknown, as sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Final

from exporter.model.snapshot import PartitionState, RoleFlow, Snapshot, UnreadableReason

__all__ = ["clock", "findings"]

_UNREADABLE: Final[dict[UnreadableReason, str]] = {
    "timeout": "timed out",
    "unavailable": "the controller did not answer",
    "refused": "too large",
    "held": "held back, since it failed before",
    "pending": "not listed yet",
    "not_listable": "not listable: samples were put without keys",
    "error": "its reply cannot be read",
}
_LONGEST_NAME: Final = 48
_LEAST_LAG: Final = 5
"""If even the newest finished group is this many versions behind, new weights do not reach the rollouts."""


def findings(snapshot: Snapshot, watched_s: float | None = None) -> Iterator[str]:
    """Yield what is wrong or unknown.

    Args:
        snapshot: What was seen.
        watched_s: For how many seconds the data plane was watched, None for a single poll, which shows no flow.
    """
    for status in snapshot.statuses:
        if status.reason is not None:
            when = "never listed" if status.listed_at is None else f"last listed {clock(status.listed_at)}"
            yield f"{status.partition!r} ({status.role}) cannot be read: {_UNREADABLE[status.reason]}; {when}"
    for partition in snapshot.partitions:
        if partition.orphaned:
            yield (
                f"{partition.partition!r} has {partition.orphaned} orphaned groups: taken before the trainer's version "
                "moved on, and never removed"
            )
    for sample in snapshot.samples:
        if sample.task is not None and sample.waiting:
            yield f"{sample.waiting} samples of {sample.partition!r} wait for the task {sample.task!r}"
    trained = snapshot.trained
    if trained is None:
        return
    if trained.groups_per_step and trained.depth < trained.groups_per_step:
        yield f"{trained.depth} of the {trained.groups_per_step} groups of a step are ready{_unfinished(trained)}"
    made, reference = trained.newest_finished_version, snapshot.reference_version
    if made is not None and reference is not None and reference - made >= _LEAST_LAG:
        yield (
            f"even the newest finished group is {reference - made} versions behind the trainer's version {reference}: "
            "new weights do not reach the rollouts"
        )
    train = next((flow for flow in snapshot.role_flows if flow.role == "train"), None)
    if watched_s is not None and train is not None:
        yield from _flow(trained, train, watched_s)


def _flow(trained: PartitionState, flow: RoleFlow, watched_s: float) -> Iterator[str]:
    given_up = flow.departed["uncommitted"] + flow.departed["incomplete"] + flow.departed["failed"]
    taken = trained.groups["taken"] - trained.orphaned
    enough = trained.depth >= (trained.groups_per_step or 1)
    if flow.arrived and not flow.completed and given_up:
        yield f"groups arrive and none was completed in {watched_s:g} s: {given_up} failed or were given up"
    elif not flow.completed and not enough and not taken:
        yield f"the trainer waits, and no group was completed in {watched_s:g} s{_unfinished(trained)}"
    if not flow.departed["ready"] and not flow.departed["taken"] and (enough or taken):
        what = f"{taken} groups are taken" if taken else f"{trained.depth} groups are ready"
        yield f"{what}, and the trainer finished with none in {watched_s:g} s"


def _unfinished(trained: PartitionState) -> str:
    """Return how many groups are unfinished, and which have been for longest. As findings.js of the page does."""
    count = trained.groups["uncommitted"] + trained.groups["incomplete"]
    if not count:
        return ""
    named = [f"{_cut(one.group_id)!r} since {clock(one.created_at)}" for one in trained.unfinished]
    if named and count > len(named):
        named.append(f"and {count - len(named)} more")
    return f"; {count} unfinished{', the oldest: ' if named else ''}{', '.join(named)}"


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def clock(seconds: float) -> str:
    """Return a time in seconds since the epoch as a time of the day."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M:%S UTC")
