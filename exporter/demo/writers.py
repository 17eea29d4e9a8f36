"""Keys and tags as the frameworks write them: one writer per tag convention. Pure: no tensors, no clock.

A rollout generates one :class:`Prompt` at a time. A writer plans its writes ahead as :class:`Step` s over the duration
of the generation, and makes the tags when a step is due.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from dataplane.groups import DataPlaneGroupMeta

__all__ = ["FAILURE", "WRITERS", "NemoRL", "Prompt", "Recovery", "Step", "TagWriter", "Verl", "draw_prompt"]

FAILURE: Final = "failure"
"""Status of a group whose rollout has failed."""

_SMALLEST_GROUP, _LARGEST_GROUP = 4, 8
_IN_TWO_PUTS = 0.3
_FAILS = 0.04
_FAILING_IS_SEEN = 0.2


@dataclass(frozen=True)
class Prompt:
    """One prompt, whose completions are one group.

    Attributes:
        uid: Its identity.
        size: Completions to generate.
        weight_version: The weights that generation started with.
        train_step: The trainer's step for which it is generated, counted from 1.
        prompt_len: Tokens of the prompt.
        response_lens: Tokens of each completion.
    """

    uid: str
    size: int
    weight_version: int
    train_step: int
    prompt_len: int
    response_lens: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One write of a group.

    Attributes:
        at: When it is due, as a fraction of the generation's duration, 0..1.
        keys: The rows it writes.
        rows: Which of the prompt's completions the keys are; empty for a write of tags alone.
        status: :data:`FAILURE` when the rollout has failed; else the prompt's status, where the convention has one.
        evicts: Whether it removes the rows.
    """

    at: float
    keys: tuple[str, ...]
    rows: tuple[int, ...] = ()
    status: str = ""
    evicts: bool = False


class TagWriter(ABC):
    """The partition, keys and tags of one framework.

    Attributes:
        partition: Its partition.
        publishes: Whether its trainer publishes its weight version. False when the rows state it.
    """

    partition: str
    publishes = True

    @abstractmethod
    def plan(self, prompt: Prompt, rng: random.Random, *, fails: bool = False) -> list[Step]:
        """Return the writes of *prompt*'s group in the order in which they are due.

        Args:
            prompt: The prompt.
            rng: Source of randomness.
            fails: Whether its rollout fails.
        """

    @abstractmethod
    def tags(
        self, prompt: Prompt, step: Step, *, now: float, weight_version: int, row_bytes: int
    ) -> list[dict[str, Any]]:
        """Return one tag per key of *step*.

        Args:
            prompt: The prompt whose group is written.
            step: One of the writes that :meth:`plan` returned.
            now: Seconds since the epoch.
            weight_version: The weights at the time of the write.
            row_bytes: Tensor bytes of one row.
        """

    def samples(self, group: DataPlaneGroupMeta) -> list[str]:
        """Return the keys of *group* that hold tensors. The trainer removes its other keys when it takes the group."""
        return group.keys

    def padding(self, group: DataPlaneGroupMeta, count: int, rng: random.Random) -> dict[str, dict[str, Any]]:
        """Return keys and tags of up to *count* rows that fill up a batch whose first group is *group*."""
        return {}


def draw_prompt(rng: random.Random, weight_version: int, max_tokens: int, *, train_step: int = 1) -> Prompt:
    """Draw the next prompt: 4 to 8 completions of up to *max_tokens* tokens."""
    size = rng.randint(_SMALLEST_GROUP, _LARGEST_GROUP)
    return Prompt(
        uid=str(UUID(int=rng.getrandbits(128), version=4)),
        size=size,
        weight_version=weight_version,
        train_step=train_step,
        prompt_len=rng.randint(8, 32),
        response_lens=tuple(rng.randint(8, max_tokens) for _ in range(size)),
    )


