"""NeMo RL: keys ``{uid}_g{i}``, with only ``weight_version`` in the tag (asynchronous) or no tag."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from msgspec import UNSET

from dataplane.conventions.base import Account, Convention, KeyRule, Memory
from dataplane.tags import Tag

__all__ = ["CONVENTION", "NemoRL"]


def _group_id(key: str, tag: Tag) -> str:
    head, _, index = key.rpartition("_g")
    return head if head and index.isdecimal() else key


class NemoRL(Convention):
    """Once a row of a partition has a version, a row without one is a write that is in progress or failed.

    In a partition without any version, a row is committed when its key names its group.
    """

    name = "nemo-rl"
    rank = 100
    by_tag = True
    key_rule = KeyRule(_group_id, "_g")

    def recognises(self, tags: Collection[Tag]) -> bool:
        """See :class:`Convention`. It has no marker, so it accepts every partition and is asked last."""
        return True

    def accounting(self, tags: Collection[Tag], memory: Memory) -> Account:
        """See :class:`Convention`."""
        memory.flagged = memory.flagged or any(tag.weight_version is not UNSET for tag in tags)
        return self._account_tagged if memory.flagged else self.account

    def _account_tagged(self, group: Any, tag: Tag, count: int, readable: bool) -> None:
        if tag.weight_version is UNSET:
            group.committed = False
        group.add(
            count, readable, tag.weight_version, tag.expected_num_keys, tag.num_keys, tag.created_at, tag.size_bytes
        )


CONVENTION: Final = NemoRL()
