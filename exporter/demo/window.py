"""The trainer's staleness window: which groups to train on and which to evict. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dataplane.groups import DataPlaneGroupMeta

__all__ = ["ABANDONED_AFTER", "Choice", "choose"]

ABANDONED_AFTER = 8
"""An unfinished group that misses the window by more versions than this is evicted: its producer counts as dead."""


@dataclass(frozen=True)
class Choice:
    """What to train on and what to evict.

    Attributes:
        train: The next batch, oldest version first; empty when fewer groups are ready than a batch needs.
        evict: Groups that will never be trained on: too stale, failed, without a version, or left unfinished.
    """

    train: list[DataPlaneGroupMeta]
    evict: list[DataPlaneGroupMeta]


def choose(groups: Iterable[DataPlaneGroupMeta], *, weight_version: int, max_lag: int, batch_groups: int) -> Choice:
    """Choose from a partition's *groups*.

    Args:
        groups: What :meth:`~dataplane.interfaces.DataPlaneClient.list_metadata` returned.
        weight_version: The trainer's version.
        max_lag: Largest lag of a group behind it, in versions.
        batch_groups: Groups of one training step.
    """
    oldest = weight_version - max_lag
    usable: list[tuple[int, DataPlaneGroupMeta]] = []
    evict: list[DataPlaneGroupMeta] = []
    for group in groups:
        version = group.weight_version
        if group.state == "failed":
            evict.append(group)
        elif group.state == "ready":
            if version is not None and version >= oldest:
                usable.append((version, group))
            else:
                evict.append(group)
        elif version is not None and version < oldest - ABANDONED_AFTER:
            evict.append(group)
    usable.sort(key=lambda item: item[0])
    ready = [group for _, group in usable]
    return Choice(ready[:batch_groups] if len(ready) >= batch_groups else [], evict)
