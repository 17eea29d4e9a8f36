"""The result of one poll of a source: an answer or a failure, both as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dataplane.discovery.record import Endpoint
from dataplane.groups import DataPlaneGroupMeta
from exporter.model.estimates import ClientCounts
from exporter.model.storage import StorageState, StoreState
from exporter.model.tasks import TaskState

__all__ = [
    "Absent",
    "Failed",
    "Found",
    "MetadataPoll",
    "Ok",
    "PartitionFailure",
    "PartitionListing",
    "Result",
    "StoragePoll",
    "TaskAnswer",
]

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[T_co]):
    """A source's answer. ``took`` is the poll's duration in seconds."""

    value: T_co
    took: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A source's failure.

    Attributes:
        operation: The operation that failed.
        error_type: Its ``error.type``.
        detail: A text for logs.
        took: The duration in seconds.
        limit: The limit that a refused reply exceeds, None when it failed for another reason.
    """

    operation: str
    error_type: str
    detail: str
    took: float
    limit: str | None = None


Result = Ok[T_co] | Failed


@dataclass(frozen=True, slots=True)
class Found:
    """A controller that a look-up found. Only a ping shows whether it is still alive."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no controller.

    Attributes:
        ended: True when the previous controller was ended on purpose, as far as is known.
        detail: Why there is none, for the log and the page.
    """

    ended: bool
    detail: str


@dataclass(frozen=True, slots=True)
class PartitionListing:
    """The groups of one partition.

    Attributes:
        partition: Its name.
        groups: All of its groups.
        controller_s: At most this many seconds of the controller's time were spent.
        convention: The tag convention by which its rows were read.
        rows: Number of all rows, those included that belong to no group.
        stated_version: The newest version that the rows say the trainer has finished, None if they say none.
        sender_id: The id of the controller that answered, None when the reader does not know it.
    """

    partition: str
    groups: Sequence[DataPlaneGroupMeta]
    controller_s: float
    convention: str = ""
    rows: int = 0
    stated_version: int | None = None
    sender_id: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionFailure:
    """A partition that could not be listed. ``controller_s``: at most this many seconds of the controller's time.

    ``limit``: the limit that its rows exceed, None when it failed for another reason.
    """

    partition: str
    error_type: str
    detail: str
    controller_s: float
    limit: str | None = None


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """What the controller answered about the configured tasks of a partition.

    Attributes:
        partition: Its name.
        samples: Its number of samples.
        tasks: The tasks.
        controller_s: At most this many seconds of the controller's time were spent.
        failure: Why a question failed, None when all were answered.
    """

    partition: str
    samples: int
    tasks: tuple[TaskState, ...]
    controller_s: float
    failure: Failed | None = None


@dataclass(frozen=True, slots=True)
class MetadataPoll:
    """One round over the partitions.

    Attributes:
        partitions: The names of all partitions but the reserved one.
        listings: Those that were listed.
        failures: Those that could not be listed.
        published_version: The trainer's weight version, None when it publishes none.
        controller_s: At most this many seconds of the controller's time were spent on the round.
        sender_id: The id of the controller that answered last, None when the reader does not know it.
        names_sender_id: The id of the controller that named the partitions.
        groups_per_step: How many groups the trainer says that it takes per step, None when it does not say.
        held: Partitions that were not asked in this round: it is not their turn, or one listing of them takes the
            controller too long.
        answers: What was asked about tasks.
        full_decodes: How many listings were decoded as a whole although the ones before were kept.
        clients: What clients publish of their own calls.
    """

    partitions: tuple[str, ...]
    listings: tuple[PartitionListing, ...]
    failures: tuple[PartitionFailure, ...]
    published_version: int | None
    controller_s: float
    sender_id: str | None
    names_sender_id: str | None = None
    groups_per_step: int | None = None
    held: tuple[str, ...] = ()
    answers: tuple[TaskAnswer, ...] = ()
    full_decodes: int = 0
    clients: tuple[ClientCounts, ...] = ()


@dataclass(frozen=True, slots=True)
class StoragePoll:
    """One round over the storage units: all of them, those that did not answer included.

    ``store`` are the figures of the whole, None of storage that has none.
    """

    units: tuple[StorageState, ...]
    store: StoreState | None = None
