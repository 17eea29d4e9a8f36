"""A rollout actor: generates groups of completions and puts them into the data plane."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from dataplane.observability import MetricsDataPlaneClient
from exporter.demo.actor import Actor, TelemetrySetUp
from exporter.demo.instruments import ProcessTelemetry
from exporter.demo.protocol import Options
from exporter.demo.writers import FAILURE, Prompt, Step, draw_prompt

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = ["CONCURRENCY", "FIELDS", "MAX_TOKENS", "QUEUED_PER_ROLLOUT", "Rollout", "completions", "think_time_s"]

CONCURRENCY: Final = 4
"""Groups that one rollout actor generates at a time."""

QUEUED_PER_ROLLOUT: Final = 16
"""Ready groups per rollout actor at which no new group is begun: the limit of the queue."""

MAX_TOKENS: Final = 64
FIELDS: Final = ("input_ids", "logprobs", "reward")
_ROW_BYTES = MAX_TOKENS * 8 + MAX_TOKENS * 4 + 4
_LONG_TAIL = 0.08
_IDLE_S = 0.2


def think_time_s(rng: random.Random) -> float:
    """Return how long a generation takes, in seconds: 1.5 to 3, and for the long tail 6 to 10."""
    return rng.uniform(6.0, 10.0) if rng.random() < _LONG_TAIL else rng.uniform(1.5, 3.0)


def completions(prompt: Prompt, rows: tuple[int, ...], rng: random.Random) -> TensorDict:
    """Return the tensors of some of a prompt's completions, padded to :data:`MAX_TOKENS`."""
    import torch
    from tensordict import TensorDict

    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    size = (len(rows), MAX_TOKENS)
    lengths = torch.tensor([prompt.response_lens[row] for row in rows]).unsqueeze(1)
    written = torch.arange(MAX_TOKENS).unsqueeze(0) < lengths
    columns = {
        "input_ids": torch.randint(1, 32_000, size, generator=generator) * written,
        "logprobs": -torch.rand(size, generator=generator) * written,
        "reward": torch.rand((len(rows), 1), generator=generator),
    }
    return TensorDict(columns, batch_size=[len(rows)])


@dataclass(order=True)
class _Generation:
    """One group that is being generated; ordered by when its next write is due."""

    due: float
    prompt: Prompt = field(compare=False)
    started: float = field(compare=False)
    takes: float = field(compare=False)
    steps: list[Step] = field(compare=False)
    rng: random.Random = field(compare=False)
    span: trace.Span = field(compare=False)


class Rollout(Actor):
    """Generates :data:`CONCURRENCY` groups at a time, unless the queue is full.

    Each group keeps the weight version that it was started with.
    """

    def __init__(
        self,
        options: Options,
        index: int,
        *,
        telemetry: TelemetrySetUp = ProcessTelemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(options, f"rollout-{index}", telemetry)
        self._clock = clock
        self._weight_version = 0
        self._train_step = 1
        self._in_flight: list[_Generation] = []
        self._begun = 0
        self._put = 0
        self._failed = 0
        self._lost = 0
        self._tracer = trace.get_tracer("exporter.demo")

    def update_weights(self, version: int) -> None:
        """Use weights of *version* for groups started from now on."""
        self._weight_version = version

    def start_step(self, number: int) -> None:
        """Start groups for the trainer's step *number* from now on."""
        self._train_step = number

    def work(self, client: MetricsDataPlaneClient) -> None:
        """See :meth:`Actor.work`."""
        limit = QUEUED_PER_ROLLOUT * self.options.rollouts
        while len(self._in_flight) < CONCURRENCY and client.depth(self.writer.partition) < limit:
            self._begin()
        wait_s = self._in_flight[0].due - self._clock() if self._in_flight else _IDLE_S
        if wait_s > 0:
            self.stopping.wait(min(wait_s, _IDLE_S))
            return
        generation = self._in_flight[0]
        step = generation.steps[0]
        self._write(client, generation, step)
        heapq.heappop(self._in_flight)
        generation.steps.pop(0)
        if generation.steps:
            self._schedule(generation)
            return
        generation.span.end()
        if step.status == FAILURE:
            self._failed += 1
        else:
            self._put += 1

    def lost(self) -> None:
        """Drop the groups in flight: their rows were lost with the data plane."""
        self._lost += len(self._in_flight)
        for generation in self._in_flight:
            generation.span.end()
        self._in_flight.clear()

    def summary(self) -> str:
        """See :meth:`Actor.summary`."""
        return f"put {self._put} groups, failed at {self._failed}, gave up {self._lost}"

    def _begin(self) -> None:
        # Each group has its own generator, so that its content does not depend on the timing of other groups.
        rng = random.Random(f"{self.options.seed}/{self.name}/{self._begun}")  # noqa: S311 - a simulation
        self._begun += 1
        prompt = draw_prompt(rng, self._weight_version, MAX_TOKENS, train_step=self._train_step)
        span = self._tracer.start_span(
            "generate group", attributes={"group.id": prompt.uid, "weight_version": prompt.weight_version}
        )
        steps = self.writer.plan(prompt, rng, fails=not self.scenario.rollouts_succeed)
        self._schedule(_Generation(0.0, prompt, self._clock(), think_time_s(rng), steps, rng, span))

    def _schedule(self, generation: _Generation) -> None:
        generation.due = generation.started + generation.takes * generation.steps[0].at
        heapq.heappush(self._in_flight, generation)

    def _write(self, client: MetricsDataPlaneClient, generation: _Generation, step: Step) -> None:
        prompt, partition = generation.prompt, self.writer.partition
        if step.evicts:
            with trace.use_span(generation.span, end_on_exit=False):
                client.evict(list(step.keys), partition)
            return
        fields = completions(prompt, step.rows, generation.rng) if step.rows else None
        tags: list[dict[str, Any]] = self.writer.tags(
            prompt, step, now=time.time(), weight_version=self._weight_version, row_bytes=_ROW_BYTES
        )
        with trace.use_span(generation.span, end_on_exit=False):
            client.put_samples(list(step.keys), partition, fields=fields, tags=tags)
