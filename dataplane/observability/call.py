"""One observed call as plain data: what was called with which arguments, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span

from dataplane.errors import DataPlaneTimeout
from dataplane.observability.payload import count_keys
from dataplane.observability.tally import Cell
from dataplane.operations import Operation, keys_of, partition_of

__all__ = ["Call", "Event", "current", "current_call"]

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
        nested: Whether this call is part of one that emits metrics and spans already.
        metered: Whether somebody may read the metrics of this call.
        name: The partition's name in telemetry, None when the call has no partition.
        keys: The keys that the call names. None when it names none, or when they can be iterated only once.
        all_keys: Whether the call names no keys and so means all of them.
        n_keys: How many keys the call names or its result has.
        n_bytes: How many bytes of tensors the call moves.
        given_tags: The tags as the caller gave them, when the call is made with others.
        row_tags: What the rows of the keys say of themselves, when somebody has fetched it inside of the call.
        cell: Where the call is counted when it succeeds, None when telemetry failed before that was known.
        span: The call's span when it is recorded, else None.
        started: When the call itself began, in nanoseconds of ``perf_counter_ns``.
        context: The context that the call was made in, None when its span is recorded or nobody wants to know.
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
    given_tags: object = None
    row_tags: Sequence[Any] = ()
    cell: Cell | None = None
    span: Span | None = None
    started: int = 0
    context: Context | None = None
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

    def event(self, nanoseconds: int, error_type: str | None, *, cancelled: bool) -> Event:
        """Return the event of a call that took *nanoseconds*, and failed with *error_type* unless that is None."""
        status = "cancelled" if cancelled else "ok"
        if error_type is not None:
            status = "timeout" if error_type == DataPlaneTimeout.__name__ else "error"
        return {
            "op": self.operation.event,
            "partition_id": self.name,
            "n_keys": self.n_keys,
            "n_bytes": self.n_bytes,
            "wall_ms": nanoseconds / 1e6,
            "status": status,
            "error_type": error_type,
        }


current: ContextVar[Call | None] = ContextVar("dataplane_call", default=None)
"""The call that this thread or task is inside of. A call made by an observed call is part of it."""


def current_call() -> Call | None:
    """Return the observed call that this thread or task is inside of, None outside of one."""
    outer = current.get()
    return outer if outer is not None and outer.active else None
