"""Group metadata: from the rows of a partition (``{key: tag}``) to groups. Pure, no I/O.

A *row* is one sample: its key and its tag, the small dict that a producer wrote beside the tensors. A
*group* is what trains together, for example all completions of one prompt. :func:`group_rows` is the hot
loop of the exporter; it never raises on a malformed tag, it reports the field as unknown and counts the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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

# The largest integer that a float64, and so a metric sample, holds exactly.
_MAX_EXACT_INT = 2**53


@dataclass(frozen=True, slots=True)
class DataPlaneGroupMeta:
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
    tags: dict[str, Any] = field(default_factory=dict)
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

    weight_version: Any = UNSET
    group_id: Any = UNSET
    committed: Any = UNSET
    expected_num_keys: Any = UNSET
    num_keys: Any = UNSET
    created_at: Any = UNSET
    size_bytes: Any = UNSET
    is_prompt: Any = UNSET
    status: Any = UNSET
    global_steps: Any = UNSET
    min_global_steps: Any = UNSET
    max_global_steps: Any = UNSET
    seq_len: Any = UNSET


_FIELD_NAMES = frozenset(TagFields.__struct_fields__)
_NO_TAGS = TagFields()


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
        if tag is _NO_TAGS:
            continue
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


class _Group:
    """One group while its rows are read."""

    __slots__ = ("committed", "created_at", "expected", "failed", "first", "keys", "malformed", "size", "version")

    def __init__(self, first: object) -> None:
        self.first = first
        self.keys: list[str] = []
        self.version: int | None = None
        self.created_at: float | None = None
        self.committed = True
        self.expected: int | None = None
        self.size: int | None = None
        self.failed = False
        self.malformed = 0


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
    bad_rows: set[str] = set()
    fields: dict[str, TagFields] = {}
    for key, tag in rows.items():
        if key[:2] == "__":
            continue
        if type(tag) is TagFields:
            fields[key] = tag
        elif isinstance(tag, Mapping):
            fields[key] = _pick(tag)
        else:
            fields[key] = _NO_TAGS
            bad_rows.add(key)
    if convention == "auto":
        convention = detect_convention(fields.values())
    groups = _collect(rows, fields, bad_rows, convention)
    if convention == "verl":
        _let_prompts_decide(groups, fields)
    return [_finish(partition_id, group_id, group, group_size) for group_id, group in groups.items()]


def _pick(tag: Mapping[Any, object]) -> TagFields:
    known = {name: value for name, value in tag.items() if name in _FIELD_NAMES}
    return TagFields(**known) if known else _NO_TAGS


def _collect(
    rows: Mapping[str, object], fields: Mapping[str, TagFields], bad_rows: set[str], convention: Convention
) -> dict[str, _Group]:
    nemo = convention == "nemo-rl"
    verl = convention == "verl"
    untagged = nemo and all(tag == _NO_TAGS for tag in fields.values())
    groups: dict[str, _Group] = {}
    for key, tag in fields.items():
        malformed = key in bad_rows

        group_id = tag.group_id
        if type(group_id) is not str:
            if group_id is not UNSET and isinstance(group_id, int | float):
                group_id = str(group_id)
            else:
                malformed = malformed or group_id is not UNSET
                group_id = _group_id_in_key(key, convention, tag)
        group = groups.get(group_id)
        if group is None:
            group = groups[group_id] = _Group(rows[key])
        group.keys.append(key)

        version = tag.min_global_steps if verl else tag.weight_version
        if version is not UNSET and not (verl and version is None):  # verl writes None when it does not know
            parsed = version if type(version) is int and -_MAX_EXACT_INT < version < _MAX_EXACT_INT else _int(version)
            if parsed is None:
                malformed = True
            elif group.version is None or parsed < group.version:
                group.version = parsed

        if nemo:
            # A row with no version among rows that have one is a write in progress or one that failed.
            if version is UNSET and not untagged:
                group.committed = False
        elif verl:
            status = tag.status
            if status == "failure":
                group.failed = True
            elif status == "pending" or status == "running":
                group.committed = False
            elif status is not UNSET and type(status) is not str:
                malformed = True
        else:
            committed = tag.committed
            if committed is not True:
                said = _bool(committed)
                malformed = malformed or (said is None and committed is not UNSET)
                group.committed = group.committed and said is True

        expected = tag.expected_num_keys if tag.expected_num_keys is not UNSET else tag.num_keys
        if expected is not UNSET:
            number = _int(expected)
            if number is None or number < 0:
                malformed = True
            elif group.expected is None or number > group.expected:
                group.expected = number
        if tag.created_at is not UNSET:
            seconds = _seconds(tag.created_at)
            if seconds is None:
                malformed = True
            elif group.created_at is None or seconds < group.created_at:
                group.created_at = seconds
        if tag.size_bytes is not UNSET:
            size = _int(tag.size_bytes)
            if size is None or size < 0:
                malformed = True
            else:
                group.size = size + (group.size or 0)

        if malformed:
            group.malformed += 1
    return groups


def _let_prompts_decide(groups: Mapping[str, _Group], fields: Mapping[str, TagFields]) -> None:
    """Give each verl group the status of its prompt row, where it has one.

    The trainer that takes a group clears the prompt row first; what is left are finished trajectories.
    """
    for key, tag in fields.items():
        group = groups.get(key)
        if tag.is_prompt is True and group is not None:
            group.committed = tag.status == "finished"
            group.failed = tag.status == "failure"


def _finish(partition_id: str, group_id: str, group: _Group, group_size: int | None) -> DataPlaneGroupMeta:
    if len(group.keys) > 1:
        group.keys.sort()
    return DataPlaneGroupMeta(
        partition_id,
        group_id,
        group.keys,
        group.version,
        group.created_at,
        group.committed,
        group.expected if group.expected is not None else group_size,
        group.size,
        _sorted_tags(group.first),
        group.failed,
        group.malformed,
    )


def _group_id_in_key(key: str, convention: Convention, tag: TagFields) -> str:
    if convention == "nemo-rl":
        head, separator, index = key.rpartition("_g")
        return head if separator and _is_number(index) else key
    if convention == "verl" and tag.is_prompt is not True:
        parts = key.rsplit("_", 2)
        return parts[0] if len(parts) == 3 and _is_number(parts[1]) and _is_number(parts[2]) else key
    return key


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _int(value: object) -> int | None:
    """Return *value* as an integer that a metric can hold exactly, else None. Strings are not numbers."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and -_MAX_EXACT_INT <= value <= _MAX_EXACT_INT:
        return value
    return None


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
    if type(tag) is TagFields:
        present = ((name, getattr(tag, name)) for name in sorted(_FIELD_NAMES))
        return {name: value for name, value in present if value is not UNSET and type(value) is not msgspec.msgpack.Ext}
    if isinstance(tag, Mapping):
        return {name: tag[name] for name in sorted(tag, key=str)}
    return {}
