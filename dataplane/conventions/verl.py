"""verl: a prompt row ``{uid}`` whose status changes, and trajectory rows ``{uid}_{session}_{index}``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from msgspec import UNSET

from dataplane.conventions.base import Convention, Group, KeyRule
from dataplane.tags import Int, Tag, is_bare, to_int

__all__ = ["CONVENTION", "Verl"]

_UNFINISHED: Final = frozenset({"", "pending", "running"})
_TRAJECTORY: Final = re.compile(r"._\d+_\d+\Z")


def _group_id(key: str, tag: Tag) -> str:
    if tag.is_prompt is True or (
        tag.status is UNSET and is_bare(tag)
    ):  # a key is listed before its tag, which may say that it is padding
        return key
    head, _, index = key.rpartition("_")
    uid, _, session = head.rpartition("_")
    return uid if uid and index.isdecimal() and session.isdecimal() else key


def _session(key: str) -> str:
    """Return what a trajectory's key has before its last underscore: the group and the session."""
    return key.rpartition("_")[0]


@functools.lru_cache(maxsize=1024, typed=True)
def _stated(global_steps: object, max_global_steps: object) -> int | None:
    """Return the newest version that one row states."""
    step, newest = to_int(global_steps), to_int(max_global_steps)
    if step is None or newest is None:
        return newest if step is None else step - 1
    return max(step - 1, newest)


def _newest(tags: Collection[Tag], stated: Callable[[object, object], int | None]) -> int | None:
    newest: int | None = None
    for tag in tags:
        version = stated(tag.global_steps, tag.max_global_steps)
        if version is not None and (newest is None or version > newest):
            newest = version
    return newest


class _PromptGroup(Group, gc=False):
    """``prompts`` is the number of prompt rows; ``prompt_step`` is the step for which the last one was dispatched."""

    prompts: int = 0
    prompt_key: str = ""
    prompt_status: str = ""
    prompt_step: int | None = None


class Verl(Convention):
    """The prompt row's status is the group's status.

    A trainer that takes a group clears its prompt row and leaves the trajectories until its step ends: a group of
    finished trajectories without a prompt row is taken. A finished prompt without trajectories is no
    group.
    """

    name = "verl"
    rank = 10
    by_tag = True
    fields: Mapping[str, Any] = {
        "global_steps": Int,
        "is_padding": bool,
        "is_prompt": bool,
        "is_session": bool,
        "max_global_steps": Int | None,
        "min_global_steps": Int | None,
        "status": str,
    }
    key_rule = KeyRule(_group_id, "_")
    group_type = _PromptGroup
    exact = False

    def recognises(self, tags: Collection[Tag]) -> bool:
        """See :class:`Convention`. Its marker is a prompt flag or a range of steps."""
        for tag in tags:  # noqa: SIM110 - any() takes twice as long
            if tag.is_prompt is not UNSET or tag.min_global_steps is not UNSET:
                return True
        return False

    def ignores(self, key: str, tag: Tag) -> bool:
        """See :class:`Convention`: rows that pad a batch, and markers of sessions (``{uid}_sess{n}``)."""
        if tag.is_padding is True or tag.is_session is True:
            return True
        if "_sess" not in key or tag.group_id is not UNSET:
            return False
        uid, _, number = key.rpartition("_sess")
        return bool(uid) and number.isdecimal()

    def stated_version(self, tags: Collection[Tag]) -> int | None:
        """See :class:`Convention`. A prompt is dispatched for the step after the last one that was finished."""
        try:
            return _newest(tags, _stated)
        except TypeError:  # A tag may hold anything.
            return _newest(tags, _stated.__wrapped__)

    def account(self, group: _PromptGroup, tag: Tag, count: int, readable: bool) -> None:
        """See :class:`Convention`."""
        status = tag.status if type(tag.status) is str else ""
        if tag.is_prompt is True:
            group.prompts += count
            group.prompt_key, group.prompt_status = group.keys[-1], status
            group.prompt_step = to_int(tag.global_steps)
        elif status in _UNFINISHED:
            group.committed = False
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
        if not group.prompts:
            group.taken = group.committed
            return
        group.committed = group.prompt_status == "finished"
        group.failed = group.prompt_status == "failure"
        group.empty = len(group.keys) == group.prompts
        if group.empty and group.version is None and group.prompt_step is not None:
            group.version = group.prompt_step - 1

    def members(self, group: _PromptGroup) -> int | None:
        """See :class:`Convention`: the number of sessions. A session may have several trajectories."""
        return len({_session(key) for key in group.keys if key != group.prompt_key})

    def sessions(self, keys: Sequence[str]) -> int | None:
        """See :class:`Convention`."""
        return len({_session(key) for key in keys if _TRAJECTORY.search(key)})


CONVENTION: Final = Verl()
