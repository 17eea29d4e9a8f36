"""The data plane's client interface: what a controller or trainer calls.

Terms. A *partition* is a named set of rows. A *sample* or *row* is one key with its tensors (fields) and its
tag. A *group* is a set of rows that train together (:mod:`dataplane.groups`). A *task* is a consumer with a
cursor of its own over a partition.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dataplane.batch import KVBatchMeta
from dataplane.config import DataPlaneConfig, MooncakeCpuConfig, ObservabilityConfig, SimpleStorageConfig
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneClearError,
    DataPlaneError,
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    DataPlaneWriteError,
)
from dataplane.grouping import DEFAULT_TAG_RULES, TagRules
from dataplane.groups import DataPlaneCapabilities, DataPlaneGroupMeta, count_ready

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = [
    "DEFAULT_TAG_RULES",
    "PUBLISHED_VERSION_KEY",
    "RESERVED_PARTITION",
    "DataPlaneBadRequest",
    "DataPlaneCapabilities",
    "DataPlaneClearError",
    "DataPlaneClient",
    "DataPlaneConfig",
    "DataPlaneError",
    "DataPlaneGroupMeta",
    "DataPlaneNotReady",
    "DataPlaneReadError",
    "DataPlaneTimeout",
    "DataPlaneUnavailable",
    "DataPlaneWriteError",
    "KVBatchMeta",
    "MetadataReader",
    "MooncakeCpuConfig",
    "ObservabilityConfig",
    "SimpleStorageConfig",
    "TagRules",
]

RESERVED_PARTITION = "__tq_exporter__"
"""Holds what a run publishes for the exporter; hidden from every count. See ``publish_weight_version``."""

PUBLISHED_VERSION_KEY = "trainer_weight_version"
"""The row of :data:`RESERVED_PARTITION` whose tag ``weight_version`` is the trainer's current version."""


@runtime_checkable
class MetadataReader(Protocol):
    """The read-only half of the data plane: all that an observer needs. No call changes any state."""

    def ping(self, timeout_s: float | None = None) -> float:
        """Ask the controller for a trivial answer on the path that real requests take.

        Args:
            timeout_s: Deadline in seconds, None for the reader's own.

        Returns:
            The round trip in seconds.

        Raises:
            DataPlaneUnavailable: The controller is gone, or this reader is closed.
            DataPlaneTimeout: The controller is there and does not answer.
        """
        ...

    def list_partitions(self) -> list[str]:
        """Return the names of all partitions, in the controller's order."""
        ...

    def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
        """Return the groups of a partition; an unknown one has none. Advances no consumption cursor."""
        ...

    def depth(self, partition_id: str) -> int:
        """Return how many groups of a partition are committed, complete and not failed."""
        ...

    def get_capabilities(self) -> DataPlaneCapabilities:
        """Return what this implementation can do beyond the contract."""
        ...

    def close(self) -> None:
        """Release this reader's own resources, idempotently. Calls after it raise DataPlaneUnavailable."""
        ...


