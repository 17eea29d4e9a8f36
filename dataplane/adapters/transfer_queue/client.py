"""The data plane on TransferQueue's public API.

Importing this module is cheap. Creating an object of its classes imports ``transfer_queue``, Ray and torch.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataplane.adapters.arguments import (
    UnknownSampleError,
    UnstorableValueError,
    check_claim,
    check_fields,
    check_keys,
    check_partition,
    check_put,
    check_registration,
    check_tasks,
    claimed_batch,
)
from dataplane.adapters.transfer_queue.checkpoints import CheckpointCalls
from dataplane.adapters.transfer_queue.config import DEFAULT_POLL_INTERVAL_S, seconds
from dataplane.adapters.transfer_queue.reader import TransferQueueMetadataReader
from dataplane.adapters.transfer_queue.storage import Storage, storage_of
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneClearError,
    DataPlaneError,
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneWriteError,
)
from dataplane.interfaces import DEFAULT_TAG_RULES, DataPlaneClient, KVBatchMeta, TagRules

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = ["TQDataPlaneClient", "TransferQueueMetadataReader"]

_log = logging.getLogger(__name__)

# A claim gets at least this long: a claim that is cancelled in flight may lose the samples that it consumed.
_MIN_CLAIM_REQUEST_S = 1.0


class TQDataPlaneClient(CheckpointCalls, DataPlaneClient):
    """A client of the TransferQueue that runs in this process's Ray cluster.

    With ``bootstrap=True`` it starts TransferQueue when none runs (and Ray when the process has none), and its
    :meth:`close` ends what it started. Otherwise, and always with ``bootstrap=False``, it attaches: it creates nothing,
    and ``close`` only closes its own sockets. Connect Ray before an attach, since connecting to a dead cluster can end
    the process. The attachments of one process share sockets.

    A client uses one controller. When that one is replaced, calls raise DataPlaneUnavailable: close the client and make
    a new one.

    A claim polls, which needs a controller in polling mode. This class starts its controllers in that mode. Without it,
    the controller's only thread waits for samples, up to 5 s per request, and answers no client meanwhile, not even
    this one's other calls. The first claim then logs a warning.

    TransferQueue does not report the fields that a partition was registered with. So the error for a field that no row
    has yet depends on the client. It is DataPlaneBadRequest if the client registered the partition without that field,
    or wrote rows to it and registered nothing. Otherwise it is DataPlaneNotReady, since another client may have
    registered the field.

    Every call has a deadline, ``timeout_s`` in *cfg*, also the attach and :meth:`close`. After it the call is
    cancelled, and its socket and thread are released. Then the client takes up to 3.5 s to find out whether the silent
    peer is gone (DataPlaneUnavailable, which names the remedy) or hangs (DataPlaneTimeout; the client stays usable).
    Where a short deadline would do harm, a minimum applies: 300 s to start TransferQueue, 60 s to end it, 600 s for a
    checkpoint, 5 s to close sockets. A claim polls until its own *timeout_s*, each request within the deadline.

    On Mooncake an attach and a close stop the whole process for a moment, and calls that were given up may run on for
    two minutes: see docs/storage.md. A process that contributes a segment takes the rows in it along when it closes.

    It pickles, for a Ray actor: the copy attaches where it arrives, with its first call, and starts nothing. It has the
    same configuration and rules.

    ``dp_rank`` is passed to the controller's sampler. TransferQueue has no ``num_samples``, ``grpo_group_size`` and
    ``enums``, so they have no effect.

    Args:
        cfg: See :class:`~dataplane.interfaces.DataPlaneConfig`. What concerns the storage is for a start, except what
            each process chooses for itself on Mooncake: sizes, device and ``hard_pin``.
        bootstrap: Start TransferQueue when none runs; False only attaches, None attaches with the first call.
        rules: How the tags of a partition are read, by partition name.
        default_rules: The same for partitions that *rules* does not name.

    Raises:
        ValueError: A value in *cfg* is wrong; the message names its key.
        DataPlaneUnavailable: There is no controller to attach to, or TransferQueue is not installed.
        DataPlaneNotReady: The controller is still being started.
        DataPlaneTimeout: No answer from Ray or the controller within the deadline.
    """

    def __init__(
        self,
        cfg: Mapping[str, Any],
        *,
        bootstrap: bool | None = True,
        rules: Mapping[str, TagRules] | None = None,
        default_rules: TagRules = DEFAULT_TAG_RULES,
    ) -> None:
        self._stored: Storage | None = None
        super().__init__(cfg, bootstrap=bootstrap, rules=rules, default_rules=default_rules)
        self._poll_interval_s = seconds(cfg, "claim_meta_poll_interval_s", DEFAULT_POLL_INTERVAL_S)
        self._registered_fields: dict[str, set[str]] = {}
        self._written: set[str] = set()
        self._claims: dict[tuple[str, str, int], int] = {}
        self._has_claimed = False

    def register_partition(
        self,
        partition_id: str,
        fields: list[str],
        num_samples: int,
        consumer_tasks: list[str],
        grpo_group_size: int | None = None,
        enums: dict[str, list[str]] | None = None,
    ) -> None:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.register_partition`."""
        check_registration(partition_id, fields, consumer_tasks)

        async def call() -> None:
            client = self._client()
            # An insert without rows creates the partition; a request for a task's status creates its cursor.
            await client.async_get_meta(
                data_fields=fields, batch_size=0, partition_id=partition_id, mode="insert", task_name=None
            )
            for task in consumer_tasks:
                await client.async_get_consumption_status(task_name=task, partition_id=partition_id)

        self._call_tq("register_partition", call, DataPlaneWriteError, partition_id=partition_id)
        self._registered_fields.setdefault(partition_id, set()).update(fields)

    def claim_meta(
        self,
        partition_id: str,
        task_name: str,
        required_fields: list[str],
        batch_size: int,
        dp_rank: int | None = None,
        blocking: bool = True,
        timeout_s: float = 60.0,
    ) -> KVBatchMeta:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.claim_meta`."""
        check_claim(partition_id, task_name, required_fields, batch_size, timeout_s)
        sampling = self._sampling_config(partition_id, task_name, dp_rank)
        if not self._has_claimed and not self._attachment.polling:
            _log.warning(
                "the controller at %s is not in polling mode: each request of a claim that finds too few samples makes "
                "its only thread wait, up to 5 s; start TransferQueue with controller.polling_mode=true",
                self._attachment.controller_address,
            )
        self._has_claimed = True

        async def call() -> KVBatchMeta | None:
            return await self._claim(partition_id, task_name, required_fields, batch_size, sampling)

        deadline = time.monotonic() + timeout_s
        while True:
            request_s = min(self._timeout_s, max(_MIN_CLAIM_REQUEST_S, deadline - time.monotonic()))
            try:
                claimed = self._call_tq(
                    "claim_meta", call, DataPlaneReadError, timeout_s=request_s, partition_id=partition_id
                )
            except DataPlaneNotReady:  # the controller is not in polling mode and has waited itself
                claimed = None
            if claimed is not None:
                if dp_rank is not None:
                    self._claims[partition_id, task_name, dp_rank] = sampling["batch_index"] + 1
                return claimed  # type: ignore[no-any-return]
            if not blocking:
                return KVBatchMeta(partition_id, task_name, [], list(required_fields), tags=[])
            if time.monotonic() + self._poll_interval_s > deadline:
                time.sleep(max(0.0, deadline - time.monotonic()))
                raise DataPlaneTimeout(
                    f"fewer than {batch_size} samples were ready for task {task_name!r} within {timeout_s:g} s",
                    operation="claim_meta",
                    partition_id=partition_id,
                )
            time.sleep(self._poll_interval_s)

    def get_data(self, meta: KVBatchMeta, select_fields: list[str] | None = None) -> TensorDict:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.get_data`."""
        fields = meta.fields if select_fields is None else select_fields
        return self._read("get_data", meta.sample_ids, meta.partition_id, fields)

    def check_consumption_status(self, partition_id: str, task_names: list[str]) -> bool:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.check_consumption_status`."""
        check_tasks("check_consumption_status", partition_id, "task_names", task_names)

        async def call() -> bool:
            client = self._client()
            for task in task_names:
                if not await client.async_check_consumption_status(task_name=task, partition_id=partition_id):
                    return False
            return True

        return bool(self._call_tq("check_consumption_status", call, DataPlaneReadError, partition_id=partition_id))

    def put_samples(
        self,
        sample_ids: list[str],
        partition_id: str,
        fields: TensorDict | None = None,
        tags: list[dict[str, Any]] | None = None,
    ) -> KVBatchMeta:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.put_samples`."""
        check_put(partition_id, sample_ids, fields, tags)
        storage = self._storage
        stored = None if fields is None or not sample_ids else storage.storable(partition_id, sample_ids, fields)

        async def call() -> Any:
            self._client()
            if not sample_ids:
                return None
            return await storage.put(sample_ids, partition_id, stored, tags)

        uses = stored is not None
        try:
            put = self._call_tq("put_samples", call, DataPlaneWriteError, partition_id=partition_id, storage=uses)
        except DataPlaneError as error:
            if not _does_not_pickle(error.__cause__):
                raise
            raise UnstorableValueError(
                f"a field or tag cannot be stored: {error}", operation="put_samples", partition_id=partition_id
            ) from error.__cause__
        if put is None:
            return KVBatchMeta(partition_id, None, [], [], tags=[])
        self._written.add(partition_id)
        return KVBatchMeta(
            partition_id, None, list(sample_ids), list(put.fields or ()), tags=[dict(tag) for tag in put.tags]
        )

    def get_samples(self, sample_ids: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.get_samples`."""
        return self._read("get_samples", sample_ids, partition_id, select_fields)

    def clear_samples(self, sample_ids: list[str] | None, partition_id: str) -> None:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.clear_samples`."""
        if sample_ids is None:
            check_partition("clear_samples", partition_id)
        else:
            check_keys("clear_samples", partition_id, sample_ids)

        async def call() -> None:
            self._client()
            keys = list(await self._list_rows(partition_id)) if sample_ids is None else sample_ids
            if keys:
                await self._storage.clear(keys, partition_id)

        self._call_tq("clear_samples", call, DataPlaneClearError, partition_id=partition_id, storage=True)

    @property
    def _storage(self) -> Storage:
        attachment = self._attachment
        if self._stored is None:
            self._stored = storage_of(self._tq, attachment)
        return self._stored

    async def _list_rows(self, partition_id: str) -> dict[str, Any]:
        self._client()
        rows: dict[str, Any] = (await self._tq.async_kv_list(partition_id=partition_id)).get(partition_id, {})
        return rows

    def _sampling_config(self, partition_id: str, task_name: str, dp_rank: int | None) -> dict[str, Any]:
        if dp_rank is None:
            return {}
        batch_index = self._claims.get((partition_id, task_name, dp_rank), 0)
        return {"dp_rank": dp_rank, "batch_index": batch_index, "task_name": task_name, "partition_id": partition_id}

    async def _claim(
        self, partition_id: str, task_name: str, fields: list[str], batch_size: int, sampling: dict[str, Any]
    ) -> KVBatchMeta | None:
        client = self._client()
        batch = await client.async_get_meta(
            data_fields=fields,
            batch_size=batch_size,
            partition_id=partition_id,
            mode="fetch",
            task_name=task_name,
            sampling_config=sampling,
        )
        if batch is None or batch.size == 0:
            return None
        keys = await client.async_kv_retrieve_keys(global_indexes=batch.global_indexes, partition_id=partition_id)
        tags = [dict(tag) for tag in batch.custom_meta]
        return claimed_batch(partition_id, task_name, list(keys), fields, tags)

    def _read(
        self, operation: str, sample_ids: list[str], partition_id: str, select_fields: list[str] | None
    ) -> TensorDict:
        check_keys(operation, partition_id, sample_ids)
        check_fields(operation, partition_id, "select_fields", select_fields)
        assert select_fields is not None
        fields = select_fields
        from dataplane.adapters.rows import empty, repacked

        async def call() -> Any:
            self._client()
            if not sample_ids:
                return empty()
            data = await self._storage.get(sample_ids, partition_id, fields)
            missing = [name for name in fields if name not in data.keys()]  # noqa: SIM118
            # TransferQueue leaves out unknown keys and fields without an error.
            if missing or data.batch_size[0] != len(sample_ids):
                raise await self._explain_short_read(sample_ids, partition_id, missing)
            return data

        try:
            data = self._call_tq(operation, call, DataPlaneReadError, partition_id=partition_id, storage=True)
        except DataPlaneBadRequest as error:
            if error.__cause__ is None:
                raise
            # TransferQueue's message names neither key nor field.
            kind = UnknownSampleError if "were not found" in str(error) else DataPlaneBadRequest
            message = f"{error} (keys {sample_ids[:5]!r}, fields {fields!r}, partition {partition_id!r})"
            raise kind(message, operation=operation, partition_id=partition_id) from error.__cause__
        return repacked(data)

    async def _explain_short_read(self, keys: list[str], partition_id: str, missing: list[str]) -> DataPlaneError:
        rows = await self._list_rows(partition_id)
        unknown = [key for key in keys if key not in rows]
        if unknown:
            return UnknownSampleError(
                f"no such key in partition {partition_id!r}: {unknown[:5]!r} ({len(unknown)} of {len(keys)})"
            )
        for name in missing:
            _, produced = await self._client().async_get_production_status(
                data_fields=[name], partition_id=partition_id
            )
            if produced is None and self._knows_of_no_field(partition_id, name):
                return UnknownSampleError(f"no such field in partition {partition_id!r}: {name!r}")
        if missing:
            return DataPlaneNotReady(f"fields not produced for all of {len(keys)} keys: {missing!r}")
        return DataPlaneReadError(f"fewer rows came back than the {len(keys)} asked for: {keys[:5]!r}")

    def _knows_of_no_field(self, partition_id: str, name: str) -> bool:
        registered = self._registered_fields.get(partition_id)
        return partition_id in self._written if registered is None else name not in registered


def _does_not_pickle(error: BaseException | None) -> bool:
    """Whether *error* or one of its causes says so: TransferQueue wraps it like a failure of its own."""
    while error is not None:
        if isinstance(error, TypeError | AttributeError | pickle.PicklingError) and "pickle" in str(error).lower():
            return True
        error = error.__cause__
    return False
