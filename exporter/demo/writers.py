"""Keys and tags as the frameworks write them: one writer per tag convention. Pure: no tensors, no clock.

A rollout generates one :class:`Prompt` at a time. A writer plans its writes ahead as :class:`Step` s over the duration
of the generation, and makes the tags when a step is due.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from dataplane.groups import DataPlaneGroupMeta
from exporter.demo.protocol import DemoConvention

__all__ = ["WRITERS", "NemoRL", "Prompt", "Recovery", "Step", "TagWriter", "Verl", "draw_prompt"]

_SMALLEST_GROUP, _LARGEST_GROUP = 4, 8
_IN_TWO_PUTS = 0.3
_FAILS = 0.04


@dataclass(frozen=True)
class Prompt:
    """One prompt, whose completions are one group.

    Attributes:
        uid: Its identity.
        size: Completions to generate.
        weight_version: The weights that generation started with.
        prompt_len: Tokens of the prompt.
        response_lens: Tokens of each completion.
    """

    uid: str
    size: int
    weight_version: int
    prompt_len: int
    response_lens: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One write of a group.

    Attributes:
        at: When it is due, as a fraction of the generation's duration, 0..1.
        keys: The rows it writes.
        rows: Which of the prompt's completions the keys are; empty for a write of tags alone.
        status: The prompt's status from then on, where the convention has one.
    """

    at: float
    keys: tuple[str, ...]
    rows: tuple[int, ...] = ()
    status: str = ""


class TagWriter(Protocol):
    """The partition, keys and tags of one framework."""

    partition: str

    def plan(self, prompt: Prompt, rng: random.Random) -> list[Step]:
        """Return the writes of *prompt*'s group in the order in which they are due."""
        ...

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
        ...

    def samples(self, group: DataPlaneGroupMeta) -> list[str]:
        """Return the keys of *group* that hold tensors."""
        ...


def draw_prompt(rng: random.Random, weight_version: int, max_tokens: int) -> Prompt:
    """Draw the next prompt: 4 to 8 completions of up to *max_tokens* tokens."""
    size = rng.randint(_SMALLEST_GROUP, _LARGEST_GROUP)
    return Prompt(
        uid=str(UUID(int=rng.getrandbits(128), version=4)),
        size=size,
        weight_version=weight_version,
        prompt_len=rng.randint(8, 32),
        response_lens=tuple(rng.randint(8, max_tokens) for _ in range(size)),
    )


class Recovery:
    """Writes every tag of the ``recovery`` convention. Some groups arrive in two puts and are incomplete in between."""

    partition = "train"

    def plan(self, prompt: Prompt, rng: random.Random) -> list[Step]:
        """See :meth:`TagWriter.plan`."""
        rows = tuple(range(prompt.size))
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
            "committed": True,
            "expected_num_keys": prompt.size,
            "size_bytes": row_bytes,
        }
        return [dict(tag) for _ in step.keys]

    def samples(self, group: DataPlaneGroupMeta) -> list[str]:
        """See :meth:`TagWriter.samples`."""
        return group.keys

    @staticmethod
    def _step(prompt: Prompt, at: float, rows: Sequence[int]) -> Step:
        return Step(at, tuple(f"{prompt.uid}/{row}" for row in rows), tuple(rows))


class NemoRL:
    """NeMo RL's asynchronous rollouts: one put per prompt group, with only the weight version in the tags."""

    partition = "rollout_data"

    def plan(self, prompt: Prompt, rng: random.Random) -> list[Step]:
        """See :meth:`TagWriter.plan`."""
        rows = tuple(range(prompt.size))
        return [Step(1.0, tuple(f"{prompt.uid}_g{row}" for row in rows), rows)]

    def tags(
        self, prompt: Prompt, step: Step, *, now: float, weight_version: int, row_bytes: int
    ) -> list[dict[str, Any]]:
        """See :meth:`TagWriter.tags`."""
        return [{"weight_version": prompt.weight_version} for _ in step.keys]

    def samples(self, group: DataPlaneGroupMeta) -> list[str]:
        """See :meth:`TagWriter.samples`."""
        return group.keys


class Verl:
    """verl: a prompt row whose status changes by writes of tags alone, and one put for each session's trajectory."""

    partition = "train"

    def plan(self, prompt: Prompt, rng: random.Random) -> list[Step]:
        """See :meth:`TagWriter.plan`."""
        prompt_row = (prompt.uid,)
        steps = [Step(0.0, prompt_row, status="pending"), Step(0.1, prompt_row, status="running")]
        fails_after = rng.randrange(prompt.size) if rng.random() < _FAILS else None
        for session, at in enumerate(sorted(rng.uniform(0.3, 1.0) for _ in range(prompt.size))):
            if session == fails_after:
                return [*steps, Step(at, prompt_row, status="failure")]
            steps.append(Step(at, (f"{prompt.uid}_{session}_0",), (session,), "running"))
        return [*steps, Step(1.0, prompt_row, status="finished")]

    def tags(
        self, prompt: Prompt, step: Step, *, now: float, weight_version: int, row_bytes: int
    ) -> list[dict[str, Any]]:
        """See :meth:`TagWriter.tags`."""
        if not step.rows:
            return [{"is_prompt": True, "status": step.status, "global_steps": prompt.weight_version}]
        return [
            {
                "status": "success",
                "prompt_len": prompt.prompt_len,
                "response_len": prompt.response_lens[row],
                "seq_len": prompt.prompt_len + prompt.response_lens[row],
                "global_steps": prompt.weight_version,
                "min_global_steps": prompt.weight_version,
                "max_global_steps": weight_version,
                "is_padding": False,
            }
            for row in step.rows
        ]

    def samples(self, group: DataPlaneGroupMeta) -> list[str]:
        """See :meth:`TagWriter.samples`."""
        return [key for key in group.keys if key != group.group_id]


WRITERS: Final[dict[DemoConvention, TagWriter]] = {"recovery": Recovery(), "nemo-rl": NemoRL(), "verl": Verl()}
"""The writer of each convention."""
