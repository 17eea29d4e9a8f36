"""One observed call, from its arguments to its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar, Token
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode

from dataplane.errors import OTHER_ERROR_TYPE, DataPlaneError, DataPlaneTimeout, error_type
from dataplane.errors.translation import error_class
from dataplane.observability.effects import EFFECTS
from dataplane.observability.instruments import sdk_configured
from dataplane.observability.payload import count_keys
from dataplane.observability.tally import Cell, partition_name
from dataplane.observability.trace_context import stamp, traceparent
from dataplane.operations import Operation, keys_of, partition_of

if TYPE_CHECKING:
    from dataplane.observability.recorder import Recorder

__all__ = ["Call", "Event", "inside_a_call"]

Event = dict[str, Any]

# The call that this thread or task is inside of. A call made by an observed call is part of it.
_current: ContextVar[Call | None] = ContextVar("dataplane_call", default=None)


def inside_a_call() -> bool:
    """Whether this thread or task is inside of an observed call."""
    outer = _current.get()
    return outer is not None and outer.active


class Call:
    """One observed call. It begins here and ends with one of :meth:`succeed` and :meth:`fail`; none of them raises.

    What is made must be the call with :attr:`args` and :attr:`kwargs`: a put's tags may carry its span there.

    Attributes:
        recorder: Whose call it is.
        operation: What is called.
        args: The positional arguments to make the call with.
        kwargs: The keyword arguments to make the call with.
        active: Whether the call has not ended yet.
        nested: Whether another observed call makes it, which tells metrics and spans alone.
        metered: Whether somebody may read the metrics of it.
        name: What telemetry calls the partition, None when the call has none.
        keys: The keys that it names, None when there are none or only consuming them would tell.
        all_keys: Whether it left the keys out.
        n_keys: How many keys it names or its result has.
        n_bytes: How many bytes of tensors it moves.
        misses: How many keys were looked up whose origin is not known.
        cell: Where it is counted when it succeeds; None when telemetry failed before that was known.
        span: Its span when that records: there is nothing to do for any other.
        started: When the call itself began, on the clock ``perf_counter_ns``.
    """

    __slots__ = (
        "_scope",
        "_token",
        "active",
        "all_keys",
        "args",
        "cell",
        "keys",
        "kwargs",
        "metered",
        "misses",
        "n_bytes",
        "n_keys",
        "name",
        "nested",
        "operation",
        "recorder",
        "span",
        "started",
    )

    def __init__(self, recorder: Recorder, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.recorder = recorder
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.active = True
        self.nested = self.metered = self.all_keys = False
        self.n_keys = self.n_bytes = self.misses = self.started = 0
        self.name: str | None = None
        self.keys: Sequence[Any] | None = None
        self.cell: Cell | None = None
        self.span: Span | None = None
        self._scope: Token[Context] | None = None
        self._token: Token[Call | None] | None = None
        try:
            if operation.batch is not None:
                batch = operation.batch.of(args, kwargs)
                partition: Any = partition_of(batch)
                keys: Any = keys_of(batch)
                if partition is None and operation.partition is not None:
                    partition = operation.partition.of(args, kwargs)
            else:
                where = operation.partition
                if where is None:
                    partition = None
                elif where.position < len(args):  # Argument.of without the call
                    partition = args[where.position]
                else:
                    partition = where.of(args, kwargs)
                where = operation.keys
                if where is None:
                    keys = None
                elif where.position < len(args):
                    keys = args[where.position]
                else:
                    keys = where.of(args, kwargs)
            if type(keys) is list or type(keys) is tuple:
                self.keys = keys
                self.n_keys = len(keys)
            elif keys is not None:
                self.n_keys = count_keys(keys)
                self.keys = (keys,) if isinstance(keys, str) else None
            else:
                self.all_keys = True
            outer = _current.get()
            if outer is not None and outer.active:
                self.nested = True
                tally = recorder.nested_tally
            else:
                tally = recorder.tally
            cell = tally.seen[operation.name].get(partition) if partition is None or type(partition) is str else None
            if cell is not None:
                self.name = partition
            else:
                self.name = partition_name(partition)
                cell = tally.success(operation, self.name)
            self.cell = cell
            if (recorder.own_providers or sdk_configured()) and not self.nested:
                self.metered = recorder.instruments.live()
                span = recorder.tracer.start_span(cell.span_name, None, cell.span_kind, cell.span_attributes)
                if span.is_recording():
                    self.span = span
                if recorder.propagate and operation.effect == "write" and span.get_span_context().is_valid:
                    self._write_traceparent(span)
        except Exception as error:
            recorder.failed(error)
        self._token = _current.set(self)
        if self.span is not None:
            self._attach(self.span)
        self.started = perf_counter_ns()

    def enter(self) -> None:
        """Make this, again, the call that the current thread or task is inside of."""
        self._token = _current.set(self)
        if self.span is not None:
            self._attach(self.span)

    def leave(self) -> None:
        """Undo that."""
        try:
            if self._token is not None:
                _current.reset(self._token)
                self._token = None
            if self._scope is not None:
                otel_context.detach(self._scope)
                self._scope = None
        except Exception as error:
            self.recorder.failed(error)

    def succeed(self, result: object) -> None:
        """Record that the call returned *result*."""
        elapsed = perf_counter_ns() - self.started
        effect = EFFECTS[self.operation.effect]
        if effect is not None:
            try:
                effect(self, result)
            except Exception as error:
                self.recorder.failed(error)
        self._close(elapsed, self.cell, None)

    def fail(self, error: BaseException) -> None:
        """Record that the call raised *error*."""
        elapsed = perf_counter_ns() - self.started
        kind = OTHER_ERROR_TYPE
        recorder = self.recorder
        try:
            kind = _error_kind(error, self.operation)
            if self.span is not None:
                self.span.set_attribute("error.type", kind)
                self.span.set_status(StatusCode.ERROR)
                self.span.record_exception(error)
        except Exception as failure:
            recorder.failed(failure)
        tally = recorder.nested_tally if self.nested else recorder.tally
        self._close(elapsed, tally.failure(self.operation, self.name, kind), kind)

    def _attach(self, span: Span) -> None:
        # Only one that records is made current: what another would tell spans inside of it, they find out themselves.
        try:
            self._scope = otel_context.attach(trace.set_span_in_context(span))
        except Exception as error:
            self.recorder.failed(error)

    def _write_traceparent(self, span: Span) -> None:
        operation = self.operation
        tags = operation.tags
        if tags is None:
            return
        before = tags.of(self.args, self.kwargs)
        fields = operation.fields
        if before is None and (fields is None or fields.of(self.args, self.kwargs) is None):
            return  # a put of nothing, which the call refuses: tags of ours would make it a write
        after = stamp(before, 0 if operation.one_tag else self.n_keys, traceparent(span))
        if after is not before:
            self.args, self.kwargs = tags.replace(self.args, self.kwargs, after)

    def _close(self, elapsed: int, cell: Cell | None, kind: str | None) -> None:
        recorder = self.recorder
        self.active = False
        if cell is not None:
            cell.add(elapsed, self.n_keys, self.n_bytes, self.misses)
            if self.metered:
                try:
                    recorder.record_duration(elapsed / 1e9, cell.attributes)
                except Exception as error:
                    recorder.failed(error)
        if self.span is not None:
            try:
                if self.operation.direction is not None:
                    self.span.set_attribute("messaging.batch.message_count", self.n_keys)
                self.span.end()
            except Exception as error:
                recorder.failed(error)
        try:  # as :meth:`leave` does
            if self._token is not None:
                _current.reset(self._token)
            if self._scope is not None:
                otel_context.detach(self._scope)
        except Exception as error:
            recorder.failed(error)
        if recorder.on_event is not None:
            try:
                recorder.on_event(self._event(elapsed, kind))
            except Exception as error:
                recorder.failed(error)

    def _event(self, elapsed: int, kind: str | None) -> Event:
        return {
            "op": self.operation.event,
            "partition_id": self.name,
            "n_keys": self.n_keys,
            "n_bytes": self.n_bytes,
            "wall_ms": elapsed / 1e6,
            "status": "ok" if kind is None else "timeout" if kind == DataPlaneTimeout.__name__ else "error",
            "error_type": kind,
        }


def _error_kind(error: BaseException, operation: Operation) -> str:
    """Return the ``error.type`` of *error*: of what it would be translated to where it is not ours."""
    if isinstance(error, DataPlaneError):
        return error_type(error)
    if not isinstance(error, Exception):
        return OTHER_ERROR_TYPE
    return error_type(error_class(error, operation.name, operation.default_error))
