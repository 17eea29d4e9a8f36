"""Group metadata: from the rows of a partition (``{key: tag}``) to groups. Pure, no I/O.

A *row* is one sample: its key and its tag, the small dict that a producer wrote beside the tensors. A
*group* is what trains together, for example all completions of one prompt. :func:`group_rows` is the hot
loop of the exporter; it never raises on a malformed tag, it reports the field as unknown and counts the row.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET

__all__ = [
    "CONVENTIONS",
    "GROUP_STATES",
    "Convention",
    "DataPlaneCapabilities",
    "DataPlaneGroupMeta",
    "GroupState",
    "TagFields",
    "count_ready",
    "detect_convention",
    "group_rows",
    "is_reserved_key",
]

GroupState = Literal["ready", "incomplete", "uncommitted", "failed"]
Convention = Literal["auto", "recovery", "nemo-rl", "verl"]

GROUP_STATES: Final[tuple[GroupState, ...]] = ("ready", "incomplete", "uncommitted", "failed")
CONVENTIONS: Final[tuple[Convention, ...]] = ("auto", "recovery", "nemo-rl", "verl")

# The integers that a float64, and so a metric sample, holds exactly.
_MIN_EXACT_INT, _MAX_EXACT_INT = -(2**53), 2**53


# A struct, not a dataclass: a poll makes one per group, and a frozen dataclass takes 15 times as long to make.
class DataPlaneGroupMeta(msgspec.Struct, frozen=True, gc=False):
    """What the data plane knows of one group of samples, without touching a tensor.

    Attributes:
        partition_id: The partition that holds the group.
        group_id: The ``group_id`` tag, else what the tag convention reads from the key, else the key.
        keys: The group's keys, sorted.
        weight_version: The oldest weight version among the rows (a mixed group is as stale as its oldest
            row), None when no row has a readable one.
        created_at: The oldest creation time in seconds since the epoch, None when unknown.
        committed: True when every row says that its data is written.
        expected_num_keys: How many keys the complete group has, None when undeclared.
        size_bytes: Sum over the rows that declare a size, None when none does.
        tags: A copy of the first row's tags with its keys in sorted order. The wire reader keeps only the
            tags that this module reads.
        failed: True when the producer marked the group as failed (verl's ``failure``).
        malformed_keys: How many of the rows carried a tag that could not be read.
    """

    partition_id: str
    group_id: str
    keys: list[str]
    weight_version: int | None = None
    created_at: float | None = None
    committed: bool = False
    expected_num_keys: int | None = None
    size_bytes: int | None = None
    tags: dict[str, Any] = msgspec.field(default_factory=dict)
    failed: bool = False
    malformed_keys: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all expected keys are there; True when no number was declared."""
        return self.expected_num_keys is None or len(self.keys) == self.expected_num_keys

    @property
    def state(self) -> GroupState:
        """``failed``, else ``uncommitted``, else ``incomplete``, else ``ready``."""
        if self.failed:
            return "failed"
        if not self.committed:
            return "uncommitted"
        return "ready" if self.is_complete else "incomplete"


@dataclass(frozen=True, slots=True)
class DataPlaneCapabilities:
    """What an adapter can do beyond the contract. An adapter claims only what a test shows.

    Attributes:
        supports_persistent_recovery: The data survives a restart of the data plane.
        supports_server_side_filtering: Listings can be filtered before they reach the client.
        supports_atomic_batch_put: A batch is written as a whole or not at all.
        supports_verified_clear: A clear that returns has removed the data from storage.
    """

    supports_persistent_recovery: bool = False
    supports_server_side_filtering: bool = False
    supports_atomic_batch_put: bool = False
    supports_verified_clear: bool = False


class TagFields(msgspec.Struct, frozen=True, gc=False):
    """The tags that the conventions read, as they came; any value may be malformed.

    The wire reader decodes straight into this, so what is not listed here is skipped undecoded.
    """

    committed: Any = UNSET
    created_at: Any = UNSET
    expected_num_keys: Any = UNSET
    global_steps: Any = UNSET
    group_id: Any = UNSET
    is_prompt: Any = UNSET
    max_global_steps: Any = UNSET
    min_global_steps: Any = UNSET
    num_keys: Any = UNSET
    seq_len: Any = UNSET
    size_bytes: Any = UNSET
    status: Any = UNSET
    weight_version: Any = UNSET


_FIELD_NAMES = TagFields.__struct_fields__
_NO_TAGS = TagFields()
_VERL_UNFINISHED = frozenset({"pending", "running"})
_NO_MAP = TagFields()  # Stands, by identity, for a tag that is no mapping.
_PLAIN = frozenset({bool, int, float, str})
_AS_THEY_ARE = (bytes, datetime.datetime)


def is_reserved_key(key: str) -> bool:
    """Whether *key* is a framework's placeholder (``__schema__:…``) and never part of a group."""
    return key.startswith("__")


def count_ready(groups: Iterable[DataPlaneGroupMeta]) -> int:
    """Return the depth: how many of *groups* are committed, complete and not failed."""
    return sum(1 for group in groups if group.state == "ready")


def detect_convention(tags: Iterable[TagFields]) -> Convention:
    """Return the convention that a partition's *tags* follow: ``verl``, ``recovery`` or ``nemo-rl``.

    verl's prompt marker or step range settles it, then any tag that only ``recovery`` has; a partition with
    neither is NeMo RL's, whose rows carry a ``weight_version`` or nothing.
    """
    recovery = False
    for tag in tags:
        if tag.is_prompt is not UNSET or tag.min_global_steps is not UNSET:
            return "verl"
        if (
            tag.group_id is not UNSET
            or tag.committed is not UNSET
            or tag.expected_num_keys is not UNSET
            or tag.num_keys is not UNSET
            or tag.created_at is not UNSET
        ):
            recovery = True
    return "recovery" if recovery else "nemo-rl"


def group_rows(
    partition_id: str,
    rows: Mapping[str, object],
    *,
    convention: Convention = "auto",
    group_size: int | None = None,
) -> list[DataPlaneGroupMeta]:
    """Turn a partition's rows into groups, in the order in which their first rows are listed.

    Args:
        partition_id: The partition that the rows come from.
        rows: Key to tag. A tag is a mapping or a :class:`TagFields`; anything else is malformed.
        convention: How producers stamp their tags; ``auto`` decides from the rows.
        group_size: Expected number of keys for groups that declare none.

    Returns:
        One entry per group. Rows whose key starts with ``__`` belong to none.
    """
    tags = _readable(rows)
    if convention == "auto":
        convention = detect_convention(tags.values())
    verl, recovery = convention == "verl", convention == "recovery"
    # A NeMo RL row without a version, among rows that have one, is a write in progress or one that failed.
    nemo_versioned = convention == "nemo-rl" and any(tag.weight_version is not UNSET for tag in tags.values())

    groups = []
    for group_id, keys in _members(tags, convention).items():
        first = rows[keys[0]]
        if len(keys) > 1:
            keys.sort()
        version = created_at = expected = size = None
        committed, failed, malformed = True, False, 0
        prompt_status: Any = UNSET
        for key in keys:
            tag = tags[key]
            readable = tag is not _NO_MAP

            if verl:
                status = tag.status
                if type(status) is not str:
                    committed = False
                    readable = readable and status is UNSET
                elif status == "failure":
                    failed = True
                elif status in _VERL_UNFINISHED:
                    committed = False
                if tag.is_prompt is True:
                    prompt_status = status
            elif recovery:
                if tag.committed is not True:
                    said = _bool(tag.committed)
                    committed = committed and said is True
                    readable = readable and (said is not None or tag.committed is UNSET)
            elif nemo_versioned and tag.weight_version is UNSET:
                committed = False

            value = tag.min_global_steps if verl else tag.weight_version
            if value is not UNSET and not (verl and value is None):  # verl writes None when it does not know.
                number = _int(value)
                if number is None:
                    readable = False
                elif version is None or number < version:
                    version = number

            value = tag.num_keys if tag.expected_num_keys is UNSET else tag.expected_num_keys
            if value is not UNSET:
                number = _int(value)
                if number is None or number < 0:
                    readable = False
                elif expected is None or number > expected:
                    expected = number

            if tag.created_at is not UNSET:
                seconds = _seconds(tag.created_at)
                if seconds is None:
                    readable = False
                elif created_at is None or seconds < created_at:
                    created_at = seconds

            if tag.size_bytes is not UNSET:
                number = _int(tag.size_bytes)
                if number is None or number < 0:
                    readable = False
                else:
                    size = number if size is None else size + number

            value = tag.group_id
            if type(value) is not str and value is not UNSET and _text(value) is None:
                readable = False
            if not readable:
                malformed += 1

        # The trainer that takes a verl group clears the prompt row first; what is left are finished trajectories.
        if prompt_status is not UNSET:
            committed, failed = prompt_status == "finished", prompt_status == "failure"
        groups.append(
            DataPlaneGroupMeta(
                partition_id,
                group_id,
                keys,
                version,
                created_at,
                committed,
                group_size if expected is None else expected,
                size,
                _sorted_tags(first),
                failed,
                malformed,
            )
        )
    return groups


def _readable(rows: Mapping[str, object]) -> Mapping[str, Any]:
    """Return the rows that belong to groups with their tags as TagFields: *rows* itself where it is that already."""
    reserved = [key for key in rows if key[:2] == "__"]
    if not reserved and set(map(type, rows.values())) == {TagFields}:
        return rows
    tags = {key: _tag_fields(tag) for key, tag in rows.items()}
    for key in reserved:
        del tags[key]
    return tags


def _tag_fields(tag: object) -> TagFields:
    if type(tag) is TagFields:
        return tag
    if not isinstance(tag, Mapping):
        return _NO_MAP
    known = {name: value for name, value in tag.items() if name in _FIELD_NAMES}
    return TagFields(**known) if known else _NO_TAGS


def _members(tags: Mapping[str, TagFields], convention: Convention) -> dict[str, list[str]]:
    """Return the keys of each group, groups and keys as listed."""
    id_in_key = _ID_IN_KEY.get(convention)
    members: dict[str, list[str]] = {}
    for key, tag in tags.items():
        group_id = tag.group_id
        if group_id is not UNSET and type(group_id) is not str:
            group_id = _text(group_id)
        if group_id is UNSET or group_id is None:
            group_id = key if id_in_key is None else id_in_key(key, tag)
        keys = members.get(group_id)
        if keys is None:
            members[group_id] = [key]
        else:
            keys.append(key)
    return members


def _nemo_rl_id(key: str, tag: TagFields) -> str:
    head, separator, index = key.rpartition("_g")
    return head if separator and index.isascii() and index.isdigit() else key


def _verl_id(key: str, tag: TagFields) -> str:
    if tag.is_prompt is True:
        return key
    uid, *indices = key.rsplit("_", 2)
    return uid if len(indices) == 2 and all(index.isascii() and index.isdigit() for index in indices) else key


_ID_IN_KEY: Final[Mapping[str, Callable[[str, TagFields], str]]] = {"nemo-rl": _nemo_rl_id, "verl": _verl_id}


def _text(value: object) -> str | None:
    if type(value) is str:
        return value
    if type(value) is int or type(value) is float or type(value) is bool:
        try:
            return str(value)
        except ValueError:  # An integer of thousands of digits.
            return None
    return None


def _int(value: object) -> int | None:
    """Return *value* as an integer that a metric can hold exactly, else None. Strings are not numbers."""
    if type(value) is int:
        return value if _MIN_EXACT_INT <= value <= _MAX_EXACT_INT else None
    return _int(int(value)) if type(value) is float and value.is_integer() else None


def _seconds(value: object) -> float | None:
    if type(value) is float and math.isfinite(value):
        return value
    number = _int(value)
    return None if number is None else float(number)


_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no", ""})


def _bool(value: object) -> bool | None:
    if type(value) is bool:
        return value
    if type(value) is int and value in (0, 1):
        return value == 1
    if type(value) is str:
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def _sorted_tags(tag: object) -> dict[str, Any]:
    if type(tag) is TagFields:  # Its fields are declared in sorted order.
        try:
            present: dict[str, Any] = msgspec.to_builtins(tag, builtin_types=_AS_THEY_ARE)
        except (TypeError, ValueError):  # Something that is no plain value, as an extension type of the wire.
            values = ((name, getattr(tag, name)) for name in _FIELD_NAMES)
            return {name: value for name, value in values if type(value) in _PLAIN}
        return present
    if isinstance(tag, Mapping):
        return {name: tag[name] for name in sorted(tag, key=str)}
    return {}
