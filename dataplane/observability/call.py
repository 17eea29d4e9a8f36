"""One observed call as plain data: what was called with which arguments, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Token
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span

from dataplane.errors import DataPlaneTimeout
from dataplane.observability.payload import count_keys
from dataplane.observability.tally import Cell
from dataplane.operations import Operation, keys_of, partition_of

__all__ = ["Call", "Event"]

Event = dict[str, Any]


@dataclass(slots=True, eq=False)
class Call:
    """One observed call.

    The caller must pass on :attr:`args` and :attr:`kwargs`: beginning the call may have added its span to a put's tags.

    Attributes:
        operation: What is called.
        args: The positional arguments to make the call with.
        kwargs: The keyword arguments to make the call with.
        active: Whether the call has not ended yet.
        nested: Whether another observed call makes this one; then only the outer one emits metrics and spans.
        metered: Whether somebody may read the metrics of this call.
        name: The partition's name in telemetry, None when the call has no partition.
        keys: The keys that the call names. None when it names none, or when they can be iterated only once.
        all_keys: Whether the call names no keys and so means all of them.
        n_keys: How many keys the call names or its result has.
        n_bytes: How many bytes of tensors the call moves.
        misses: How many keys were looked up whose origin is not known.
        cell: Where the call is counted when it succeeds, None when telemetry failed before that was known.
        span: The call's span when it is recorded, else None.
        started: When the call itself began, in nanoseconds of ``perf_counter_ns``.
        token: Resets which call the thread or task is inside of.
        scope: Resets which span is current.
    """

    operation: Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    active: bool = True
    nested: bool = False
    metered: bool = False
    name: str | None = None
    keys: Sequence[Any] | None = None
    all_keys: bool = False
    n_keys: int = 0
    n_bytes: int = 0
    misses: int = 0
    cell: Cell | None = None
    span: Span | None = None
    started: int = 0
    token: Token[Call | None] | None = None
    scope: Token[Context] | None = None

    def read_arguments(self) -> Any:
        """Set what the arguments say of the keys, and return the partition as the caller gave it.

        Raises:
            Exception: What a caller's own type of argument raises.
        """
        operation, args, kwargs = self.operation, self.args, self.kwargs
        if operation.batch is None:
            # Most arguments are positional, and a call of Argument.of would be a tenth of the whole cost of observing.
            partition = keys = None
            where = operation.partition
            if where is not None:
                partition = args[where.position] if where.position < len(args) else where.of(args, kwargs)
            where = operation.keys
            if where is not None:
                keys = args[where.position] if where.position < len(args) else where.of(args, kwargs)
        else:
            batch = operation.batch.of(args, kwargs)
            partition, keys = partition_of(batch), keys_of(batch)
            if partition is None and operation.partition is not None:
                partition = operation.partition.of(args, kwargs)
        if type(keys) is list or type(keys) is tuple:
            self.keys = keys
            self.n_keys = len(keys)
        elif keys is None:
            self.all_keys = True
        else:
            self.n_keys = count_keys(keys)
            self.keys = (keys,) if isinstance(keys, str) else None
        return partition

    def event(self, nanoseconds: int, error_type: str | None) -> Event:
        """Return the event of a call that took *nanoseconds*, and failed with *error_type* unless that is None."""
        return {
            "op": self.operation.event,
            "partition_id": self.name,
            "n_keys": self.n_keys,
            "n_bytes": self.n_bytes,
            "wall_ms": nanoseconds / 1e6,
            "status": "ok" if error_type is None else "timeout" if error_type == DataPlaneTimeout.__name__ else "error",
            "error_type": error_type,
        }
