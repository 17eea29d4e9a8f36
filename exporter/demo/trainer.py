"""The trainer actor: trains on groups within its staleness window and raises the weight version."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from dataplane.groups import DataPlaneGroupMeta
from dataplane.observability import MetricsDataPlaneClient
from dataplane.recovery import select, stale
from exporter.demo.actor import Actor, TelemetrySetUp
from exporter.demo.instruments import ProcessTelemetry
from exporter.demo.protocol import Options
from exporter.demo.rollout import FIELDS
from exporter.demo.scenarios import HEALTHY_VERSIONS

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = ["GROUPS_PER_ROLLOUT", "MAX_LAG", "Trainer"]

MAX_LAG: Final = 2
"""Largest lag in versions with which a group is still trained on."""

GROUPS_PER_ROLLOUT: Final = 2
"""Groups of a training step per rollout actor: slightly fewer than a rollout generates during a step."""

_LOOK_AGAIN_S = 0.3
_PADDED_TO = 8


class Trainer(Actor):
    """Trains on one batch of groups at a time and publishes each new weight version."""

    def __init__(self, options: Options, rollouts: list[Any], *, telemetry: TelemetrySetUp = ProcessTelemetry) -> None:
        super().__init__(options, "trainer", telemetry)
        self._rng = random.Random(f"{options.seed}/trainer")  # noqa: S311 - a simulation
        self._rollouts = rollouts
        self._batch_groups = GROUPS_PER_ROLLOUT * options.rollouts
        self._weight_version = 0
        self._breaks_at: int | None = None
        self._published: MetricsDataPlaneClient | None = None
        self._trained = 0
        self._evicted = 0
        self._loss = 0.0
        self._tracer = trace.get_tracer("exporter.demo")

    def watched(self) -> None:
        """Start the scenario's incident :data:`HEALTHY_VERSIONS` from now: the exporter sees the data plane."""
        if self._breaks_at is None:
            self._breaks_at = self._weight_version + HEALTHY_VERSIONS

    def work(self, client: MetricsDataPlaneClient) -> None:
        """See :meth:`Actor.work`."""
        if self._published is not client:
            # A data plane that this client has just attached to may know no version, or an older one.
            self._publish(client)
            self._published = client
        broken = self._breaks_at is not None and self._weight_version >= self._breaks_at
        if broken and not self.scenario.trainer_takes:
            self.stopping.wait(_LOOK_AGAIN_S)
            return
        weights_arrive = self.scenario.weights_arrive or not broken
        partition = self.writer.partition
        max_lag = MAX_LAG if weights_arrive else self._weight_version
        groups = client.list_metadata(partition)
        evicted = stale(groups, self._weight_version, max_lag)
        if evicted:
            client.evict([key for group in evicted for key in group.keys], partition)
            self._evicted += len(evicted)
        batch = select(groups, self._weight_version, max_lag, self._batch_groups)
        if len(batch) < self._batch_groups:
            self.stopping.wait(_LOOK_AGAIN_S)
            return
        with self._tracer.start_as_current_span("train step", attributes={"weight_version": self._weight_version}):
            self._train(client, batch)
        self._weight_version += 1
        self._publish(client)
        for rollout in self._rollouts:
            rollout.start_step.remote(self._weight_version + 1)
            if weights_arrive:
                rollout.update_weights.remote(self._weight_version)

    def lost(self) -> None:
        """See :meth:`Actor.lost`."""
        self._published = None

    def summary(self) -> str:
        """See :meth:`Actor.summary`."""
        return f"trained {self._trained} groups up to version {self._weight_version}, evicted {self._evicted}"

    def _publish(self, client: MetricsDataPlaneClient) -> None:
        if self.writer.publishes:
            client.publish_weight_version(self._weight_version)

    def _train(self, client: MetricsDataPlaneClient, groups: list[DataPlaneGroupMeta]) -> None:
        partition = self.writer.partition
        keys = [key for group in groups for key in self.writer.samples(group)]
        markers = {key for group in groups for key in group.keys}.difference(keys)
        if markers:  # their removal says that the groups are taken
            client.pop(sorted(markers), partition)
        batch = client.get_samples(keys, partition, list(FIELDS))
        padding = self.writer.padding(groups[0], -len(keys) % _PADDED_TO, self._rng)
        if padding:
            client.put_samples(list(padding), partition, _repeat_first(batch, len(padding)), list(padding.values()))
        self._loss = -float(batch.get("reward").float().sum()) / len(keys)
        self.stopping.wait(self._rng.uniform(1.2, 1.8))
        client.pop([*keys, *padding], partition)
        self._trained += len(groups)
        self.logger.info("version %d: %d groups, loss %.3f", self._weight_version, len(groups), self._loss)


def _repeat_first(batch: TensorDict, count: int) -> TensorDict:
    """Return *count* copies of the first row of *batch*."""
    import torch
    from tensordict import TensorDict

    rows = {name: torch.stack([batch[name].unbind()[0]] * count) for name in FIELDS}
    return TensorDict(rows, batch_size=[count])
