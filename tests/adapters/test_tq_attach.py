"""Attaching creates nothing and closing stops nothing; only the process that started TransferQueue stops it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from dataplane import build_data_plane_client
from dataplane.adapters.transfer_queue import TQDataPlaneClient, TransferQueueMetadataReader
from dataplane.errors import DataPlaneNotReady, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.interfaces import DataPlaneClient
from tests.adapters.lookup import wait_until_no_actor, wait_until_no_controller
from tests.contract.rows import rows
from tests.support.cluster import TQCluster, frozen
from tests.support.waiting import wait_until

_CFG = {"enabled": True, "timeout_s": 5.0}


@pytest.fixture
def empty_ray(ray_alone: TQCluster, ray_connected: None) -> TQCluster:
    """Ray without TransferQueue, as this process knows it."""
    wait_until_no_controller()
    return ray_alone


def _attach(**cfg: Any) -> DataPlaneClient:
    return build_data_plane_client({**_CFG, **cfg}, bootstrap=False)


def test_clients_of_one_process_share_and_the_last_one_closes(cluster: TQCluster, ray_connected: None) -> None:
    threads = threading.active_count()
    first, second = _attach(), _attach()
    shared = threading.active_count()
    assert first._attachment.client is second._attachment.client  # type: ignore[attr-defined]
    first.close()
    first.close()
    assert threading.active_count() == shared
    assert second.ping() >= 0
    second.close()
    assert threading.active_count() == threads
    assert TransferQueueMetadataReader(cluster.controller.address).list_partitions() == []


def test_closing_ends_a_notice_that_the_controller_does_not_answer(cluster: TQCluster, ray_connected: None) -> None:
    client = _attach()
    inner = client._attachment.client  # type: ignore[attr-defined]
    loop = inner.storage_manager._notify_loop
    with frozen(cluster.controller.pid):
        put = asyncio.run_coroutine_threadsafe(inner.storage_manager.notify_data_update("p", [0], {}), inner._loop)
        wait_until(lambda: asyncio.all_tasks(loop), "the notice")
        tasks = asyncio.all_tasks(loop)
        loop.call_soon_threadsafe(time.sleep, 0.5)  # so that the end of the loop comes right after the cancellation
        client.close()
    assert put.cancelled()
    assert [task.cancelled() for task in tasks] == [True]


def test_a_client_that_the_user_made_stays_the_users(cluster: TQCluster, ray_connected: None) -> None:
    import transfer_queue as tq

    tq.init()
    users = tq.get_client()
    ours = _attach()
    assert ours.ping() >= 0
    ours.close()
    assert tq.get_client() is users
    assert tq.kv_list() == {}
    users.close()
    tq.interface._TQ_CLIENT = tq.interface._TQ_CONTROLLER = None


def test_a_bootstrapping_client_that_finds_a_controller_attaches(cluster: TQCluster, ray_connected: None) -> None:
    cluster.put("p", ["a"], [{"weight_version": 1}])
    client = build_data_plane_client({**_CFG, "num_storage_units": 1})
    assert client.list_partitions() == ["p"]
    client.close()
    assert cluster.list_rows() == {"p": {"a": {"weight_version": 1}}}
    reader = TransferQueueMetadataReader(cluster.controller.address)
    assert reader.list_partitions() == ["p"]
    reader.close()


def test_a_frozen_controller_cannot_be_attached_to_in_time(cluster: TQCluster, ray_connected: None) -> None:
    with frozen(cluster.controller.pid), pytest.raises(DataPlaneTimeout):
        _attach(timeout_s=0.3)
    client = _attach()
    assert client.ping() >= 0
    client.close()


def test_a_reader_without_ray_closes_only_itself(cluster: TQCluster, tq_client: DataPlaneClient) -> None:
    reader = TransferQueueMetadataReader(cluster.controller.address, None)
    assert reader.ping() >= 0
    reader.close()
    reader.close()
    assert tq_client.ping() >= 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "tcp://nowhere", "tcp://127.0.0.1:99999"])
def test_a_reader_of_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="tcp://"):
        TransferQueueMetadataReader(address)


def test_a_reader_where_nobody_listens() -> None:
    reader = TransferQueueMetadataReader("tcp://127.0.0.1:1", timeout_s=0.1)
    with pytest.raises(DataPlaneUnavailable):
        reader.ping()
    reader.close()


def test_there_is_nothing_to_attach_to(empty_ray: TQCluster) -> None:
    import ray

    for _ in range(2):
        with pytest.raises(DataPlaneUnavailable, match="TransferQueueController") as caught:
            _attach()
        assert caught.value.operation == "attach"
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor("TransferQueueController", namespace="transfer_queue")


def test_a_controller_that_is_being_started_is_not_ready(empty_ray: TQCluster) -> None:
    empty_ray.run(
        "options = dict(name='TransferQueueController', namespace='transfer_queue')\n"
        "tq.interface._TQ_CONTROLLER = tq.interface.TransferQueueController.options(**options).remote()\n"
        "ray.get(tq.interface._TQ_CONTROLLER.get_config.remote())"
    )
    with pytest.raises(DataPlaneNotReady, match="configuration"):
        _attach(timeout_s=0.5)


def test_who_starts_it_ends_it(empty_ray: TQCluster) -> None:
    import ray

    starter = build_data_plane_client({**_CFG, "num_storage_units": 1, "storage_capacity": 2})
    attached = _attach()
    starter.put_samples(["a", "b"], "p", rows(2))
    assert attached.list_partitions() == ["p"]
    handle = ray.get_actor("TransferQueueController", namespace="transfer_queue")
    conf = ray.get(handle.get_config.remote(), timeout=20)
    assert conf.controller.polling_mode is True
    simple = conf.backend.SimpleStorage
    assert (simple.total_storage_size, simple.num_data_storage_units) == (2, 1)

    attached.close()
    assert starter.ping() >= 0
    starter.close()
    with pytest.raises(DataPlaneUnavailable):
        _attach()


def test_a_start_that_fails_halfway_is_undone(empty_ray: TQCluster) -> None:
    import ray

    taken = ray.remote(num_cpus=0)(type("Squatter", (), {"pid": lambda self: os.getpid()}))
    squatter = taken.options(name="TransferQueueStorageUnit#1").remote()
    ray.get(squatter.pid.remote(), timeout=60)
    with pytest.raises(DataPlaneUnavailable, match="TransferQueueStorageUnit#1") as caught:
        build_data_plane_client({**_CFG, "num_storage_units": 2})
    assert caught.value.operation == "attach"
    wait_until_no_controller()
    wait_until_no_actor("TransferQueueStorageUnit#0")
    ray.kill(squatter)
    wait_until_no_actor("TransferQueueStorageUnit#1")

    client = build_data_plane_client({**_CFG, "num_storage_units": 2})
    client.put_samples(["a"], "p", rows(1))
    client.close()


def test_storage_that_outlived_its_controller_ends_with_the_next_attach(empty_ray: TQCluster) -> None:
    import ray

    starter = build_data_plane_client({**_CFG, "num_storage_units": 1})
    ray.kill(ray.get_actor("TransferQueueController", namespace="transfer_queue"))
    wait_until_no_controller()
    empty_ray.start_tq()

    attached = _attach()
    wait_until_no_actor("TransferQueueStorageUnit#0")
    starter.close()
    attached.put_samples(["a"], "p", rows(1))
    assert empty_ray.list_rows("p") == {"p": {"a": {}}}
    attached.close()


def test_a_starter_whose_client_was_closed_still_ends_what_it_started(empty_ray: TQCluster) -> None:
    starter = build_data_plane_client({**_CFG, "num_storage_units": 1})
    starter._attachment.client.close()  # type: ignore[attr-defined]
    starter.close()
    wait_until_no_controller()
    wait_until_no_actor("TransferQueueStorageUnit#0")


def test_closing_from_two_threads_gives_one_use_back(
    cluster: TQCluster, ray_connected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _attach(), _attach()
    both_are_closing = threading.Barrier(2)
    close_calls = TQDataPlaneClient._close_calls

    def close_together(self: TQDataPlaneClient) -> Any:
        both_are_closing.wait(timeout=10)
        return close_calls(self)

    monkeypatch.setattr(TQDataPlaneClient, "_close_calls", close_together)
    closers = [threading.Thread(target=first.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(timeout=30)
    monkeypatch.undo()
    assert second.ping() >= 0
    second.close()


def test_without_ray_an_attach_starts_none() -> None:
    source = """
from dataplane import DataPlaneUnavailable, build_data_plane_client
try:
    build_data_plane_client({"enabled": True}, bootstrap=False)
except DataPlaneUnavailable as error:
    import ray
    print(error, ray.is_initialized())
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, env=dict(os.environ), check=False
    )
    assert "ray.init" in done.stdout, done.stderr
    assert done.stdout.rstrip().endswith("False")


def test_without_transfer_queue_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transfer_queue", None)
    with pytest.raises(DataPlaneUnavailable, match="pip install"):
        TQDataPlaneClient({}, bootstrap=False)
