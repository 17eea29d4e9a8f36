"""Real faults of a real TransferQueue: each is translated by the intended row of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dataplane.adapters.transfer_queue import TQDataPlaneClient, session
from dataplane.errors import DataPlaneError, DataPlaneReadError, error_type
from dataplane.errors.translation import ATTACH, ROWS, Row, _row
from tests.adapters.lookup import wait_until_no_controller
from tests.contract.rows import rows
from tests.support.cluster import TQCluster, frozen

Provoke = Callable[[TQCluster, TQDataPlaneClient], Any]


def _row_of(phrase: str, type_name: str = "", operation: str | None = None) -> Row:
    (row,) = [
        row
        for row in ROWS
        if row.phrase == phrase
        and (not type_name or type_name in row.types)
        and (operation is None or row.operation == operation)
    ]
    return row


def _call(client: TQDataPlaneClient, operation: str, fn: Callable[[], Any]) -> Any:
    return client._call_tq(operation, fn, DataPlaneReadError, timeout_s=20.0)


def _produced(client: TQDataPlaneClient) -> Any:
    """Write a row and return TransferQueue's own description of it."""
    client.put_samples(["a"], "p", rows(1))
    return client._client().kv_retrieve_meta(keys=["a"], partition_id="p")


def _handshake(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    import ray

    handle = ray.get_actor("TransferQueueController", namespace="transfer_queue")
    config = ray.get(handle.get_config.remote(), timeout=20)
    client._tq.interface._TQ_CLIENT = None
    try:
        with frozen(cluster.controller.pid):
            return _call(client, ATTACH, lambda: session._attach_to(client._tq, handle, config, {}, 5.0))
    finally:
        client._tq.interface._TQ_CLIENT = client._attachment.client


def _impossible_lookup(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    import ray

    return _call(client, ATTACH, lambda: ray.get_actor("", namespace="transfer_queue"))


def _frozen_controller(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    with frozen(cluster.controller.pid):
        return _call(client, ATTACH, lambda: session.attach(client._tq, 0.5, {}))


def _closed_underneath(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    client._client().close()
    return client.ping()


def _forgotten(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    client._tq.interface._TQ_CLIENT = None
    try:
        return _call(client, "ping", client._tq.get_client)
    finally:
        client._tq.interface._TQ_CLIENT = client._attachment.client


def _lost_data(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    meta = _produced(client)
    _call(client, "clear_samples", lambda: client._client().storage_manager.clear_data(meta))
    return client.get_samples(["a"], "p", ["tokens"])


def _storage_refuses_a_read(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    manager = client._client().storage_manager
    unit = next(iter(manager.storage_unit_infos))
    return _call(
        client,
        "get_samples",
        lambda: manager._get_from_single_storage_unit([["no", "index"]], ["tokens"], target_storage_unit=unit),
    )


def _capacity(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    from tests.conftest import SHARED_CAPACITY

    count = SHARED_CAPACITY + 2
    return client.put_samples([f"k{i}" for i in range(count)], "p", rows(count))


def _clear(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    return _call(client, "clear_samples", lambda: client._client().async_clear_samples(metadata=None))


def _not_produced(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    client.put_samples(["a"], "p", tags=[{}])
    return client.get_samples(["a"], "p", ["tokens"])


def _undecodable(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    message = client._tq.utils.zmq_utils.ZMQMessage
    return _call(client, "ping", lambda: message.deserialize([b"\xc1 no message"]))


def _unknown_key(cluster: TQCluster, client: TQDataPlaneClient) -> Any:
    return client.get_samples(["nobody"], "p", ["tokens"])


_REAL: dict[str, tuple[Row, Provoke]] = {
    "handshake with a frozen controller": (_row_of("Handshake with controller"), _handshake),
    "actor that is frozen": (_row_of("", "ray.exceptions.GetTimeoutError"), _frozen_controller),
    "client closed by someone else": (_row_of("Event loop is closed"), _closed_underneath),
    "client forgotten by the module": (_row_of("Please initialize the TransferQueue first"), _forgotten),
    "data that storage lost": (
        _row_of("", "transfer_queue.storage.simple_storage.StorageKeyNotFoundError"),
        _lost_data,
    ),
    "read that storage refuses": (_row_of("Error getting data from storage unit"), _storage_refuses_a_read),
    "storage that is full": (_row_of("Error in put to storage unit"), _capacity),
    "clear that fails": (_row_of("Error in clear"), _clear),
    "row not produced": (_row_of("Some fields are not ready in all the requested keys"), _not_produced),
    "reply that is no message": (
        _row_of("", "transfer_queue.utils.zmq_utils.ZMQMessageDecodeError"),
        _undecodable,
    ),
    "look-up that Ray refuses": (_row_of("", "builtins.ValueError", ATTACH), _impossible_lookup),
    "unknown key": (_row_of("", "builtins.ValueError", ""), _unknown_key),
}

_NOT_PROVOKED = {
    "has not been initialized": "the adapter never lets TransferQueue attach by itself",
    "[RPC unavailable]": "Yuanrong's; its package does not go together with Mooncake's in one environment",
    "Storage capacity exceeded": "always inside 'Error in put to storage unit', in case that wrapper goes",
}


_REPLACED = (
    _row_of("", "ray.exceptions.RayActorError"),
    _row_of("Failed to look up actor"),
    _row_of("GET_META failed: TimeoutError"),
)


def _check(caught: DataPlaneError, row: Row) -> None:
    assert caught.__cause__ is not None
    assert _row(caught.__cause__, caught.operation or "") is row
    assert error_type(caught) == (row.error or DataPlaneReadError).__name__


@pytest.mark.parametrize("name", _REAL)
def test_a_real_fault_has_its_row(name: str, cluster: TQCluster, tq_client: TQDataPlaneClient) -> None:
    row, provoke = _REAL[name]
    with pytest.raises(DataPlaneError) as caught:
        provoke(cluster, tq_client)
    _check(caught.value, row)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("dataplane.")]


def test_a_dead_actor_a_missing_one_and_one_that_is_not_polling(
    cluster: TQCluster, tq_client: TQDataPlaneClient, caplog: pytest.LogCaptureFixture
) -> None:
    import ray

    dead, missing, waiting = _REPLACED
    handle = ray.get_actor("TransferQueueController", namespace="transfer_queue")
    cluster.stop_tq()
    with pytest.raises(DataPlaneError) as caught:
        _call(tq_client, ATTACH, lambda: ray.get(handle.get_config.remote(), timeout=10))
    _check(caught.value, dead)
    wait_until_no_controller()
    with pytest.raises(DataPlaneError) as caught:
        _call(tq_client, ATTACH, lambda: session.attach(tq_client._tq, 5.0, {}))
    _check(caught.value, missing)

    cluster.start_tq(polling_mode=False)
    client = TQDataPlaneClient({"timeout_s": 20.0}, bootstrap=False)
    client.put_samples(["a", "b"], "p", rows(2))
    assert _warnings(caplog) == []
    claims = [client.claim_meta("p", "train", ["tokens"], 1, blocking=False).size for _ in range(3)]
    assert claims == [1, 1, 0]
    assert ["polling_mode" in message for message in _warnings(caplog)] == [True]
    request = {"data_fields": ["tokens"], "batch_size": 1, "partition_id": "p", "task_name": "train"}
    with pytest.raises(DataPlaneError) as caught:
        _call(client, "claim_meta", lambda: client._client().async_get_meta(**request))
    _check(caught.value, waiting)
    client.close()


def test_every_row_is_provoked_or_says_why_not() -> None:
    provoked = [*_REPLACED, *(row for row, _ in _REAL.values())]
    assert [row.phrase for row in ROWS if row not in provoked and row.phrase not in _NOT_PROVOKED] == []
