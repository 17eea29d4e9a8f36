"""A small ``transfer_queue`` package: functions of its interface and its client's classes, in memory.

Its modules are made anew for each test, so that a test may replace what it likes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

_NAMES = ("transfer_queue", "transfer_queue.interface", "transfer_queue.client")

_CLIENT = """
class BatchMeta:
    def __init__(self, indexes, tags):
        self.global_indexes, self.custom_meta, self.partition_ids = indexes, tags, ["train"] * len(indexes)
        self.size = len(indexes)

class AsyncTransferQueueClient:
    def __init__(self):
        self.rows = {}

    async def async_kv_retrieve_meta(self, keys, partition_id, create=False):
        keys = [keys] if isinstance(keys, str) else keys
        known = [key for key in keys if key in self.rows]
        return BatchMeta(list(range(len(known))), [dict(self.rows[key]) for key in known])

    async def async_kv_retrieve_keys(self, global_indexes, partition_id):
        return list(self.rows)[: len(global_indexes)]

    async def async_get_meta(self, data_fields, batch_size, partition_id, mode="fetch", task_name=None):
        return BatchMeta(list(range(batch_size)), list(self.rows.values())[:batch_size])

    async def async_get_data(self, metadata):
        return {"x": metadata.size}

    async def async_clear_partition(self, partition_id):
        self.rows.clear()

class TransferQueueClient(AsyncTransferQueueClient):
    def kv_retrieve_meta(self, keys, partition_id, create=False):
        return run(self.async_kv_retrieve_meta(keys=keys, partition_id=partition_id, create=create))

    def kv_retrieve_keys(self, global_indexes, partition_id):
        return run(self.async_kv_retrieve_keys(global_indexes=global_indexes, partition_id=partition_id))

    def get_meta(self, data_fields, batch_size, partition_id, mode="fetch", task_name=None):
        return run(self.async_get_meta(data_fields, batch_size, partition_id, mode, task_name))

    def get_data(self, metadata):
        return run(self.async_get_data(metadata))

    def clear_partition(self, partition_id):
        return run(self.async_clear_partition(partition_id))

def run(coroutine):
    import asyncio
    return asyncio.run(coroutine)
"""

_INTERFACE = """
from transfer_queue.client import TransferQueueClient, run

_TQ_CLIENT = TransferQueueClient()

def kv_batch_put(keys, partition_id, fields=None, tags=None):
    for key, tag in zip(keys, tags or [{} for _ in keys]):
        _TQ_CLIENT.rows.setdefault(key, {}).update(tag)

async def async_kv_batch_get(keys, partition_id, select_fields=None):
    return await _TQ_CLIENT.async_get_data(await _TQ_CLIENT.async_kv_retrieve_meta(keys, partition_id))

def kv_batch_get(keys, partition_id, select_fields=None):
    return run(async_kv_batch_get(keys=keys, partition_id=partition_id, select_fields=select_fields))

async def async_kv_list(partition_id=None):
    return {"train": {key: dict(tag) for key, tag in _TQ_CLIENT.rows.items()}}

def kv_list(partition_id=None):
    return run(async_kv_list(partition_id))

async def async_kv_clear(keys, partition_id):
    await _TQ_CLIENT.async_kv_retrieve_meta(keys, partition_id)
    for key in keys:
        _TQ_CLIENT.rows.pop(key, None)

def kv_clear(keys, partition_id):
    run(async_kv_clear(keys, partition_id))

def save_checkpoint(checkpoint_dir, *, include_storage=True, metadata=None):
    return None

def load_checkpoint(checkpoint_dir):
    raise FileNotFoundError(checkpoint_dir)
"""


@contextmanager
def _installed() -> Iterator[None]:
    """Let the package count as installed, which the instrumentor asks for, also where TransferQueue is not."""
    with TemporaryDirectory() as folder:
        described = Path(folder, "transferqueue-0.1.11.dist-info")
        described.mkdir()
        (described / "METADATA").write_text("Metadata-Version: 2.1\nName: TransferQueue\nVersion: 0.1.11\n")
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)


@contextmanager
def fake_transfer_queue() -> Iterator[Any]:
    """Put the package into ``sys.modules``, and what was there back at the end."""
    with _installed(), _modules() as package:
        yield package


@contextmanager
def _modules() -> Iterator[Any]:
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "transfer_queue"}
    for name in before:
        del sys.modules[name]
    package, interface, client = (ModuleType(name) for name in _NAMES)
    sys.modules.update(zip(_NAMES, (package, interface, client), strict=True))
    try:
        exec(_CLIENT, client.__dict__)
        exec(_INTERFACE, interface.__dict__)
        for name, value in vars(interface).items():
            if getattr(value, "__module__", None) == interface.__name__:
                setattr(package, name, value)
        package.interface, package.client = interface, client  # type: ignore[attr-defined]
        package.TransferQueueClient = client.TransferQueueClient  # type: ignore[attr-defined]
        yield package
    finally:
        for name in _NAMES:
            del sys.modules[name]
        sys.modules.update(before)
        importlib.invalidate_caches()
