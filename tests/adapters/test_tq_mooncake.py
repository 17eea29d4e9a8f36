"""What the client does about Mooncake, on a scripted store and a scripted master; tests/mooncake has the real ones."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from dataplane.adapters.transfer_queue import mooncake
from dataplane.adapters.transfer_queue.session import Attachment
from dataplane.adapters.transfer_queue.storage import KeyValueStorage, MooncakeStorage
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    DataPlaneWriteError,
)


class Store:
    """Mooncake's store: objects by name, and the code that each call gives."""

    def __init__(self, *names: str, code: int = 0) -> None:
        self.names = set(names)
        self.code = code
        self.closed = False
        self.mute = threading.Event()

    def batch_remove(self, names: list[str], force: bool) -> list[int]:
        if self.code:
            return [self.code] * len(names)
        codes = [0 if name in self.names else -704 for name in names]
        self.names -= set(names)
        return codes

    def batch_get_replica_desc(self, names: list[str]) -> dict[str, list[Any]]:
        buffer = SimpleNamespace(buffer_descriptor=SimpleNamespace(transport_endpoint="10.0.0.7:12345"))
        replica = SimpleNamespace(is_memory_replica=lambda: True, get_memory_descriptor=lambda: buffer)
        return {name: [replica] for name in names}

    def is_exist(self, name: str) -> int:
        if self.code == -901:
            self.mute.wait(10)
        return 0

    def close(self) -> None:
        self.closed = True


class StoreClient:
    """TransferQueue's client of it."""

    def __init__(self, store: Store) -> None:
        self._store: Store | None = store

    def clear(self, keys: list[str], custom_backend_meta: list[Any]) -> None:
        assert self._store is not None
        assert len(keys) == len(custom_backend_meta)
        self._store.batch_remove(keys, force=True)  # TransferQueue logs codes, no more

    def close(self) -> None:
        assert self._store is not None
        self._store.close()


class Batch(SimpleNamespace):
    """TransferQueue's description of rows."""

    is_ready = True

    def select_fields(self, fields: list[str]) -> Batch:
        return self


class Client:
    """TransferQueue's client and controller: rows by key with their fields."""

    def __init__(self, store: Store, rows: dict[str, set[str]]) -> None:
        self.rows = rows
        self.order = list(rows)
        self.marked: list[str] = []
        self.async_get_data: Any = None
        self.storage_manager = SimpleNamespace(
            storage_client=StoreClient(store),
            _generate_keys=lambda fields, rows: [f"{row}@{field}" for field in sorted(fields) for row in rows],
            _get_shape_type_custom_backend_meta_list=lambda batch: (
                [],
                [],
                [None] * (len(batch.field_names) * len(batch.global_indexes)),
            ),
        )

    async def async_kv_retrieve_meta(self, keys: list[str], partition_id: str, create: bool) -> Any:
        known = [key for key in keys if key in self.rows]
        shared = set.intersection(*(self.rows[key] for key in known)) if known else set()
        return Batch(
            size=len(known),
            field_names=sorted(shared),
            global_indexes=[self.order.index(key) for key in known],
            partition_ids=[partition_id] * len(known),
        )

    async def async_kv_retrieve_keys(self, global_indexes: list[int], partition_id: str) -> list[str]:
        return [self.order[index] for index in global_indexes]

    async def async_get_production_status(self, data_fields: list[str], partition_id: str) -> Any:
        produced = [[int(field in self.rows[key]) for field in data_fields] for key in self.rows]
        return torch.tensor([self.order.index(key) for key in self.rows]), torch.tensor(produced)

    async def _mark_clearing_in_controller(self, batch: Any) -> None:
        self.marked += [self.order[index] for index in batch.global_indexes]

    async def _clear_meta_in_controller(self, batch: Any) -> None:
        for index in batch.global_indexes:
            del self.rows[self.order[index]]


