"""Conditions of the content of the queue, and of whether it can be read."""

from __future__ import annotations

from typing import Final

from dataplane.visible import visible
from exporter.conditions.base import CLEAR, Finding, Scene, Verdict, rule
from exporter.conditions.words import UNREADABLE, count, quoted, span
from exporter.model.snapshot import PartitionState, PartitionStatus

__all__ = ["groups_orphaned", "metadata_failing", "partition_unreadable", "rows_malformed"]

_NAMED: Final = 2


@rule(
    "DataPlaneMetadataFailing",
    "queue",
    "warning",
    remedy="Read the reason of the failed polls; raise metadata.timeout, or clear partitions that are too large.",
)
def metadata_failing(scene: Scene) -> Verdict:
    """The controller answers pings, and no partition can be listed."""
    metadata = scene.source("metadata")
    if not scene.snapshot.up or metadata is None or metadata.up is None:
        return None
    readable = any(one.readable for one in scene.snapshot.statuses)
    if metadata.reason != "stale" and (metadata.reason != "failing" or readable):
        return CLEAR
    age = {} if metadata.last_success is None else {"listing_age_seconds": scene.now - metadata.last_success}
    return Finding(f"partitions cannot be listed: {visible(metadata.detail or metadata.reason)}", age)


@rule(
    "DataPlanePartitionUnreadable",
    "queue",
    "warning",
    remedy="Act on the reason: raise metadata.max_memory, max_rows or timeout, or clear the partition.",
)
def partition_unreadable(scene: Scene) -> Verdict:
    """A partition that exists cannot be read."""
    if not scene.snapshot.up:
        return None
    unread = [one for one in scene.snapshot.statuses if one.reason not in (None, "pending")]
    if not unread:
        return CLEAR if scene.snapshot.statuses or scene.snapshot.total is not None else None
    unread.sort(key=lambda one: one.role != "train")
    named = [_unreadable(scene, one) for one in unread[:_NAMED]]
    if len(unread) > _NAMED:
        named.append(f"{count(len(unread) - _NAMED)} more cannot be read")
    blind = "generation and training are not evaluated, because " if unread[0].role == "train" else ""
    since = min((one.listed_at for one in unread if one.listed_at is not None), default=None)
    return Finding(
        blind + ", ".join(named), {"partitions": len(unread)}, tuple(one.partition for one in unread), since=since
    )


@rule(
    "DataPlaneGroupsOrphaned",
    "queue",
    "warning",
    remedy="Clear the keys of these groups. The run was resumed, so no process will remove them.",
    selects=lambda group, limits, evidence: group.orphaned,
)
def groups_orphaned(scene: Scene) -> Verdict:
    """Taken groups stay although the trainer's version has increased."""

    def judge(part: PartitionState) -> Finding | None:
        if part.orphaned is None or part.orphaned <= scene.limit("orphaned_groups"):
            return None
        said = (
            f"{count(part.orphaned)} taken groups of partition {quoted(part.partition)} are orphaned: the trainer's "
            "version has increased, and no process removes them"
        )
        return Finding(said, {"groups": part.orphaned}, (part.partition,))

    return scene.partitions(judge)


@rule(
    "DataPlaneRowsMalformed",
    "queue",
    "warning",
    remedy="Read the tags of a few rows, and fix their producer or the partition's tag convention.",
    selects=lambda group, limits, evidence: group.malformed > 0,
)
def rows_malformed(scene: Scene) -> Verdict:
    """Tags cannot be read."""

    def judge(part: PartitionState) -> Finding | None:
        if part.malformed_rows <= scene.limit("malformed_rows"):
            return None
        said = f"{count(part.malformed_rows)} rows of partition {quoted(part.partition)} have a tag that cannot be read"
        return Finding(said, {"rows": part.malformed_rows}, (part.partition,))

    return scene.partitions(judge)


def _unreadable(scene: Scene, one: PartitionStatus) -> str:
    listed = "never listed" if one.listed_at is None else f"last listed {span(scene.now - one.listed_at)} ago"
    why = UNREADABLE[one.reason] if one.reason is not None else ""
    return f"partition {quoted(one.partition)} cannot be read ({why}; {listed})"
