"""``recovery``: the tag has everything that the exporter can use, with the group id and a ``committed`` flag."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import UNSET

from dataplane.conventions.base import Account, Convention, Memory
from dataplane.tags import Tag, is_bare, to_bool

__all__ = ["CONVENTION", "Recovery"]


class Recovery(Convention):
    """A group is committed when each of its rows is tagged ``committed``.

    Some producers never write ``committed``: newer NeMo RL writes only ``group_id`` and ``weight_version``. So in a
    partition where no row has ever had ``committed``, a row is committed when it has any tag.
    """

    name = "recovery"
    rank = 20
    by_tag = True
    fields: Mapping[str, Any] = {"committed": bool}

    def recognises(self, tags: Collection[Tag]) -> bool:
        """See :class:`Convention`. Its marker is any tag that only this convention has."""
        for tag in tags:
            if (
                tag.group_id is not UNSET
                or tag.committed is not UNSET
                or tag.expected_num_keys is not UNSET
                or tag.num_keys is not UNSET
                or tag.created_at is not UNSET
            ):
                return True
        return False

    def accounting(self, tags: Collection[Tag], memory: Memory) -> Account:
        """See :class:`Convention`."""
        memory.flagged = memory.flagged or any(tag.committed is not UNSET for tag in tags)
        return self._account_flagged if memory.flagged else self._account_listed

    def _account_flagged(self, group: Any, tag: Tag, count: int, readable: bool) -> None:
        committed = to_bool(tag.committed)
        if committed is not True:
            group.committed = False
            readable = readable and (committed is False or tag.committed is UNSET)
        group.add(
            count, readable, tag.weight_version, tag.expected_num_keys, tag.num_keys, tag.created_at, tag.size_bytes
        )

    def _account_listed(self, group: Any, tag: Tag, count: int, readable: bool) -> None:
        if is_bare(tag):
            group.committed = False
        group.add(
            count, readable, tag.weight_version, tag.expected_num_keys, tag.num_keys, tag.created_at, tag.size_bytes
        )


CONVENTION: Final = Recovery()
