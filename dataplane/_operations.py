"""The client's operations as telemetry sees them: names, span kinds, and where a call's partition and keys are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from opentelemetry.trace import SpanKind

from dataplane.errors import DataPlaneClearError, DataPlaneError, DataPlaneReadError, DataPlaneWriteError

__all__ = ["OPERATIONS", "Argument", "Direction", "Operation", "keys_of", "partition_of", "tags_of"]

Direction = Literal["read", "write", "clear"]


@dataclass(frozen=True, slots=True)
class Argument:
    """Where a parameter is in a call: its position and the names that clients give it."""

    position: int
    names: tuple[str, ...]

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return its value as the caller gave it, None when it was left out."""
        if self.position < len(args):
            return args[self.position]
        for name in self.names:
            if name in kwargs:
                return kwargs[name]
        return None

    def replace(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], value: object
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with *value* in its place."""
        if self.position < len(args):
            return (*args[: self.position], value, *args[self.position + 1 :]), kwargs
        name = next((name for name in self.names if name in kwargs), self.names[0])
        return args, {**kwargs, name: value}


# Compared and hashed by identity: there is one object per operation, and it is a key on the way of every call.
@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation of the client.

    Attributes:
        name: The method's name: the value of ``messaging.operation.name`` and ``operation``.
        event: Its short name in events and in a snapshot.
        kind: The kind of its span.
        messaging_type: ``messaging.operation.type``, None where the messaging conventions have none.
        direction: Which way its keys and bytes flow; None when it moves neither.
        default_error: What a failure is that the translation table does not know.
        partition: The parameter that names the partition.
        keys: The parameter that names the keys.
        fields: The parameter that is written.
        tags: The parameter with one tag per key.
        meta: The parameter that is a batch and so names partition and keys.
        result: What comes back: the ``data`` of the keys, a claimed ``batch`` or a listing of ``groups``.
        links: Whether the call consumes what others produced, so that its span links to theirs.
        lag: Whether the version lag of its keys is measured.
    """

    name: str
    event: str
    kind: SpanKind = SpanKind.CLIENT
    messaging_type: str | None = None
    direction: Direction | None = None
    default_error: type[DataPlaneError] = DataPlaneError
    partition: Argument | None = None
    keys: Argument | None = None
    fields: Argument | None = None
    tags: Argument | None = None
    meta: Argument | None = None
    result: Literal["data", "batch", "groups"] | None = None
    links: bool = False
    lag: bool = False

    @property
    def moves_bytes(self) -> bool:
        """Whether tensors go through the call."""
        return self.fields is not None or self.result == "data"


_KEY_NAMES = ("sample_ids", "keys", "key")
_FIRST_PARTITION = Argument(0, ("partition_id",))
_KEYS = Argument(0, _KEY_NAMES)
_KEYS_PARTITION = Argument(1, ("partition_id",))

OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.name: operation
    for operation in (
        Operation("register_partition", "register", partition=_FIRST_PARTITION),
        Operation(
            "claim_meta",
            "claim_meta",
            messaging_type="receive",
            direction="read",
            default_error=DataPlaneReadError,
            partition=_FIRST_PARTITION,
            result="batch",
            links=True,
            lag=True,
        ),
        Operation(
            "get_data",
            "get_data",
            messaging_type="receive",
            direction="read",
            default_error=DataPlaneReadError,
            meta=Argument(0, ("meta", "metadata")),
            result="data",
            links=True,
        ),
        Operation(
            "check_consumption_status",
            "check_consumption_status",
            default_error=DataPlaneReadError,
            partition=_FIRST_PARTITION,
        ),
        Operation(
            "put_samples",
            "put",
            kind=SpanKind.PRODUCER,
            messaging_type="send",
            direction="write",
            default_error=DataPlaneWriteError,
            partition=_KEYS_PARTITION,
            keys=_KEYS,
            fields=Argument(2, ("fields",)),
            tags=Argument(3, ("tags",)),
        ),
        Operation(
            "get_samples",
            "get",
            messaging_type="receive",
            direction="read",
            default_error=DataPlaneReadError,
            partition=_KEYS_PARTITION,
            keys=_KEYS,
            result="data",
            links=True,
        ),
        Operation(
            "clear_samples",
            "clear",
            messaging_type="settle",
            direction="clear",
            default_error=DataPlaneClearError,
            partition=_KEYS_PARTITION,
            keys=_KEYS,
        ),
        Operation("ping", "ping"),
        Operation("list_partitions", "list_partitions", default_error=DataPlaneReadError),
        Operation(
            "list_metadata",
            "list_metadata",
            default_error=DataPlaneReadError,
            partition=_FIRST_PARTITION,
            result="groups",
        ),
        Operation("depth", "depth", default_error=DataPlaneReadError, partition=_FIRST_PARTITION),
        *(
            Operation(
                name,
                name,
                messaging_type="settle",
                direction="clear",
                default_error=DataPlaneClearError,
                partition=_KEYS_PARTITION,
                keys=_KEYS,
                links=True,
                lag=True,
            )
            for name in ("pop", "evict")
        ),
        Operation("get_capabilities", "get_capabilities"),
        Operation("close", "close"),
    )
}
"""Every operation by its name, in the order of the interface."""


def keys_of(batch: object) -> Sequence[Any] | None:
    """Return the keys of a batch: ours, TransferQueue's KVBatchMeta, or the indexes of its BatchMeta."""
    for name in ("sample_ids", "keys", "global_indexes"):
        keys = getattr(batch, name, None)
        if type(keys) is list or type(keys) is tuple:
            return keys
    return None


def partition_of(batch: object) -> object:
    """Return the partition of a batch; TransferQueue's BatchMeta has one per sample, all the same."""
    partition = getattr(batch, "partition_id", None)
    if partition is None:
        partitions = getattr(batch, "partition_ids", None)
        if partitions:
            return partitions[0]
    return partition


def tags_of(batch: object) -> Sequence[Any]:
    """Return the tags of a batch, one per key; none when it has none."""
    for name in ("tags", "custom_meta"):
        tags = getattr(batch, name, None)
        if type(tags) is list:
            return tags
    return ()