def _storage(client: Client, monkeypatch: pytest.MonkeyPatch, cls: type[KeyValueStorage] = MooncakeStorage) -> Any:
    async def fields(self: KeyValueStorage, partition_id: str) -> list[str]:
        return sorted(set().union(*client.rows.values()))

    monkeypatch.setattr(KeyValueStorage, "_fields", fields)
    attachment = Attachment(client, "controller", "tcp://127.0.0.1:1", {mooncake.MASTER: "tcp://10.0.0.1:50051"})
    return cls(ModuleType("transfer_queue"), attachment)


_ROWS = {"a": {"x", "y"}, "b": {"x"}, "c": {"x"}, "ghost": set[str](), "other": {"z"}}


def _rows() -> dict[str, set[str]]:
    return {key: set(fields) for key, fields in _ROWS.items()}


def test_rows_with_different_fields_go_in_one_clear_with_all_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3@y: the put of the ghost failed half-way.
    store = Store("0@x", "0@y", "1@x", "2@x", "3@y", "4@z")
    client = Client(store, _rows())
    asyncio.run(_storage(client, monkeypatch).clear(["a", "b", "c", "ghost", "unknown"], "p"))
    assert (list(client.rows), store.names) == (["other"], {"4@z"})


def test_what_only_this_client_knows_of_a_failed_put_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("0@x")
    client = Client(store, {"ghost": set()})
    storage = _storage(client, monkeypatch)

    async def fail(**arguments: Any) -> None:
        raise RuntimeError("batch_upsert_from failed for keys ['0@y'] with error codes [-200]")

    storage._tq.async_kv_batch_put = fail
    with pytest.raises(DataPlaneWriteError, match=r"no segment of the store has room left: samples \['ghost'\]"):
        asyncio.run(storage.put(["ghost"], "p", {"x": 1, "y": 2}, None))
    asyncio.run(storage.clear(["ghost"], "p"))
    assert (client.rows, store.names) == ({}, set())


