"""How rows get into the storage backends of TransferQueue, out of them and away from them.

TransferQueue's public functions do for its own SimpleStorage. On the key-value backends they block its event loop, so
that no deadline holds, and a clear of rows with different fields fails or leaves fields behind.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dataplane.adapters.transfer_queue import mooncake
from dataplane.adapters.transfer_queue.calls import BoundedThreads
from dataplane.adapters.transfer_queue.checkpoints import SIMPLE_STORAGE
from dataplane.adapters.transfer_queue.session import Attachment
from dataplane.errors import DataPlaneTimeout, DataPlaneUnavailable
from dataplane.errors.translation import STORE_CODES, store_code

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = ["SIMPLE_STORAGE", "KeyValueStorage", "MooncakeStorage", "Storage", "storage_of"]

T = TypeVar("T")

# Calls of the key-value backends that run at the same time in one process; further ones wait within their deadlines.
_THREADS: Final = BoundedThreads(8)
_FREE_AGAIN_S: Final = 0.01

_OBJECT: Final = re.compile(r"'(\d+)@([^']*)'")
_NAMED: Final = 5


class Storage:
    """The calls that need the storage, made with TransferQueue's public functions. All run on its event loop."""

    def __init__(self, tq: ModuleType, attachment: Attachment) -> None:
        self._tq = tq
        self._attachment = attachment

    def storable(self, partition_id: str, keys: Sequence[str], fields: TensorDict) -> TensorDict:
        """Return *fields*, the values of *keys*, in a form that the backend stores.

        Raises:
            UnstorableValueError: There is none.
        """
        from dataplane.adapters.rows import storable

        return storable(partition_id, fields)

    async def put(
        self, keys: list[str], partition_id: str, fields: TensorDict | None, tags: list[dict[str, Any]] | None
    ) -> Any:
        """Write rows; return TransferQueue's description of them."""
        return await self._tq.async_kv_batch_put(keys=keys, partition_id=partition_id, fields=fields, tags=tags)

    async def get(self, keys: list[str], partition_id: str, fields: list[str]) -> TensorDict:
        """Return the fields of the rows; rows and fields that are unknown are missing in it."""
        data: TensorDict = await self._tq.async_kv_batch_get(keys=keys, partition_id=partition_id, select_fields=fields)
        return data

    async def clear(self, keys: list[str], partition_id: str) -> None:
        """Clear rows; unknown keys are ignored."""
        await self._tq.async_kv_clear(keys=keys, partition_id=partition_id)


class KeyValueStorage(Storage):
    """The same on a key-value backend: what blocks runs on a thread, and rows are cleared by their set of fields."""

    async def get(self, keys: list[str], partition_id: str, fields: list[str]) -> TensorDict:
        """See :meth:`Storage.get`."""
        from dataplane.adapters.rows import empty

        client = self._attachment.client
        batch = await client.async_kv_retrieve_meta(keys=keys, partition_id=partition_id, create=False)
        if batch.size == 0:
            raise ValueError("keys or partition were not found!")
        batch = batch.select_fields(fields)
        if not batch.is_ready:
            raise ValueError("Some fields are not ready in all the requested keys!")
        if batch.size < len(keys) or not batch.field_names:
            return empty()
        # It awaits nothing of the client's own loop.
        data: TensorDict = await _off_loop(lambda: asyncio.run(client.async_get_data(batch)))
        return data

    async def clear(self, keys: list[str], partition_id: str) -> None:
        """See :meth:`Storage.clear`. Rows without fields, as of a failed put, are known to the controller alone."""
        client = self._attachment.client
        batch = await client.async_kv_retrieve_meta(keys=keys, partition_id=partition_id, create=False)
        if batch.size == 0:
            return
        known = await self._fields(partition_id)
        for part in await self._by_fields(batch, partition_id, known):
            await client._mark_clearing_in_controller(part)
            await self._remove(part, known)
            await client._clear_meta_in_controller(part)

    async def _remove(self, batch: Any, known: Sequence[str]) -> None:
        """Remove the values of rows that have the same fields; *known* are all fields of the partition."""
        if batch.field_names:
            manager = self._attachment.client.storage_manager
            await _off_loop(lambda: asyncio.run(manager.clear_data(batch)))

    async def _fields(self, partition_id: str) -> list[str]:
        """Return the fields that any row of the partition has: those that all rows of no row have."""
        tq = self._tq

        async def ask(client: Any, socket: Any = None) -> Any:
            kinds = tq.utils.zmq_utils.ZMQRequestType
            return await client._request_controller(
                socket=socket,
                request_type=kinds.KV_RETRIEVE_META,
                response_type=kinds.KV_RETRIEVE_META_RESPONSE,
                body={"keys": [], "partition_id": partition_id, "create": False},
            )

        answer = await tq.client.with_controller_socket(ask)(self._attachment.client)
        return list(answer.body["metadata"].field_names)

    async def _by_fields(self, batch: Any, partition_id: str, known: Sequence[str]) -> list[Any]:
        """Return *batch* in parts whose rows have the same fields. TransferQueue names those that all rows have."""
        if set(known) <= set(batch.field_names) or batch.size == 1:
            return [batch]
        client = self._attachment.client
        indexes, produced = await client.async_get_production_status(
            data_fields=sorted(known), partition_id=partition_id
        )
        if produced is None:  # the last row with such a field has gone since
            return [batch]
        has = dict(zip(indexes.tolist(), (tuple(row) for row in produced.tolist()), strict=True))
        names = await client.async_kv_retrieve_keys(global_indexes=batch.global_indexes, partition_id=partition_id)
        alike: dict[object, list[str]] = {}
        for index, name in zip(batch.global_indexes, names, strict=True):
            if name is not None:
                alike.setdefault(has.get(index), []).append(name)
        return [
            await client.async_kv_retrieve_meta(keys=part, partition_id=partition_id, create=False)
            for part in alike.values()
        ]