class Recovery(TagWriter):
    """Writes every tag of the ``recovery`` convention. Some groups arrive in two puts and are incomplete in between."""

    partition = "train"

    def plan(self, prompt: Prompt, rng: random.Random, *, fails: bool = False) -> list[Step]:
        """See :meth:`TagWriter.plan`."""
        rows = tuple(range(prompt.size))
        if fails:
            return _failing(self._step(prompt, 1.0, rows))
        if rng.random() >= _IN_TWO_PUTS:
            return [self._step(prompt, 1.0, rows)]
        first = rng.randint(1, prompt.size - 1)
        return [self._step(prompt, 0.5, rows[:first]), self._step(prompt, 1.0, rows[first:])]

    def tags(
        self, prompt: Prompt, step: Step, *, now: float, weight_version: int, row_bytes: int
    ) -> list[dict[str, Any]]:
        """See :meth:`TagWriter.tags`."""
        tag = {
            "group_id": prompt.uid,
            "weight_version": prompt.weight_version,
            "created_at": now,
            "committed": step.status != FAILURE,
            "expected_num_keys": prompt.size,
            "size_bytes": row_bytes,
        }
        return [dict(tag) for _ in step.keys]

    @staticmethod
    def _step(prompt: Prompt, at: float, rows: Sequence[int]) -> Step:
        return Step(at, tuple(f"{prompt.uid}/{row}" for row in rows), tuple(rows))


class NemoRL(TagWriter):
    """NeMo RL's asynchronous rollouts: one put per prompt group, with only the weight version in the tags.

    A put that breaks off leaves rows without a tag.
    """

    partition = "rollout_data"

    def plan(self, prompt: Prompt, rng: random.Random, *, fails: bool = False) -> list[Step]:
        """See :meth:`TagWriter.plan`."""
        rows = tuple(range(prompt.size))
        step = Step(1.0, tuple(f"{prompt.uid}_g{row}" for row in rows), rows)
        return _failing(step) if fails else [step]

    def tags(
        self, prompt: Prompt, step: Step, *, now: float, weight_version: int, row_bytes: int
    ) -> list[dict[str, Any]]:
        """See :meth:`TagWriter.tags`."""
        tagged = 1 if step.status == FAILURE else len(step.keys)
        return [{"weight_version": prompt.weight_version} if row < tagged else {} for row in range(len(step.keys))]


class Verl(TagWriter):
    """verl: a prompt row whose status changes by writes of tags alone, and one put for each session's trajectory.

    The prompt's last status comes when all sessions have ended. A session that fails puts nothing.
    """

    partition = "train"
    publishes = False

    def plan(self, prompt: Prompt, rng: random.Random, *, fails: bool = False) -> list[Step]:
        """See :meth:`TagWriter.plan`."""
        prompt_row = (prompt.uid,)
        steps = [Step(0.0, prompt_row, status="pending"), Step(0.1, prompt_row, status="running")]
        failed = {rng.randrange(prompt.size)} if rng.random() < _FAILS else set()
        if fails:
            failed = set(range(prompt.size))
        for session, at in enumerate(sorted(rng.uniform(0.3, 1.0) for _ in range(prompt.size))):
            if session not in failed:
                steps.append(Step(at, (f"{prompt.uid}_{session}_0",), (session,), "running"))
        return [*steps, Step(1.0, prompt_row, status=FAILURE if failed else "finished")]

    def tags(
        self, prompt: Prompt, step: Step, *, now: float, weight_version: int, row_bytes: int
    ) -> list[dict[str, Any]]:
        """See :meth:`TagWriter.tags`."""
        if not step.rows:
            return [{"is_prompt": True, "status": step.status, "global_steps": prompt.train_step}]
        return [
            {
                "status": "success",
                "prompt_len": prompt.prompt_len,
                "response_len": prompt.response_lens[row],
                "seq_len": prompt.prompt_len + prompt.response_lens[row],
                "global_steps": prompt.train_step,
                "min_global_steps": prompt.weight_version,
                "max_global_steps": weight_version,
            }
            for row in step.rows
        ]

    def samples(self, group: DataPlaneGroupMeta) -> list[str]:
        """See :meth:`TagWriter.samples`."""
        return [key for key in group.keys if key != group.group_id]

    def padding(self, group: DataPlaneGroupMeta, count: int, rng: random.Random) -> dict[str, dict[str, Any]]:
        """See :meth:`TagWriter.padding`."""
        batch, version = f"pad{rng.getrandbits(128):032x}", group.weight_version
        tag = {"status": "success", "min_global_steps": version, "max_global_steps": version, "is_padding": True}
        return {f"{batch}_{row}_0": dict(tag) for row in range(count)}


def _failing(step: Step) -> list[Step]:
    """Return the writes of a rollout that fails: those of *step*, early and unfinished, and their removal."""
    return [
        replace(step, at=_FAILING_IS_SEEN, status=FAILURE),
        Step(1.0, step.keys, status=FAILURE, evicts=True),
    ]


WRITERS: Final[dict[str, TagWriter]] = {"recovery": Recovery(), "nemo-rl": NemoRL(), "verl": Verl()}
"""The writer of each convention."""
