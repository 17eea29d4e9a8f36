"""Groups that left in an unusual way, and why it is unusual.

Listings cannot tell whether a group was trained or removed unused. What they show is the state in which it left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from dataplane.partitions import MAX_LABEL, Role
from exporter.model.counters import FlowCounters
from exporter.model.groups import Departed, Resident, cut

__all__ = ["MAX_DEPARTED", "WHY", "Departures"]

MAX_DEPARTED: Final = 1000
"""How many of them are kept."""

WHY: Final[Mapping[str, str]] = {
    "lost": "was lost with its controller, or when a checkpoint was loaded",
    "failed": "had failed",
    "unfinished": "was never ready",
    "untaken": "was ready and never seen as taken, although groups there are normally seen as taken",
    "stale": "was more weight versions behind than is acceptable",
    "old": "had stayed several times longer than is usual",
}
"""Why a departure is unusual."""

_OLD_TIMES: Final = 4.0
_OLD_S: Final = 600.0
_LEAST_DEPARTURES: Final = 20


class Departures:
    """The last departures that were unusual. Not thread-safe.

    Args:
        window: Above this lag a group is too stale: the threshold ``staleness_versions``.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._ring: deque[Departed] = deque(maxlen=MAX_DEPARTED)
        self._taking: set[Role] = set()
        self._newest_first: tuple[Departed, ...] | None = ()

    def takes(self, role: Role) -> None:
        """Note that groups of this role are seen taken before they leave."""
        self._taking.add(role)

    def why(self, role: Role, group: Resident, age_s: float, lag: int | None, earlier: FlowCounters) -> list[str]:
        """Return why it is unusual that *group* left, nothing when it is not.

        Args:
            role: What its partition is for.
            group: The group as it was last listed.
            age_s: How old it was, in seconds.
            lag: Its lag, None when unknown.
            earlier: What has left before it, of the same label.
        """
        found = []
        if group.state == "failed":
            found.append("failed")
        elif group.state in ("uncommitted", "incomplete"):
            found.append("unfinished")
        elif group.state == "ready" and role in self._taking:
            found.append("untaken")
        if lag is not None and lag > self._window:
            found.append("stale")
        left = earlier.departed.total()
        if left >= _LEAST_DEPARTURES and age_s > max(_OLD_TIMES * earlier.residence.sum / left, _OLD_S):
            found.append("old")
        return found

    def note(
        self, label: str, group_id: str, group: Resident, why: list[str], time: float, epoch: float, lag: int | None
    ) -> None:
        """Keep a group that left.

        Args:
            label: The label of its partition.
            group_id: Its id.
            group: The group as it was last listed.
            why: Why that is unusual.
            time: When it left, seconds since the epoch.
            epoch: The wall clock's time when the monotonic clock was 0.
            lag: Its lag, None when unknown.
        """
        self._newest_first = None
        self._ring.append(
            Departed(
                label,
                cut(group_id, MAX_LABEL),
                time,
                tuple(why),
                group.state,
                group.since + epoch,
                group.first_seen + epoch,
                group.created_at,
                group.weight_version,
                lag,
                group.key_count,
                cut(group.key, MAX_LABEL),
                group.size_bytes,
                group.trace_id,
            )
        )

    def newest_first(self) -> tuple[Departed, ...]:
        """Return them, the last one first."""
        if self._newest_first is None:
            self._newest_first = tuple(reversed(self._ring))
        return self._newest_first
