"""The client's operations in telemetry: names, span kinds, and which arguments are the partition and the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from opentelemetry.trace import SpanKind

from dataplane.errors import DataPlaneClearError, DataPlaneError, DataPlaneReadError, DataPlaneWriteError

__all__ = ["OPERATIONS", "Argument", "Effect", "Operation", "keys_of", "partition_of", "tags_of"]

Effect = Literal["write", "claim", "read", "clear", "list", "name"]


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


_FIRST_PARTITION: Final = Argument(0, ("partition_id",))
_SECOND_PARTITION: Final = Argument(1, ("partition_id",))
_KEYS: Final = Argument(0, ("sample_ids", "keys"))


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the client.

    Attributes:
        name: The method's name: the value of ``messaging.operation.name`` and ``operation``.
        event: Its short name in events and in a snapshot.
        effect: What a call does to keys: ``write``, ``claim``, ``read`` (with their data), ``clear``, ``list`` (with
            their tags) or ``name`` them; None when it concerns none.
        default_error: The class of a failure that the translation table does not know.
        partition: The parameter that names the partition.
        keys: The parameter that names the keys.
        batch: The parameter that is a batch and so names partition and keys.
        fields: The parameter that is written.
        tags: The parameter with one tag per key.
        one_tag: Whether that is the tag of the only key instead.
    """

    name: str
    event: str
    effect: Effect | None = None
    default_error: type[DataPlaneError] = DataPlaneError
    partition: Argument | None = None
    keys: Argument | None = None
    batch: Argument | None = None
    fields: Argument | None = None
    tags: Argument | None = None
    one_tag: bool = False

    @property
    def span_kind(self) -> SpanKind:
        """PRODUCER for what creates messages, as the messaging conventions have it, else CLIENT."""
        return SpanKind.PRODUCER if self.effect == "write" else SpanKind.CLIENT

    @property
    def messaging_type(self) -> str | None:
        """The value of ``messaging.operation.type``, None where the conventions have none."""
        return {"write": "send", "claim": "receive", "read": "receive", "clear": "settle"}.get(self.effect or "")

    @property
    def direction(self) -> str | None:
        """The direction of the keys that a call moves: ``read``, ``write`` or ``clear``; None when it moves none."""
        return {"write": "write", "claim": "read", "read": "read", "clear": "clear"}.get(self.effect or "")


OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.name: operation
    for operation in (
        Operation("register_partition", "register", partition=_FIRST_PARTITION),
        Operation("claim_meta", "claim_meta", "claim", DataPlaneReadError, _FIRST_PARTITION),
        Operation("get_data", "get_data", "read", DataPlaneReadError, batch=Argument(0, ("meta", "metadata"))),
        Operation("check_consumption_status", "check_consumption_status", None, DataPlaneReadError, _FIRST_PARTITION),
        Operation(
            "put_samples",
            "put",
            "write",
            DataPlaneWriteError,
            _SECOND_PARTITION,
            _KEYS,
            fields=Argument(2, ("fields",)),
            tags=Argument(3, ("tags",)),
        ),
        Operation("get_samples", "get", "read", DataPlaneReadError, _SECOND_PARTITION, _KEYS),
        Operation("clear_samples", "clear", "clear", DataPlaneClearError, _SECOND_PARTITION, _KEYS),
        Operation("ping", "ping"),
        Operation("list_partitions", "list_partitions", None, DataPlaneReadError),
        Operation("list_metadata", "list_metadata", "list", DataPlaneReadError, _FIRST_PARTITION),
        Operation("list_sample_ids", "list_sample_ids", "name", DataPlaneReadError, _FIRST_PARTITION),
        Operation("depth", "depth", None, DataPlaneReadError, _FIRST_PARTITION),
        Operation("pop", "pop", "clear", DataPlaneClearError, _SECOND_PARTITION, _KEYS),
        Operation("evict", "evict", "clear", DataPlaneClearError, _SECOND_PARTITION, _KEYS),
        Operation("save_checkpoint", "save_checkpoint"),
        Operation("load_checkpoint", "load_checkpoint"),
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