def test_other_stores_know_nothing_of_rows_without_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[list[str]] = []
    client = Client(Store(), _rows())

    async def clear_data(batch: Any) -> None:
        cleared.append(batch.field_names)

    client.storage_manager.clear_data = clear_data
    asyncio.run(_storage(client, monkeypatch, KeyValueStorage).clear(["a", "b", "c", "ghost"], "p"))
    assert (cleared, list(client.rows)) == ([["x", "y"], ["x"]], ["other"])


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (-900, DataPlaneUnavailable, r"master is gone \(the Mooncake master is tcp://10.0.0.1:50051\)"),
        (-901, DataPlaneTimeout, "master did not answer"),
        (-800, DataPlaneUnavailable, r"\(segment 10.0.0.7:12345\)"),
        (-600, DataPlaneBadRequest, "invalid"),
    ],
)
def test_a_clear_that_the_store_refuses_fails_and_keeps_the_rows(
    code: int, kind: type[DataPlaneError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(Store("1@x", "2@x", code=code), _rows())
    with pytest.raises(kind, match=rf"{says}.*samples \['b', 'c'\], fields \['x'\]"):
        asyncio.run(_storage(client, monkeypatch).clear(["b", "c"], "p"))
    assert {"b", "c"} <= client.rows.keys()


def test_a_lost_value_is_named_by_its_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Store(), {f"k{index}": {"x"} for index in range(8)})
    names = [f"{index}@x" for index in range(8)]
    error = RuntimeError(
        f"batch_get_into failed for keys {names} with error codes {[-704] * 8} after retrying 3 times."
    )
    explained = asyncio.run(_storage(client, monkeypatch)._explanation(error, "p"))
    assert type(explained) is DataPlaneReadError
    assert "lost" in str(explained)
    assert "['k0', 'k1', 'k2', 'k3', 'k4'] and 3 more" in str(explained)


@pytest.mark.parametrize("call", ["get", "clear"])
def test_a_call_that_hangs_keeps_neither_the_loop_nor_the_caller(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hang, beats = threading.Event(), 0
    client = Client(Store(), _rows())

    async def block(batch: Any) -> None:
        hang.wait(10)

    client.storage_manager.clear_data = client.async_get_data = block
    storage = _storage(client, monkeypatch, KeyValueStorage)

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    async def run() -> None:
        beating = asyncio.ensure_future(beat())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(
                storage.clear(["b"], "p") if call == "clear" else storage.get(["b"], "p", ["x"]), 0.05
            )
        beating.cancel()

    asyncio.run(run())
    hang.set()
    assert beats > 3
    assert "b" in client.rows


def test_a_store_is_closed_unless_its_master_is_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mooncake, "_CLOSE_CHECK_S", 0.05)
    answering, mute = StoreClient(Store()), StoreClient(mute_store := Store(code=-901))
    store = answering._store
    mooncake.close_store(answering)
    assert store is not None
    assert store.closed
    mooncake.close_store(mute)
    mute_store.mute.set()
    # Kept, since its destructor would wait for the master.
    assert (mute._store, mute_store.closed, mute_store in mooncake._left_open) == (None, False, True)
    mooncake.close_store(mute)
    mooncake.close_store(None)
    mooncake.close_store(object())


@contextmanager
def _listener(serve: Callable[[socket.socket], object] | None = None) -> Iterator[int]:
    """Listen on a port; *serve* each connection, or none, as a stopped process."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if serve is not None:
                        connection.recv(4096)
                        serve(connection)

        if serve is not None:
            threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _check(master: int, metadata: object, timeout_s: float = 5.0) -> None:
    options = {"master_server_address": f"127.0.0.1:{master}", "metadata_server": metadata}
    mooncake.check_master(options, timeout_s)


def test_the_master_is_asked_before_a_store_is_set_up() -> None:
    not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with _listener() as master, _listener(lambda c: c.sendall(not_found)) as metadata, _listener() as stopped:
        _check(master, f"127.0.0.1:{metadata}")
        _check(master, f"http://127.0.0.1:{metadata}/metadata")
        _check(master, "P2PHANDSHAKE")
        with pytest.raises(DataPlaneTimeout, match=rf"metadata server at 127.0.0.1:{stopped} does not answer"):
            _check(master, f"127.0.0.1:{stopped}", 0.2)
    with pytest.raises(DataPlaneUnavailable, match=rf"the Mooncake master at tcp://127.0.0.1:{master} is gone"):
        _check(master, "P2PHANDSHAKE")
    with _listener() as master, pytest.raises(DataPlaneUnavailable, match=rf"127.0.0.1:{metadata} is gone"):
        _check(master, f"127.0.0.1:{metadata}")
    mooncake.check_master({"master_server_address": "etcd://10.0.0.1:2379", "metadata_server": "etcd://x"}, 0.2)


def test_what_a_process_chooses_for_itself_and_what_is_the_jobs() -> None:
    block = {"global_segment_size": 0, "device_name": "eth0", "protocol": "rdma", "master_server_address": "a:1"}
    own = {"global_segment_size": 0, "device_name": "eth0"}
    assert mooncake.own_options({"mooncake_cpu": block}) == own
    assert mooncake.own_options({"backend": "mooncake_cpu", "mooncake_cpu": block}) == own
    assert mooncake.own_options({"backend": "simple", "mooncake_cpu": block}) == mooncake.own_options({}) == {}


def test_a_master_that_was_started_for_this_process_ends_with_it() -> None:
    mooncake.end_master(None)
    mooncake.end_master({"SimpleStorage": {}})
    for kept in (lambda process: process, lambda process: {"master_process": process}):
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        mooncake.end_master({"MooncakeStore": kept(process)})
        assert process.poll() is not None
        mooncake.end_master({"MooncakeStore": kept(process)})
