"""A data plane in memory, for tests of code that uses a client: same contract, no Ray, no network.

It needs torch and tensordict only to write or read rows with fields.
"""

from __future__ import annotations

import copy
import json
import pickle
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
from dataplane.adapters.checkpoints import (
    DATA_OPERATIONS,
    check_unused,
    checkpoint_file,
    checkpoint_folder,
    json_metadata,
)
from dataplane.errors import (
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    DataPlaneWriteError,
)
from dataplane.grouping import DEFAULT_TAG_RULES, Grouper, TagRules
from dataplane.groups import DataPlaneCapabilities, DataPlaneGroupMeta
from dataplane.interfaces import DataPlaneClient, KVBatchMeta

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = ["NoOpDataPlaneClient"]

_CHECKPOINT: Final = "noop_checkpoint.pkl"


@dataclass
class _Row:
    tag: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Partition:
    rows: dict[str, _Row] = field(default_factory=dict)
    fields: set[str] = field(default_factory=set)
    consumed: dict[str, set[str]] = field(default_factory=dict)


class NoOpDataPlaneClient(DataPlaneClient):
    """Stores all partitions of one client in this process. Thread-safe.

    A batch is written as a whole or not at all, and a clear removes the data. Values are copied when they are written
    and when they are read. ``dp_rank``, ``grpo_group_size`` and ``enums`` have no effect.

    Args:
        rules: How the tags of a partition are read, by partition name.
        default_rules: The same for partitions that *rules* does not name.
    """

    def __init__(
        self, *, rules: Mapping[str, TagRules] | None = None, default_rules: TagRules = DEFAULT_TAG_RULES
    ) -> None:
        self._grouper = Grouper(rules, default_rules)
        self._partitions: dict[str, _Partition] = {}
        self._closed = False
        self._used = False
        # Guards all state above. Notified when rows may have become ready and when the client closes.
        self._changed = threading.Condition()

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
        with self._changed:
            self._check_open("register_partition", partition_id)
            check_registration(partition_id, fields, consumer_tasks)
            partition = self._partitions.setdefault(partition_id, _Partition())
            partition.fields.update(fields)
            for task in consumer_tasks:
                partition.consumed.setdefault(task, set())

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
        with self._changed:
            self._check_open("claim_meta", partition_id)
            check_claim(partition_id, task_name, required_fields, batch_size, timeout_s)
            deadline = time.monotonic() + timeout_s
            while True:
                self._check_open("claim_meta", partition_id)
                keys = self._ready_keys(partition_id, task_name, required_fields)[:batch_size]
                if len(keys) == batch_size:
                    partition = self._partitions[partition_id]
                    partition.consumed.setdefault(task_name, set()).update(keys)
                    tags = [copy.deepcopy(partition.rows[key].tag) for key in keys]
                    return claimed_batch(partition_id, task_name, keys, required_fields, tags)
                if not blocking:
                    return KVBatchMeta(partition_id, task_name, [], list(required_fields), tags=[])
                wait_s = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
                if not self._changed.wait(wait_s) and time.monotonic() >= deadline:
                    raise DataPlaneTimeout(
                        f"{len(keys)} of {batch_size} samples were ready for task {task_name!r} within {timeout_s} s",
                        operation="claim_meta",
                        partition_id=partition_id,
                    )

    def get_data(self, meta: KVBatchMeta, select_fields: list[str] | None = None) -> TensorDict:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.get_data`."""
        fields = meta.fields if select_fields is None else select_fields
        return self._read("get_data", meta.sample_ids, meta.partition_id, fields)

    def check_consumption_status(self, partition_id: str, task_names: list[str]) -> bool:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.check_consumption_status`."""
        with self._changed:
            self._check_open("check_consumption_status", partition_id)
            check_tasks("check_consumption_status", partition_id, "task_names", task_names)
            partition = self._partitions.get(partition_id)
            if partition is None or not partition.rows:
                return False
            return all(partition.rows.keys() <= partition.consumed.get(task, set()) for task in task_names)

    def put_samples(
        self,
        sample_ids: list[str],
        partition_id: str,
        fields: TensorDict | None = None,
        tags: list[dict[str, Any]] | None = None,
    ) -> KVBatchMeta:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.put_samples`."""
        with self._changed:
            self._check_open("put_samples", partition_id)
            check_put(partition_id, sample_ids, fields, tags)
            if not sample_ids:
                return KVBatchMeta(partition_id, None, [], [], tags=[])
            try:
                columns = {} if fields is None else _to_columns(partition_id, fields)
                new_tags = copy.deepcopy(tags)
            except UnstorableValueError:
                raise
            except Exception as error:  # the values' own code may raise anything
                raise UnstorableValueError(
                    f"fields or tags cannot be copied: {type(error).__name__}: {error}",
                    operation="put_samples",
                    partition_id=partition_id,
                ) from error
            partition = self._partitions.setdefault(partition_id, _Partition())
            partition.fields.update(columns)
            rows = [partition.rows.setdefault(key, _Row()) for key in sample_ids]
            for index, row in enumerate(rows):
                row.values.update({name: column[index] for name, column in columns.items()})
                if new_tags is not None:
                    row.tag.update(new_tags[index])
            self._changed.notify_all()
            common = set.intersection(*(set(row.values) for row in rows))
            return KVBatchMeta(
                partition_id, None, list(sample_ids), sorted(common), tags=[copy.deepcopy(row.tag) for row in rows]
            )

    def get_samples(self, sample_ids: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.get_samples`."""
        return self._read("get_samples", sample_ids, partition_id, select_fields)

    def clear_samples(self, sample_ids: list[str] | None, partition_id: str) -> None:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.clear_samples`."""
        with self._changed:
            self._check_open("clear_samples", partition_id)
            if sample_ids is not None:
                check_keys("clear_samples", partition_id, sample_ids)
            check_partition("clear_samples", partition_id)
            partition = self._partitions.get(partition_id)
            if partition is None:
                return
            for key in list(partition.rows) if sample_ids is None else sample_ids:
                partition.rows.pop(key, None)
                for consumed in partition.consumed.values():
                    consumed.discard(key)

    def ping(self, timeout_s: float | None = None) -> float:
        """See :meth:`~dataplane.interfaces.MetadataReader.ping`."""
        started = time.perf_counter()
        with self._changed:
            self._check_open("ping", None)
        return time.perf_counter() - started

    def list_partitions(self) -> list[str]:
        """See :meth:`~dataplane.interfaces.MetadataReader.list_partitions`."""
        with self._changed:
            self._check_open("list_partitions", None)
            return list(self._partitions)

    def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
        """See :meth:`~dataplane.interfaces.MetadataReader.list_metadata`."""
        with self._changed:
            self._check_open("list_metadata", partition_id)
            check_partition("list_metadata", partition_id)
            partition = self._partitions.get(partition_id, _Partition())
            tags = {key: copy.deepcopy(row.tag) for key, row in partition.rows.items()}
        return self._grouper.group_rows(partition_id, tags)

    def list_sample_ids(self, partition_id: str) -> list[str]:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.list_sample_ids`."""
        with self._changed:
            self._check_open("list_sample_ids", partition_id)
            check_partition("list_sample_ids", partition_id)
            return sorted(self._partitions.get(partition_id, _Partition()).rows)

    def save_checkpoint(self, checkpoint_dir: str | Path, *, metadata: dict[str, Any] | None = None) -> None:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.save_checkpoint`."""
        operation = "save_checkpoint"
        with self._changed:
            self._check_open(operation, None)
            folder, described = checkpoint_folder(operation, checkpoint_dir), json_metadata(metadata)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                temporary = folder / f"{_CHECKPOINT}.tmp"
                temporary.write_bytes(pickle.dumps((described, self._partitions)))
                temporary.replace(folder / _CHECKPOINT)
            except Exception as error:  # the values' own code may raise anything
                raise DataPlaneWriteError(f"no checkpoint in {folder}: {error}", operation=operation) from error

    def load_checkpoint(self, checkpoint_dir: str | Path) -> dict[str, Any]:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.load_checkpoint`."""
        operation = "load_checkpoint"
        with self._changed:
            self._check_open(operation, None)
            check_unused(self._used)
            file = checkpoint_file(checkpoint_dir, _CHECKPOINT)
            try:
                described, self._partitions = pickle.loads(file.read_bytes())  # noqa: S301 - the caller's own file
                metadata: dict[str, Any] = json.loads(described)
            except Exception as error:  # a damaged pickle may raise anything
                raise DataPlaneReadError(f"{file} cannot be read: {error}", operation=operation) from error
            self._changed.notify_all()
            return metadata

    def get_capabilities(self) -> DataPlaneCapabilities:
        """See :meth:`~dataplane.interfaces.MetadataReader.get_capabilities`."""
        return DataPlaneCapabilities(supports_atomic_batch_put=True, supports_verified_clear=True)

    def close(self) -> None:
        """See :meth:`~dataplane.interfaces.MetadataReader.close`."""
        with self._changed:
            self._closed = True
            self._partitions.clear()
            self._changed.notify_all()

    def _check_open(self, operation: str, partition_id: str | None) -> None:
        if self._closed:
            raise DataPlaneUnavailable("this client is closed", operation=operation, partition_id=partition_id)
        self._used = self._used or operation in DATA_OPERATIONS

    def _ready_keys(self, partition_id: str, task_name: str, required_fields: list[str]) -> list[str]:
        partition = self._partitions.get(partition_id)
        if partition is None:
            return []
        consumed = partition.consumed.get(task_name, set())
        needed = set(required_fields)
        return [key for key, row in partition.rows.items() if key not in consumed and needed <= row.values.keys()]

    def _read(
        self, operation: str, sample_ids: list[str], partition_id: str, select_fields: list[str] | None
    ) -> TensorDict:
        with self._changed:
            self._check_open(operation, partition_id)
            check_keys(operation, partition_id, sample_ids)
            check_fields(operation, partition_id, "select_fields", select_fields)
            assert select_fields is not None
            from dataplane.adapters.rows import empty

            if not sample_ids:
                return empty()
            partition = self._partitions.get(partition_id, _Partition())
            unknown = [key for key in sample_ids if key not in partition.rows]
            if unknown:
                raise UnknownSampleError(
                    f"no such key in partition {partition_id!r}: {unknown[:5]!r} ({len(unknown)} of {len(sample_ids)})",
                    operation=operation,
                    partition_id=partition_id,
                )
            for name in select_fields:
                missing = [key for key in sample_ids if name not in partition.rows[key].values]
                if missing and name not in partition.fields:
                    raise UnknownSampleError(
                        f"no such field in partition {partition_id!r}: {name!r}",
                        operation=operation,
                        partition_id=partition_id,
                    )
                if missing:
                    raise DataPlaneNotReady(
                        f"field {name!r} is not produced for {missing[:5]!r} ({len(missing)} of {len(sample_ids)})",
                        operation=operation,
                        partition_id=partition_id,
                    )
            columns = {name: [partition.rows[key].values[name] for key in sample_ids] for name in select_fields}
            return _to_tensordict(columns, len(sample_ids))


def _to_columns(partition_id: str, fields: TensorDict) -> dict[str, list[Any]]:
    """Split fields into copies of their rows: tensors, or the objects of a non-tensor field."""
    import torch

    from dataplane.adapters.rows import storable

    columns: dict[str, list[Any]] = {}
    checked = storable(partition_id, fields)
    for name in checked.keys():  # noqa: SIM118
        leaf = checked.get(name)
        is_tensor = isinstance(leaf, torch.Tensor)
        columns[name] = [row.clone() for row in leaf.unbind(0)] if is_tensor else copy.deepcopy(leaf.tolist())
    return columns


def _to_tensordict(columns: Mapping[str, list[Any]], rows: int) -> TensorDict:
    import torch
    from tensordict import TensorDict

    from dataplane.adapters.rows import pack

    copies = {
        name: [value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value) for value in values]
        for name, values in columns.items()
    }
    return TensorDict({name: pack(values) for name, values in copies.items()}, batch_size=[rows])
