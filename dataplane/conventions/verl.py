"""verl: a prompt row ``{uid}`` whose status changes, and trajectory rows ``{uid}_{session}_{index}``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import UNSET

from dataplane.conventions.base import Convention, Group, KeyRule
from dataplane.tags import Int, Tag

__all__ = ["CONVENTION", "Verl"]

_UNFINISHED: Final = frozenset({"", "pending", "running"})


def _group_id(key: str, tag: Tag) -> str:
    if tag.is_prompt is True:
        return key
    head, _, index = key.rpartition("_")
    uid, _, session = head.rpartition("_")
    return uid if uid and index.isdecimal() and session.isdecimal() else key


class _PromptGroup(Group, gc=False):
    prompt_status: str | None = None


class Verl(Convention):
    """The prompt row's status is the group's status.

    A trainer that takes a group clears its prompt row first. Then only finished trajectories are left, and they decide.
    """

    name = "verl"
    rank = 10
    fields: Mapping[str, Any] = {"is_prompt": bool, "min_global_steps": Int | None, "status": str}
    key_rule = KeyRule(_group_id, "_")
    group_type = _PromptGroup

    def recognises(self, tags: Collection[Tag]) -> bool:
        """See :class:`Convention`. Its marker is a prompt flag or a range of steps."""
        for tag in tags:  # noqa: SIM110 - any() takes twice as long
            if tag.is_prompt is not UNSET or tag.min_global_steps is not UNSET:
                return True
        return False

    def account(self, group: _PromptGroup, tag: Tag, count: int, readable: bool) -> None:
        """See :class:`Convention`."""
        status = tag.status if type(tag.status) is str else ""
        if status in _UNFINISHED:
            group.committed = False
        elif status == "failure":
            group.failed = True
        if tag.is_prompt is True:
            group.prompt_status = status
        group.add(
            count,
            readable and (status != "" or tag.status is UNSET),
            UNSET if tag.min_global_steps is None else tag.min_global_steps,  # None: unknown to verl.
            tag.expected_num_keys,
            tag.num_keys,
            tag.created_at,
            tag.size_bytes,
        )

    def settle(self, group: _PromptGroup) -> None:
        """See :class:`Convention`. The prompt row decides, if it exists."""
        if group.prompt_status is not None:
            group.committed = group.prompt_status == "finished"
            group.failed = group.prompt_status == "failure"


CONVENTION: Final = Verl()
