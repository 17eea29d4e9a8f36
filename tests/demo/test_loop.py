"""Rollouts and trainer against a data plane in memory: groups are generated, trained on, popped and evicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION
from dataplane.observability import MetricsDataPlaneClient
from exporter.demo.protocol import CONVENTIONS, DemoConvention, Options
from exporter.demo.rollout import FIELDS, MAX_TOKENS, Rollout
from exporter.demo.trainer import MAX_LAG, Trainer

pytestmark = pytest.mark.full  # the rollouts make tensors


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Silent:
    """Replaces the process's telemetry, which would set the global providers."""

    url = "http://127.0.0.1:0/metrics"

    def __init__(self, *_: Any) -> None: ...

    def shutdown(self, timeout_s: float) -> None: ...


class Job:
    """One rollout and one trainer over one data plane in memory."""

    def __init__(self, folder: Path, convention: DemoConvention) -> None:
        options = Options(str(folder), str(folder), convention=convention, rollouts=1)
        self.clock = Clock()
        self.client = MetricsDataPlaneClient(NoOpDataPlaneClient())
        self.rollout = Rollout(options, 0, telemetry=Silent, clock=self.clock)  # type: ignore[arg-type]
        self.trainer = Trainer(options, [], telemetry=Silent)  # type: ignore[arg-type]
        for actor in (self.rollout, self.trainer):
            actor.stopping.set()  # so that nothing waits

    def generate(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.rollout.work(self.client)
            self.clock.now += 0.01

    @property
    def groups(self) -> list[Any]:
        return self.client.list_metadata(self.rollout.writer.partition)


@pytest.fixture(params=CONVENTIONS)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    return Job(tmp_path, request.param)


def test_a_rollout_puts_groups_with_tensors(job: Job) -> None:
    job.rollout.update_weights(3)
    job.generate(12.0)
    ready = [group for group in job.groups if group.state == "ready"]
    assert len(ready) >= 8
    assert {group.weight_version for group in ready} == {3}
    keys = job.rollout.writer.samples(ready[0])
    assert 4 <= len(keys) <= 8
    batch = job.client.get_samples(keys, job.rollout.writer.partition, list(FIELDS))
    rows = batch["input_ids"].unbind()
    assert [tuple(row.shape) for row in rows] == [(MAX_TOKENS,)] * len(keys)
    assert all(int(row.max()) > 0 for row in rows)


def test_a_training_step_pops_what_it_trained_and_publishes_the_next_version(job: Job) -> None:
    job.generate(12.0)
    before = {group.group_id for group in job.groups}
    job.trainer.work(job.client)
    left = {group.group_id for group in job.groups}
    assert len(before - left) == 2
    (published,) = job.client.list_metadata(RESERVED_PARTITION)
    assert (published.keys, published.weight_version) == ([PUBLISHED_VERSION_KEY], 1)


def test_what_is_too_stale_is_evicted(job: Job) -> None:
    job.generate(12.0)
    stale = {group.group_id for group in job.groups if group.state in ("ready", "failed")}
    job.trainer._weight_version = MAX_LAG + 1
    job.trainer.work(job.client)
    assert not stale & {group.group_id for group in job.groups}
    assert job.trainer._evicted >= len(stale)


def test_a_lost_connection_gives_up_what_is_in_flight(job: Job) -> None:
    job.generate(1.0)
    given_up = {generation.prompt.uid for generation in job.rollout._in_flight}
    job.rollout.lost()
    assert "gave up 4" in job.rollout.summary()
    listed = {group.group_id for group in job.groups}
    job.generate(12.0)
    assert not given_up & ({group.group_id for group in job.groups} - listed)
    assert "put 0" not in job.rollout.summary()
