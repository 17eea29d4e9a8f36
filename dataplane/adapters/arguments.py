"""Checks of a call's arguments, the same for every adapter: the caller's mistake is named before any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataplane.batch import KVBatchMeta
from dataplane.errors import DataPlaneBadRequest

__all__ = [
    "UnknownSampleError",
    "UnstorableValueError",
    "check_claim",
    "check_fields",
    "check_keys",
    "check_partition",
    "check_put",
    "check_registration",
    "check_tasks",
    "check_wait",
    "claimed_batch",
]


class UnknownSampleError(DataPlaneBadRequest, KeyError):
    """A key, field or partition that was never written or has been cleared. Also a KeyError, like a dict's."""


class UnstorableValueError(DataPlaneBadRequest, TypeError):
    """A field or tag whose values cannot be stored. Also a TypeError, like that of pickle."""


def check_partition(operation: str, partition_id: object) -> None:
    """Raise DataPlaneBadRequest unless *partition_id* is a string."""
    if not isinstance(partition_id, str):
        raise DataPlaneBadRequest(f"partition_id must be a str, not {type(partition_id).__name__}", operation=operation)


def check_keys(operation: str, partition_id: str, sample_ids: object) -> None:
    """Raise DataPlaneBadRequest unless *sample_ids* is a list of strings."""
    check_partition(operation, partition_id)
    if not isinstance(sample_ids, list):
        raise _bad(operation, partition_id, f"sample_ids must be a list of str, not {type(sample_ids).__name__}")
    for index, key in enumerate(sample_ids):
        if not isinstance(key, str):
            raise _bad(operation, partition_id, f"sample_ids[{index}] must be a str, not {type(key).__name__}")


def check_fields(operation: str, partition_id: str, name: str, fields: object) -> None:
    """Raise DataPlaneBadRequest unless *fields* names at least one field: "all of them" is never implied."""
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise _bad(operation, partition_id, f"{name} must be a list of field names, not {fields!r:.80}")
    if not fields:
        raise _bad(operation, partition_id, f"{name} is empty: name the fields to read")


def check_put(partition_id: str, sample_ids: object, fields: object, tags: object) -> None:
    """Raise DataPlaneBadRequest unless there is one row of *fields*, and one dict in *tags*, per unique key."""
    operation = "put_samples"
    check_keys(operation, partition_id, sample_ids)
    assert isinstance(sample_ids, list)
    if len(set(sample_ids)) != len(sample_ids):
        twice = next(key for key in sample_ids if sample_ids.count(key) > 1)
        raise _bad(operation, partition_id, f"sample_ids names {twice!r} more than once")
    if fields is None and tags is None and sample_ids:
        raise _bad(operation, partition_id, "give fields, tags or both")
    if fields is not None:
        batch_size = getattr(fields, "batch_size", None)
        if batch_size is None:
            raise _bad(operation, partition_id, f"fields must be a TensorDict, not {type(fields).__name__}")
        rows = batch_size[0] if len(batch_size) else 0
        if rows != len(sample_ids):
            raise _bad(operation, partition_id, f"fields has {rows} rows for {len(sample_ids)} sample_ids")
    if tags is not None:
        if not isinstance(tags, list) or not all(isinstance(tag, Mapping) for tag in tags):
            raise _bad(operation, partition_id, "tags must be a list with one dict per sample")
        if len(tags) != len(sample_ids):
            raise _bad(operation, partition_id, f"{len(tags)} tags for {len(sample_ids)} sample_ids")


def check_claim(
    partition_id: str, task_name: object, required_fields: object, batch_size: Any, timeout_s: object
) -> None:
    """Raise DataPlaneBadRequest unless a claim names a task, fields, a positive number of samples and a wait."""
    operation = "claim_meta"
    check_partition(operation, partition_id)
    check_wait(operation, timeout_s, partition_id)
    check_fields(operation, partition_id, "required_fields", required_fields)
    if not isinstance(task_name, str):
        raise _bad(operation, partition_id, f"task_name must be a str, not {type(task_name).__name__}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise _bad(operation, partition_id, f"batch_size must be a positive int, not {batch_size!r:.80}")


def claimed_batch(
    partition_id: str, task_name: str, keys: list[str], fields: list[str], tags: list[dict[str, Any]]
) -> KVBatchMeta:
    """Return a claimed batch. Its ``sequence_lengths`` are the tags ``input_lengths``, 0 for a row without it."""
    lengths = [tag.get("input_lengths") for tag in tags]
    known = [length if type(length) is int else 0 for length in lengths]
    return KVBatchMeta(partition_id, task_name, keys, list(fields), known if any(known) else None, tags=tags)


def check_registration(partition_id: str, fields: object, consumer_tasks: object) -> None:
    """Raise DataPlaneBadRequest unless *fields* names at least one field and *consumer_tasks* is a list of names."""
    operation = "register_partition"
    check_partition(operation, partition_id)
    check_fields(operation, partition_id, "fields", fields)
    if not isinstance(consumer_tasks, list) or not all(isinstance(task, str) for task in consumer_tasks):
        raise _bad(operation, partition_id, f"consumer_tasks must be a list of task names, not {consumer_tasks!r:.80}")


def check_tasks(operation: str, partition_id: str, name: str, task_names: object) -> None:
    """Raise DataPlaneBadRequest unless *task_names* is a list of at least one task name."""
    check_partition(operation, partition_id)
    if not isinstance(task_names, list) or not task_names or not all(isinstance(task, str) for task in task_names):
        raise _bad(operation, partition_id, f"{name} must be a list of at least one task name, not {task_names!r:.80}")


def check_wait(operation: str, timeout_s: object, partition_id: str | None = None) -> None:
    """Raise DataPlaneBadRequest unless *timeout_s* is a number of seconds: no clock ever reaches NaN."""
    if not isinstance(timeout_s, int | float) or isinstance(timeout_s, bool) or not timeout_s >= 0:
        raise _bad(operation, partition_id, f"timeout_s must be a number of seconds, not {timeout_s!r:.80}")


def _bad(operation: str, partition_id: str | None, message: str) -> DataPlaneBadRequest:
    return DataPlaneBadRequest(message, operation=operation, partition_id=partition_id)