class MooncakeStorage(KeyValueStorage):
    """The same on MooncakeStore, with its codes as errors that name samples, and the master or the segment."""

    def __init__(self, tq: ModuleType, attachment: Attachment) -> None:
        super().__init__(tq, attachment)
        self._half_put: dict[str, set[str]] = {}

    def storable(self, partition_id: str, keys: Sequence[str], fields: TensorDict) -> TensorDict:
        """See :meth:`Storage.storable`. Mooncake stores no value of zero bytes."""
        from dataplane.adapters.rows import check_no_empty_row, scalars_apart

        stored = super().storable(partition_id, keys, fields)
        check_no_empty_row(partition_id, keys, stored)
        return scalars_apart(stored)

    async def put(
        self, keys: list[str], partition_id: str, fields: TensorDict | None, tags: list[dict[str, Any]] | None
    ) -> Any:
        """See :meth:`Storage.put`."""
        try:
            return await self._explained(super().put(keys, partition_id, fields, tags), partition_id)
        except BaseException:  # also when it is cancelled
            if fields is not None:
                self._half_put.setdefault(partition_id, set()).update(fields.keys())
            raise

    async def get(self, keys: list[str], partition_id: str, fields: list[str]) -> TensorDict:
        """See :meth:`Storage.get`."""
        data: TensorDict = await self._explained(super().get(keys, partition_id, fields), partition_id)
        return data

    async def _remove(self, batch: Any, known: Sequence[str]) -> None:
        # A row without fields may have values all the same: a put or a clear of it failed half-way.
        names = list(batch.field_names) or sorted({*known, *self._half_put.get(batch.partition_ids[0], ())})
        if not names:
            return
        manager = self._attachment.client.storage_manager
        objects = manager._generate_keys(names, batch.global_indexes)
        *_, backend_meta = manager._get_shape_type_custom_backend_meta_list(batch)
        if not batch.field_names:
            backend_meta = [None] * len(objects)
        failed = await _off_loop(lambda: mooncake.remove(manager.storage_client, objects, backend_meta))
        if failed:
            codes = list(failed.values())
            error = RuntimeError(f"batch_remove failed for keys {list(failed)} with error codes {codes}")
            raise await self._explanation(error, batch.partition_ids[0])

    async def _explained(self, call: Any, partition_id: str) -> Any:
        try:
            return await call
        except Exception as error:
            raise await self._explanation(error, partition_id) from error

    async def _explanation(self, error: Exception, partition_id: str) -> Exception:
        """Return the error that says what *error* means, by the store's code; *error* itself if it has none."""
        code = store_code(error)
        if code is None:
            return error
        kind, means = STORE_CODES[code]
        client = self._attachment.client
        objects = _OBJECT.findall(str(error))
        rows = list(dict.fromkeys(int(index) for index, _ in objects))
        keys = await client.async_kv_retrieve_keys(global_indexes=rows[:_NAMED], partition_id=partition_id)
        fields = sorted({field for _, field in objects})
        where = ""
        if kind in (DataPlaneUnavailable, DataPlaneTimeout):
            where = f" ({mooncake.MASTER} is {self._attachment.storage_addresses.get(mooncake.MASTER)})"
        if code == -800 and objects:
            store, name = client.storage_manager.storage_client, "@".join(objects[0])
            segment = await _off_loop(lambda: mooncake.holder(store, name))
            where = f" (segment {segment})" if segment else ""
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        return kind(f"{means}{where}: samples {keys!r}{more}, fields {fields!r} (Mooncake's code {code})")


_STORAGES: Final[Mapping[str, type[Storage]]] = {SIMPLE_STORAGE: Storage, mooncake.BACKEND: MooncakeStorage}


def storage_of(tq: ModuleType, attachment: Attachment) -> Storage:
    """Return the calls for the backend of *attachment*."""
    return _STORAGES.get(attachment.backend, KeyValueStorage)(tq, attachment)


async def _off_loop(blocking: Callable[[], T]) -> T:
    """Run a call that blocks on a thread. One that hangs keeps its thread until it ends, not the caller."""
    while True:
        try:
            future = _THREADS.start(blocking, 0)
        except TimeoutError:
            await asyncio.sleep(_FREE_AGAIN_S)
        else:
            return await asyncio.wrap_future(future)
