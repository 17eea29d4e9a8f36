"""A client that is sent to another process attaches there and starts nothing. Frameworks send it into Ray actors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from dataplane.adapters.transfer_queue import TQDataPlaneClient
from dataplane.errors import DataPlaneUnavailable
from dataplane.interfaces import DataPlaneClient, TagRules
from dataplane.observability import MetricsDataPlaneClient
from tests.adapters.lookup import wait_until_no_controller
from tests.support.cluster import TQCluster

_CFG = {
    "enabled": True,
    "timeout_s": 20.0,
    "simple": {"storage_capacity": 5},
    "observability": {"enabled": True, "callback": lambda event: None},  # it does not pickle
}
_RULES = {"p": TagRules("recovery", 2)}


@pytest.fixture
def client(cluster: TQCluster, ray_connected: None) -> Iterator[TQDataPlaneClient]:
    """A client that would start TransferQueue if none ran."""
    made = TQDataPlaneClient(_CFG, rules=_RULES)
    yield made
    made.close()


def test_a_client_works_in_an_actor(client: DataPlaneClient, tq_client: DataPlaneClient) -> None:
    import ray
    import torch
    from tensordict import TensorDict

    class Trainer:
        def __init__(self, sent: DataPlaneClient) -> None:
            self.client = sent

        def step(self) -> tuple[Any, ...]:
            (group,) = self.client.list_metadata("p")
            batch = self.client.claim_meta("p", "train", ["tokens"], 2)
            data = self.client.get_data(batch)["tokens"].tolist()
            self.client.clear_samples(batch.sample_ids, "p")
            self.client.close()
            return group.state, group.expected_num_keys, sorted(batch.sample_ids), data

    fields = TensorDict({"tokens": torch.ones(2, 3)}, batch_size=[2])
    for sent in (client, MetricsDataPlaneClient(client)):
        tq_client.put_samples(["a", "b"], "p", fields, [{"group_id": "g", "committed": True}] * 2)
        actor = ray.remote(num_cpus=0)(Trainer).remote(sent)
        assert ray.get(actor.step.remote(), timeout=120) == ("ready", 2, ["a", "b"], [[1.0] * 3] * 2)
        assert tq_client.list_sample_ids("p") == []
        ray.kill(actor)
    assert client.ping() >= 0  # what the copies did ended nothing here


def test_where_nothing_runs_the_copy_starts_nothing(cluster: TQCluster, client: DataPlaneClient) -> None:
    import ray

    sent = pickle.dumps(client)
    assert len(sent) < 1000
    client.close()
    cluster.stop_tq()
    wait_until_no_controller()
    copy = pickle.loads(sent)
    with pytest.raises(DataPlaneUnavailable, match="attach again when TransferQueue runs"):
        copy.ping()
    copy.close()
    with pytest.raises(ValueError, match="TransferQueueController"):
        ray.get_actor("TransferQueueController", namespace="transfer_queue")
