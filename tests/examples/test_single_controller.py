"""The example's controller on a data plane in memory whose calls fail before or after they had their effect."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from dataplane import DataPlaneBadRequest, DataPlaneClient, DataPlaneGroupMeta, DataPlaneTimeout, DataPlaneUnavailable
from dataplane import recovery as recovery_module
from dataplane.adapters.noop import NoOpDataPlaneClient
from examples.single_controller.controller import PARTITION, Controller

CALLS = ("ping", "list_metadata", "put_samples", "get_samples", "clear_samples")
CAPACITY = 12


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(recovery_module, "LONGEST_PAUSE_S", 0.0)


class World:
    """A data plane that may be replaced by an empty one, and clients of it whose calls fail at random."""

    def __init__(self, seed: int, *, fails: float, loses: float) -> None:
        self.rng = random.Random(seed)
        self.fails, self.loses = fails, loses
        self.store = NoOpDataPlaneClient()
        self.clients: list[Any] = []

    def connect(self) -> DataPlaneClient:
        self.clients.append(Faulty(self))
        client: DataPlaneClient = self.clients[-1]
        return client

    def fault(self, *, after: bool) -> None:
        if self.rng.random() < self.fails:
            raise self.rng.choice([DataPlaneTimeout, DataPlaneUnavailable])("after" if after else "before")
        if self.rng.random() < self.loses:
            self.store = NoOpDataPlaneClient()
            raise DataPlaneUnavailable("the data plane was replaced")


class Faulty(NoOpDataPlaneClient):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.closed, self.store = world, 0, world.store

    def __getattribute__(self, name: str) -> Any:
        if name not in CALLS:
            return super().__getattribute__(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.closed or self.store is not self.world.store:
                raise DataPlaneUnavailable("its data plane is gone, or it is closed")
            self.world.fault(after=False)
            result = getattr(self.store, name)(*args, **kwargs)
            self.world.fault(after=True)
            return result

        return call

    def close(self) -> None:
        self.closed += 1


def generate(group_id: str, version: int) -> TensorDict:
    number = int(group_id.rpartition("-")[2])
    if number % 10 == 9:
        raise RuntimeError("a rollout that fails")
    return TensorDict({"tokens": torch.full((2, 2), number)}, batch_size=[2])


class Job(Controller):
    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(world.connect, generate, self.learn, capacity=CAPACITY, **options)
        self.world = world
        self.trained: list[DataPlaneGroupMeta] = []
        self.resumed = 0

    def learn(self, groups: list[DataPlaneGroupMeta], rows: list[TensorDict]) -> None:
        self.trained += groups
        for group, data in zip(groups, rows, strict=True):
            assert {int(row[0]) for row in data["tokens"].unbind()} == {int(group.group_id.rpartition("-")[2])}
            assert group.weight_version is not None
            assert 0 <= self.version - group.weight_version <= 2

    def _attach(self) -> DataPlaneClient:
        client = super()._attach()
        self.resumed += 1
        self.compare()
        return client

    def compare(self) -> None:
        depth = self.world.store.depth(PARTITION)
        assert self.occupancy.in_use == depth + len(self._rollouts) <= CAPACITY


@pytest.mark.parametrize("seed", range(5))
def test_whatever_fails_no_group_is_trained_twice_and_no_permit_leaks(seed: int) -> None:
    world = World(seed, fails=0.04, loses=0.004)
    job = Job(world)
    job.run(40)
    assert job.version == 40
    assert job.resumed > 5
    twice = [name for name, times in Counter(group.group_id for group in job.trained).items() if times > 1]
    assert not twice
    assert len(job.trained) == 4 * 40
    assert all(client.closed for client in world.clients)


def test_without_faults_it_attaches_once_and_evicts_what_is_too_stale() -> None:
    world = World(0, fails=0.0, loses=0.0)
    job = Job(world)
    job.run(20)
    assert job.resumed == 1
    job.compare()
    assert len(job.trained) == 80
    assert job._dispatched > 80 + CAPACITY, "more were evicted than rollouts failed"


def test_what_an_earlier_run_left_is_used_or_removed() -> None:
    world = World(0, fails=0.0, loses=0.0)
    tag = {"group_id": "left-0", "weight_version": 0, "committed": True}
    world.store.put_samples(["l0", "l1"], PARTITION, torch_rows(0, 2), [tag] * 2)
    world.store.put_samples(["half"], PARTITION, None, [{**tag, "group_id": "half", "committed": False}])
    world.store.put_samples(["ahead"], PARTITION, None, [{**tag, "group_id": "ahead", "weight_version": 9}])
    world.store.put_samples(["ghost"], PARTITION, None, [{**tag, "group_id": "ghost-1"}])
    world.store.register_partition(PARTITION, ["tokens"], 1, [])
    job = Job(world)
    job.run(3)
    assert "left-0" in {group.group_id for group in job.trained}
    left = {group.group_id for group in world.store.list_metadata(PARTITION)}
    assert not left & {"half", "ahead", "ghost-1", "left-0"}
    job.compare()


def torch_rows(number: int, count: int) -> TensorDict:
    return TensorDict({"tokens": torch.full((count, 2), number)}, batch_size=[count])


@pytest.mark.parametrize("error", [DataPlaneBadRequest("wrong"), ValueError("impl must be one of")])
def test_a_wrong_configuration_ends_it_at_once(error: Exception) -> None:
    def connect() -> DataPlaneClient:
        raise error

    with pytest.raises(type(error)) as caught:
        Controller(connect, generate, print).run(1)
    assert caught.value is error


def test_a_data_plane_that_stays_away_ends_it() -> None:
    def connect() -> DataPlaneClient:
        raise DataPlaneUnavailable("no controller")

    with pytest.raises(DataPlaneUnavailable, match="no controller"):
        Controller(connect, generate, print, wait_s=0.05).run(1)


def test_a_batch_fits_into_the_capacity() -> None:
    with pytest.raises(ValueError, match="capacity"):
        Controller(NoOpDataPlaneClient, generate, print, capacity=3)
