"""The trainer actor: trains on groups within its staleness window and raises the weight version."""

from __future__ import annotations

import random
from typing import Any, Final

from opentelemetry import trace

from dataplane.groups import DataPlaneGroupMeta
from dataplane.observability import MetricsDataPlaneClient
from exporter.demo.actor import Actor, TelemetrySetUp
from exporter.demo.instruments import ProcessTelemetry
from exporter.demo.protocol import Options
from exporter.demo.rollout import FIELDS
from exporter.demo.window import choose

__all__ = ["GROUPS_PER_ROLLOUT", "MAX_LAG", "Trainer"]

MAX_LAG: Final = 2
"""Largest lag in versions with which a group is still trained on."""

GROUPS_PER_ROLLOUT: Final = 2
"""Groups of a training step per rollout actor: slightly fewer than a rollout generates during a step."""

_LOOK_AGAIN_S = 0.3


class Trainer(Actor):
    """Trains on one batch of groups at a time and publishes each new weight version."""

    def __init__(self, options: Options, rollouts: list[Any], *, telemetry: TelemetrySetUp = ProcessTelemetry) -> None:
        super().__init__(options, "trainer", telemetry)
        self._rng = random.Random(f"{options.seed}/trainer")  # noqa: S311 - a simulation
        self._rollouts = rollouts
        self._batch_groups = GROUPS_PER_ROLLOUT * options.rollouts
        self._weight_version = 0
        self._published: MetricsDataPlaneClient | None = None
        self._trained = 0
        self._evicted = 0
        self._loss = 0.0
        self._tracer = trace.get_tracer("exporter.demo")

    def work(self, client: MetricsDataPlaneClient) -> None:
        """See :meth:`Actor.work`."""
        if self._published is not client:
            # A data plane that this client has just attached to may know no version, or an older one.
            client.publish_weight_version(self._weight_version)
            self._published = client
        partition = self.writer.partition
        choice = choose(
            client.list_metadata(partition),
            weight_version=self._weight_version,
            max_lag=MAX_LAG,
            batch_groups=self._batch_groups,
        )
        if choice.evict:
            client.evict([key for group in choice.evict for key in group.keys], partition)
            self._evicted += len(choice.evict)
        if not choice.train:
            self.stopping.wait(_LOOK_AGAIN_S)
            return
        with self._tracer.start_as_current_span("train step", attributes={"weight_version": self._weight_version}):
            self._train(client, choice.train)
        self._weight_version += 1
        client.publish_weight_version(self._weight_version)
        for rollout in self._rollouts:
            rollout.update_weights.remote(self._weight_version)

    def lost(self) -> None:
        """See :meth:`Actor.lost`."""
        self._published = None

    def summary(self) -> str:
        """See :meth:`Actor.summary`."""
        return f"trained {self._trained} groups up to version {self._weight_version}, evicted {self._evicted}"

    def _train(self, client: MetricsDataPlaneClient, groups: list[DataPlaneGroupMeta]) -> None:
        keys = [key for group in groups for key in self.writer.samples(group)]
        batch = client.get_samples(keys, self.writer.partition, list(FIELDS))
        self._loss = -float(batch.get("reward").float().sum()) / len(keys)
        self.stopping.wait(self._rng.uniform(1.2, 1.8))
        client.pop([key for group in groups for key in group.keys], self.writer.partition)
        self._trained += len(groups)
        self.logger.info("version %d: %d groups, loss %.3f", self._weight_version, len(groups), self._loss)
