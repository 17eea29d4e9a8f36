"""A frozen, killed or replaced part of a real TransferQueue, under a client that is in use."""

from __future__ import annotations

import threading

import pytest

from dataplane.adapters.transfer_queue import TransferQueueDataPlaneClient, TransferQueueMetadataReader
from dataplane.errors import DataPlaneTimeout, DataPlaneUnavailable
from dataplane.interfaces import DataPlaneClient
from tests.contract.rows import rows, values
from tests.support.cluster import TQCluster, frozen, kill


def test_a_frozen_controller_is_a_timeout_and_nothing_is_left_behind(
    cluster: TQCluster, tq_client: DataPlaneClient
) -> None:
    reader = TransferQueueMetadataReader(cluster.controller.address, timeout_s=0.1)
    tq_client.put_samples(["a"], "p", rows(1), [{"weight_version": 1}])
    reader.ping()
    threads = threading.active_count()

    with frozen(cluster.controller.pid):
        for _ in range(6):  # more than TransferQueue's pool has sockets
            with pytest.raises(DataPlaneTimeout):
                tq_client.ping(timeout_s=0.1)
        with pytest.raises(DataPlaneTimeout):
            reader.list_metadata("p")
        assert threading.active_count() == threads

    assert tq_client.ping() >= 0
    assert values(tq_client.get_samples(["a"], "p", ["tokens"])) == [[0, 0, 0]]
    assert [group.weight_version for group in reader.list_metadata("p")] == [1]
    reader.close()


def test_a_frozen_storage_unit_is_a_timeout_of_what_needs_it(cluster: TQCluster, ray_connected: None) -> None:
    client = TransferQueueDataPlaneClient({"timeout_s": 0.5}, bootstrap=False)
    client.put_samples(["a", "b"], "p", rows(2))
    with frozen(*(unit.pid for unit in cluster.storage_units)):
        with pytest.raises(DataPlaneTimeout, match="outcome unknown"):
            client.put_samples(["c", "d"], "p", rows(2))
        with pytest.raises(DataPlaneTimeout):
            client.get_samples(["a", "b"], "p", ["tokens"])
        assert len(client.list_metadata("p")) == 4
    client.put_samples(["c", "d"], "p", rows(2))
    assert values(client.get_samples(["c", "d"], "p", ["tokens"])) == [[0, 0, 0], [1, 1, 1]]
    client.close()


def test_what_is_dead_is_unavailable_and_a_new_controller_needs_a_new_client(
    cluster: TQCluster, ray_connected: None
) -> None:
    cfg = {"timeout_s": 0.5}
    client = TransferQueueDataPlaneClient(cfg, bootstrap=False)
    reader = TransferQueueMetadataReader(cluster.controller.address, timeout_s=0.5)
    client.put_samples(["a", "b"], "p", rows(2))
    unit = cluster.storage_units[0]

    kill(unit.pid)
    with pytest.raises(DataPlaneUnavailable, match=f"{unit.id}.* is gone.*outcome unknown"):
        client.put_samples(["c", "d"], "p", rows(2))
    with pytest.raises(DataPlaneUnavailable, match=unit.id):
        client.get_samples(["a", "b"], "p", ["tokens"])
    assert client.ping() >= 0

    kill(cluster.controller.pid)
    for call in (client.ping, reader.ping, lambda: client.claim_meta("p", "t", ["tokens"], 1, timeout_s=0.1)):
        with pytest.raises(DataPlaneUnavailable, match=r"controller at .* is gone"):
            call()
    with pytest.raises(DataPlaneUnavailable):
        TransferQueueDataPlaneClient(cfg, bootstrap=False)

    cluster.restart_tq()
    with pytest.raises(DataPlaneUnavailable):
        client.ping()
    successor = TransferQueueDataPlaneClient(cfg, bootstrap=False)
    successor.put_samples(["a"], "q", rows(1))
    with pytest.raises(DataPlaneUnavailable, match="another controller"):
        client.put_samples(["b"], "q", tags=[{}])
    client.close()
    reader.close()
    assert successor.list_partitions() == ["q"]
    successor.close()
