"""The state of the exporter in one line, for its log: what it writes at SIGUSR1."""

from __future__ import annotations

import threading

from exporter.model.snapshot import Snapshot

__all__ = ["state_line"]


def state_line(snapshot: Snapshot, *, alive: bool) -> str:
    """Return what the exporter knows and how it is doing. Bounded, whatever the data plane contains.

    Args:
        snapshot: The latest snapshot.
        alive: Whether the loop that makes the snapshots still runs.
    """
    endpoint = snapshot.endpoint
    controller = "no controller" if endpoint is None else f"controller {endpoint.address}"
    unread = sum(not status.readable for status in snapshot.statuses)
    total = snapshot.total
    parts = [
        f"discovery {snapshot.discovery}, {'up' if snapshot.up else 'not up'}, {controller}",
        f"controllers seen: {snapshot.generation}",
        f"partitions: {len(snapshot.statuses)}, {unread} cannot be read",
        "keys: unknown" if total is None else f"keys: {total.keys}, ready groups: {total.depth}",
        "conditions: " + (", ".join(one.name for one in snapshot.held) or "none"),
        "sources: " + ", ".join(f"{source.source} {source.reason}" for source in snapshot.sources),
        f"errors: {sum(error.count for error in snapshot.errors)}",
        f"polling: {'runs' if alive else 'stands still'}, threads: {threading.active_count()}, "
        f"up for {snapshot.taken_at - snapshot.started_at:.0f} s",
    ]
    return "; ".join(parts)
