"""Rollouts and trainer against a data plane in memory: groups are generated, trained on, popped and evicted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.groups import Listing
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION
from dataplane.observability import MetricsDataPlaneClient
from exporter.demo.protocol import Options
from exporter.demo.rollout import CONCURRENCY, FIELDS, MAX_TOKENS, QUEUED_PER_ROLLOUT, Rollout
from exporter.demo.scenarios import HEALTHY_VERSIONS
from exporter.demo.trainer import MAX_LAG, Trainer
from exporter.demo.writers import WRITERS

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


class Remote:
    """Calls a rollout at once, where the trainer expects Ray's handle of an actor."""

    def __init__(self, rollout: Rollout) -> None:
        self.start_step = SimpleNamespace(remote=rollout.start_step)
        self.update_weights = SimpleNamespace(remote=rollout.update_weights)


class Job:
    """One rollout and one trainer over one data plane in memory."""

    def __init__(self, folder: Path, convention: str, scenario: str = "healthy") -> None:
        options = Options(str(folder), str(folder), convention=convention, scenario=scenario, rollouts=1)
        self.clock = Clock()
        self.client = MetricsDataPlaneClient(NoOpDataPlaneClient())
        self.rollout = Rollout(options, 0, telemetry=Silent, clock=self.clock)  # type: ignore[arg-type]
        self.trainer = Trainer(options, [Remote(self.rollout)], telemetry=Silent)  # type: ignore[arg-type]
        for actor in (self.rollout, self.trainer):
            actor.stopping.set()  # so that nothing waits

    def generate(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.rollout.work(self.client)
            self.clock.now += 0.05

    def train(self, rounds: int) -> None:
        """Generate and train in turn."""
        for _ in range(rounds):
            self.generate(3.0)
            self.trainer.work(self.client)

    @property
    def version(self) -> int:
        """The trainer's weight version."""
        return self.trainer._weight_version

    @property
    def groups(self) -> Listing:
        listed = self.client.list_metadata(self.rollout.writer.partition)
        assert isinstance(listed, Listing)
        return listed


@pytest.fixture(params=WRITERS)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    return Job(tmp_path, request.param)


every_convention = pytest.mark.parametrize("convention", WRITERS)


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
    assert job.version == 1
    published = [(group.keys, group.weight_version) for group in job.client.list_metadata(RESERVED_PARTITION)]
    assert published == ([([PUBLISHED_VERSION_KEY], 1)] if job.trainer.writer.publishes else [])


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


def test_verl_trains_on_groups_whose_prompts_are_gone(tmp_path: Path) -> None:
    job = Job(tmp_path, "verl")
    job.generate(12.0)
    states_before = Counter(group.state for group in job.groups)
    rows_before = job.groups.rows
    during: list[Listing] = []

    def wait(timeout: float | None = None) -> bool:
        during.append(job.groups)
        return True

    job.trainer.stopping.wait = wait  # type: ignore[method-assign]
    job.trainer.work(job.client)
    (listing,) = during
    assert Counter(group.state for group in listing) == states_before + Counter(taken=2) - Counter(ready=2)
    taken = [key for group in listing if group.state == "taken" for key in group.keys]
    assert listing.rows == rows_before - 2 + -len(taken) % 8, "two prompt rows less, and padding to a multiple of eight"
    assert listing.rows > sum(len(group.keys) for group in listing), "there is padding"
    assert job.groups.rows == rows_before - 2 - len(taken), "trajectories and padding go when the step ends"
    assert job.groups.stated_version == job.version - 1, "no prompt is dispatched for the next step yet"
    job.generate(3.0)
    assert job.groups.stated_version == job.version == 1


@every_convention
def test_a_stalled_trainer_leaves_a_full_queue_and_takes_nothing(tmp_path: Path, convention: str) -> None:
    job = Job(tmp_path, convention, "stalled-trainer")
    job.train(5)
    assert job.version == 5, "it runs well until the exporter sees it"
    job.trainer.watched()
    job.train(12)
    job.trainer.watched()
    assert job.version == 5 + HEALTHY_VERSIONS
    ready = [group.group_id for group in job.groups if group.state == "ready"]
    assert QUEUED_PER_ROLLOUT <= len(ready) < QUEUED_PER_ROLLOUT + CONCURRENCY
    assert {group.state for group in job.groups} <= {"ready", "failed"}, "nothing more is generated"
    job.train(2)
    assert [group.group_id for group in job.groups if group.state == "ready"] == ready


@every_convention
def test_rollouts_that_all_fail_are_evicted_and_give_the_trainer_nothing(tmp_path: Path, convention: str) -> None:
    job = Job(tmp_path, convention, "failing-rollouts")
    seen: dict[str, set[str]] = {}
    for _ in range(40):
        job.generate(0.3)
        for group in job.groups:
            seen.setdefault(group.group_id, set()).add(group.state)
        job.trainer.work(job.client)
    assert len(seen) > 20
    assert set.union(*seen.values()) <= {"uncommitted", "failed"}
    assert len(job.groups) <= CONCURRENCY, "what failed is evicted"
    assert job.version == 0
    assert "put 0 groups, failed at" in job.rollout.summary()


@every_convention
def test_without_weight_sync_the_trainer_goes_on_with_an_old_version(tmp_path: Path, convention: str) -> None:
    job = Job(tmp_path, convention, "dead-weight-sync")
    job.trainer.watched()
    job.train(12)
    assert job.version > HEALTHY_VERSIONS + MAX_LAG + 3
    ready = [group for group in job.groups if group.state == "ready"]
    assert {group.weight_version for group in ready} == {HEALTHY_VERSIONS}
    job.generate(3.0)
    assert job.groups.stated_version == (job.version if convention == "verl" else None)
