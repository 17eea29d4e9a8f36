"""What the recording keeps of groups that left in an unusual way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from exporter.model.groups import Departed

__all__ = ["DepartureNotes"]


class DepartureNotes:
    """Hands the recorder each unusual departure once. Not thread-safe.

    Args:
        record: Takes what is known of some groups, the first that left first.
    """

    def __init__(self, record: Callable[[Iterable[Mapping[str, object]]], None]) -> None:
        self._record = record
        self._last: Departed | None = None

    def note(self, departed: Sequence[Departed]) -> None:
        """Record those that left since the last call. *departed* has the last one first."""
        if not departed or departed[0] is self._last:
            return
        fresh = []
        for one in departed:
            if one is self._last:
                break
            fresh.append(one)
        self._last = departed[0]
        self._record(_fields(one) for one in reversed(fresh))


def _fields(one: Departed) -> dict[str, object]:
    return {
        "group_id": one.group_id,
        "at": one.departed_at,
        "state": one.state,
        "partition": one.partition,
        "why": ", ".join(one.why),
        "version": one.version,
        "lag": one.lag,
        "keys": one.key_count,
        "first_seen": one.first_seen,
        "trace_id": one.trace_id,
    }
