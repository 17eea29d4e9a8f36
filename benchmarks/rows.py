"""The rows of a training run, in the three shapes of tags that frameworks write, and how they change between polls."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["SHAPES", "Change", "Queue"]

Tags = dict[str, Any]
Row = tuple[str, Tags]


def _recovery(uid: str, index: int, size: int, version: int, created_at: float) -> Row:
    return f"{uid}_{index}", {
        "weight_version": version,
        "group_id": uid,
        "committed": True,
        "expected_num_keys": size,
        "created_at": created_at,
        "size_bytes": 4096,
    }


def _verl(uid: str, index: int, size: int, version: int, created_at: float) -> Row:
    if index == 0:
        return uid, {"is_prompt": True, "status": "finished", "global_steps": version}
    return f"{uid}_{index}_0", {
        "status": "finished",
        "prompt_len": 512,
        "response_len": 1000 + index,
        "seq_len": 1512 + index,
        "global_steps": version,
        "min_global_steps": version - 1,
        "max_global_steps": version,
        "is_padding": False,
    }


def _nemo_rl(uid: str, index: int, size: int, version: int, created_at: float) -> Row:
    return f"{uid}_g{index}", {"weight_version": version}


SHAPES: dict[str, Callable[[str, int, int, int, float], Row]] = {
    "nemo-rl": _nemo_rl,  # one integer
    "recovery": _recovery,  # six fields, the same in each row of a group
    "verl": _verl,  # up to eight fields, different in each row
}


@dataclass(slots=True)
class _Group:
    uid: str
    version: int
    rows: int
    created_at: float


class Change(NamedTuple):
    """What differs from the last poll: keys that were cleared, and rows that were put, old keys with new tags first."""

    cleared: list[str]
    put: list[Row]


class Queue:
    """The groups of one partition, in the order in which a controller lists them.

    Args:
        keys: Its rows.
        group_size: Rows of a group; the last group may have fewer.
        shape: One of :data:`SHAPES`.
        seed: Makes the ids and chooses what changes.
    """

    def __init__(self, keys: int, group_size: int, shape: str, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._size = group_size
        self._shape = SHAPES[shape]
        self._number = 0
        sizes = [min(group_size, keys - start) for start in range(0, keys, group_size)]
        self._groups = [self._new(100 + 4 * index // len(sizes), rows) for index, rows in enumerate(sizes)]

    def __len__(self) -> int:
        return len(self._groups)

    def rows(self) -> Iterator[Row]:
        """Yield each key with its tags."""
        for group in self._groups:
            yield from self._rows(group)

    def change(self, share: float) -> Change:
        """Change *share* of the groups as a run does, and return what changed.

        A third of them is cleared, the oldest first, as many new ones are put, and the rest, anywhere in the queue,
        get new tags. With a share of 1 all of them get new tags.
        """
        count = max(round(share * len(self._groups)), 1) if share else 0
        moved = count // 3 if share < 1 else 0
        cleared, self._groups = self._groups[:moved], self._groups[moved:]
        touched = self._random.sample(self._groups, min(count - 2 * moved, len(self._groups)))
        for group in touched:
            group.version += 1
        added = [self._new(group.version + 4, group.rows) for group in cleared]
        self._groups += added
        put = [row for group in [*touched, *added] for row in self._rows(group)]
        return Change([key for group in cleared for key, _ in self._rows(group)], put)

    def _new(self, version: int, rows: int) -> _Group:
        self._number += 1
        uid = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        return _Group(uid, version, rows, 1.7e9 + self._number)

    def _rows(self, group: _Group) -> Iterator[Row]:
        for index in range(group.rows):
            yield self._shape(group.uid, index, self._size, group.version, group.created_at)