class DataPlaneClient(ABC):
    """The whole client. Its read-only half satisfies :class:`MetadataReader`.

    Every method raises only :class:`~dataplane.errors.DataPlaneError` and has a deadline. A mutation that ends
    in :class:`~dataplane.errors.DataPlaneTimeout` may have happened.
    """

    # Task-mediated: a consumer claims what is ready, each sample once per task.

    @abstractmethod
    def register_partition(
        self,
        partition_id: str,
        fields: list[str],
        num_samples: int,
        consumer_tasks: list[str],
        grpo_group_size: int | None = None,
        enums: dict[str, list[str]] | None = None,
    ) -> None:
        """Declare a partition: its fields, expected number of samples and consumer tasks. Idempotent.

        Args:
            partition_id: Name of the partition.
            fields: Fields that producers will write.
            num_samples: Expected number of samples.
            consumer_tasks: Tasks that will claim from it.
            grpo_group_size: Samples per group, None when groups have no fixed size.
            enums: Field name to its closed set of values.
        """

    @abstractmethod
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
        """Claim *batch_size* samples that have all *required_fields* and advance the task's cursor.

        Returns:
            The claimed batch; an empty one when *blocking* is False and not enough is ready. Its ``sequence_lengths``
            are the tags ``input_lengths``.

        Raises:
            DataPlaneTimeout: Not enough became ready within *timeout_s* seconds.
        """

    @abstractmethod
    def get_data(self, meta: KVBatchMeta, select_fields: list[str] | None = None) -> TensorDict:
        """Read the tensors of a claimed batch.

        Args:
            meta: What :meth:`claim_meta` returned.
            select_fields: Fields to read; None reads ``meta.fields``, never all fields of the partition.

        Returns:
            See :meth:`get_samples`.

        Raises:
            DataPlaneBadRequest: No field is selected, or a key or field is unknown.
            DataPlaneNotReady: A selected field is not produced yet.
            DataPlaneReadError: Fewer rows or fields came back than were asked for.
        """

    @abstractmethod
    def check_consumption_status(self, partition_id: str, task_names: list[str]) -> bool:
        """Return whether every one of *task_names* has consumed all samples of the partition.

        Not for observers: TransferQueue creates a task that it does not know.
        """

    # Direct by key.

    @abstractmethod
    def put_samples(
        self,
        sample_ids: list[str],
        partition_id: str,
        fields: TensorDict | None = None,
        tags: list[dict[str, Any]] | None = None,
    ) -> KVBatchMeta:
        """Write fields, tags or both of samples; missing samples are created, given tags are merged.

        Args:
            sample_ids: One unique key per sample. Without any, nothing is written.
            partition_id: Partition to write to; created when missing.
            fields: A TensorDict of batch size ``[len(sample_ids)]``. A leaf is a tensor, a NonTensorStack or a NumPy
                array with one object per sample.
            tags: One dict per sample.

        Raises:
            DataPlaneBadRequest: Neither fields nor tags, or lengths that differ. Also a TypeError when a leaf or a tag
                cannot be stored.
            DataPlaneWriteError: Storage refused the data. Its keys may stay listed as uncommitted.
        """

    @abstractmethod
    def get_samples(self, sample_ids: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        """Read *select_fields* of samples by key, rows in the order of *sample_ids*.

        Returns:
            One column per field: rows of equal shape dense, ragged ones nested, objects as a NonTensorStack. Without
            *sample_ids* it has neither rows nor columns.

        Raises:
            DataPlaneBadRequest: No field is selected, or a key or field is unknown.
            DataPlaneNotReady: A field is not produced yet, or its write failed; or no row has it, and this client
                cannot know whether some other one registered it.
            DataPlaneReadError: Fewer rows or fields came back than were asked for.
        """

    @abstractmethod
    def clear_samples(self, sample_ids: list[str] | None, partition_id: str) -> None:
        """Remove samples with their data; None removes all of the partition. Unknown keys are ignored."""

    # Recovery and control.

    def list_sample_ids(self, partition_id: str) -> list[str]:
        """Return the keys of a partition, sorted; an unknown one has none. Reads no data, advances no cursor."""
        with _reported_as("list_sample_ids"):
            return sorted(key for group in self.list_metadata(partition_id) for key in group.keys)

    def save_checkpoint(self, checkpoint_dir: str | Path, *, metadata: dict[str, Any] | None = None) -> None:
        """Save all rows, tags and cursors in a folder. Save one checkpoint at a time, and clear nothing meanwhile.

        Args:
            checkpoint_dir: The folder, created when missing. Every node of the cluster must see it at this path.
            metadata: What :meth:`load_checkpoint` will return; JSON must be able to hold it.

        Raises:
            DataPlaneBadRequest: *metadata* is not JSON, or this data plane saves no rows.
            DataPlaneWriteError: The checkpoint cannot be written.
        """
        raise DataPlaneBadRequest("this data plane has no checkpoints", operation="save_checkpoint")

    def load_checkpoint(self, checkpoint_dir: str | Path) -> dict[str, Any]:
        """Replace all data by that of a checkpoint. Load before any client reads, writes or claims.

        Returns:
            The metadata that the checkpoint was saved with.

        Raises:
            DataPlaneBadRequest: There is no checkpoint in the folder, it does not fit this data plane, or this client
                has read, written or claimed already.
            DataPlaneReadError: The checkpoint cannot be read.
        """
        raise DataPlaneBadRequest("this data plane has no checkpoints", operation="load_checkpoint")

    @abstractmethod
    def ping(self, timeout_s: float | None = None) -> float:
        """See :meth:`MetadataReader.ping`."""

    @abstractmethod
    def list_partitions(self) -> list[str]:
        """See :meth:`MetadataReader.list_partitions`."""

    @abstractmethod
    def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
        """See :meth:`MetadataReader.list_metadata`."""

    def depth(self, partition_id: str) -> int:
        """See :meth:`MetadataReader.depth`."""
        with _reported_as("depth"):
            return count_ready(self.list_metadata(partition_id))

    def pop(self, keys: list[str], partition_id: str) -> None:
        """Remove samples that were consumed. Same effect as :meth:`clear_samples`; telemetry counts them separately."""
        with _reported_as("pop"):
            self.clear_samples(keys, partition_id)

    def evict(self, keys: list[str], partition_id: str) -> None:
        """Remove samples that nobody will consume, for example stale ones. See :meth:`pop`."""
        with _reported_as("evict"):
            self.clear_samples(keys, partition_id)

    @abstractmethod
    def get_capabilities(self) -> DataPlaneCapabilities:
        """See :meth:`MetadataReader.get_capabilities`."""

    @abstractmethod
    def close(self) -> None:
        """See :meth:`MetadataReader.close`. Only the client that started the data plane stops it."""


@contextmanager
def _reported_as(operation: str) -> Iterator[None]:
    """Report errors under *operation*, the method that was called, not under the one that it calls inside."""
    try:
        yield
    except DataPlaneError as error:
        error.operation = operation
        raise
