"""One observed call, from its arguments to its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, StatusCode

from dataplane._backlog import KEY_TYPES
from dataplane._instruments import tracing_configured
from dataplane._lineage import Origin, linkable
from dataplane._operations import Effect, Operation, keys_of, partition_of, tags_of
from dataplane._payload import count_bytes, count_keys
from dataplane._tags import contexts_of, stamp, traceparent, versions_of
from dataplane._tally import Cell, partition_name
from dataplane._translation import error_class
from dataplane.errors import OTHER_ERROR_TYPE, DataPlaneError, DataPlaneTimeout, error_type
from dataplane.interfaces import RESERVED_PARTITION

if TYPE_CHECKING:
    from dataplane._recorder import Recorder

__all__ = ["Call", "Event", "TrainerVersion", "inside_a_call", "trainer_version"]

Event = dict[str, Any]

# The call that this thread or task is inside of. A call made by an observed call is part of it.
_current: ContextVar[Call | None] = ContextVar("dataplane_call", default=None)


class TrainerVersion:
    """The weight version that this process published last, None before the first."""

    published: int | None = None


trainer_version = TrainerVersion()


def inside_a_call() -> bool:
    """Whether this thread or task is inside of an observed call."""
    outer = _current.get()
    return outer is not None and outer.active


class Call:
    """One observed call. It ends with exactly one of :meth:`succeed` and :meth:`fail`; neither raises.

    Attributes:
        args: The positional arguments to make the call with.
        kwargs: The keyword arguments to make the call with.
        active: Whether the call has not ended yet.
        started: When the call itself began, on the clock ``perf_counter_ns``.
    """

    # Class attributes are what an instance starts with: setting none of them is the quickest.
    active = True
    _nested = False
    _name: str | None = None
    _keys: Sequence[Any] | None = None
    _all_keys = False
    _n_keys = 0
    _n_bytes = 0
    _misses = 0
    _cell: Cell | None = None
    _span: Span | None = None  # only when it records: there is nothing to do for any other
    _scope: Token[Context] | None = None
    _token: Token[Call | None] | None = None
    started = 0

    def __init__(self, recorder: Recorder, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._recorder = recorder
        self._operation = operation
        self.args = args
        self.kwargs = kwargs

    def open(self) -> None:
        """Read the arguments, begin the span, write it into the tags where that is wanted, and start the clock."""
        recorder, operation = self._recorder, self._operation
        try:
            if operation.batch is not None:
                batch = operation.batch.of(self.args, self.kwargs)
                partition: Any = partition_of(batch)
                keys: Any = keys_of(batch)
                if partition is None and operation.partition is not None:
                    partition = operation.partition.of(self.args, self.kwargs)
            else:
                where, args = operation.partition, self.args
                if where is None:
                    partition = None
                elif where.position < len(args):  # Argument.of without the call
                    partition = args[where.position]
                else:
                    partition = where.of(args, self.kwargs)
                where = operation.keys
                if where is None:
                    keys = None
                elif where.position < len(args):
                    keys = args[where.position]
                else:
                    keys = where.of(args, self.kwargs)
            if type(keys) is list or type(keys) is tuple:
                self._keys = keys
                self._n_keys = len(keys)
            elif keys is not None:
                self._n_keys = count_keys(keys)
                self._keys = (keys,) if isinstance(keys, str) else None
            else:
                self._all_keys = True
            outer = _current.get()
            self._nested = outer is not None and outer.active
            tally = recorder.nested_tally if self._nested else recorder.tally
            cell = tally.seen[operation.name].get(partition) if partition is None or type(partition) is str else None
            if cell is not None:
                self._name = partition
            else:
                self._name = partition_name(partition)
                cell = tally.success(operation, self._name)
            self._cell = cell
            if not self._nested and (recorder.own_tracer or tracing_configured()):
                span = recorder.tracer.start_span(cell.span_name, None, cell.span_kind, cell.span_attributes)
                if span.is_recording():
                    self._span = span
                if recorder.propagate and operation.effect == "write" and span.get_span_context().is_valid:
                    self._write_traceparent(span)
        except Exception as error:
            recorder.failed(error)
        self._token = _current.set(self)
        if self._span is not None:
            self._attach()
        self.started = perf_counter_ns()

    def enter(self) -> None:
        """Make this, again, the call that the current thread or task is inside of."""
        self._token = _current.set(self)
        if self._span is not None:
            self._attach()

    def leave(self) -> None:
        """Undo :meth:`enter`."""
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
        if self._scope is not None:
            otel_context.detach(self._scope)
            self._scope = None

    def succeed(self, result: object) -> None:
        """Record that the call returned *result*."""
        elapsed = perf_counter_ns() - self.started
        learn = _LEARN[self._operation.effect]
        if learn is not None:
            try:
                learn(self, result)
            except Exception as error:
                self._recorder.failed(error)
        self._close(elapsed, self._cell, None)

    def fail(self, error: BaseException) -> None:
        """Record that the call raised *error*."""
        elapsed = perf_counter_ns() - self.started
        kind = OTHER_ERROR_TYPE
        recorder = self._recorder
        try:
            kind = _error_kind(error, self._operation)
            if self._span is not None:
                self._span.set_attribute("error.type", kind)
                self._span.set_status(StatusCode.ERROR)
                self._span.record_exception(error)
        except Exception as failure:
            recorder.failed(failure)
        tally = recorder.nested_tally if self._nested else recorder.tally
        self._close(elapsed, tally.failure(self._operation, self._name, kind), kind)

    def _attach(self) -> None:
        # Only a span that records is made current: what it would tell spans inside of it, they find out themselves.
        try:
            self._scope = otel_context.attach(trace.set_span_in_context(self._span or trace.INVALID_SPAN))
        except Exception as error:
            self._recorder.failed(error)

    def _write_traceparent(self, span: Span) -> None:
        operation = self._operation
        tags = operation.tags
        if tags is None:
            return
        before = tags.of(self.args, self.kwargs)
        fields = operation.fields
        if before is None and (fields is None or fields.of(self.args, self.kwargs) is None):
            return  # a put of nothing, which the call refuses: tags of ours would make it a write
        after = stamp(before, 0 if operation.one_tag else self._n_keys, traceparent(span))
        if after is not before:
            self.args, self.kwargs = tags.replace(self.args, self.kwargs, after)

    # What a successful call tells, by its effect.

    def _wrote(self, result: object) -> None:
        operation, recorder, args = self._operation, self._recorder, self.args
        fields = operation.fields
        if fields is not None:
            payload = args[fields.position] if fields.position < len(args) else fields.of(args, self.kwargs)
            if payload is not None:
                self._n_bytes = self._count_bytes(payload)
        keys = self._keys
        if keys is None:  # they could be iterated once, and the call did
            keys = keys_of(result)
            if not keys:
                return
            self._n_keys = len(keys)
        if not keys or type(keys[0]) not in KEY_TYPES:
            return
        keys, name = tuple(keys), self._name or ""
        if name != RESERVED_PARTITION:
            recorder.outstanding.put(name, keys, self._n_bytes)
        span = self._span
        if span is not None or (recorder.instruments.live() and not self._nested):
            # The result's own copies, where there are any: a caller is less likely to change them.
            tags: Any = tags_of(result)
            if not tags and operation.tags is not None:
                tags = operation.tags.of(args, self.kwargs)
            recorder.lineage.wrote(name, keys, tags, None if span is None else span.get_span_context())

    def _count_bytes(self, payload: object) -> int:
        try:
            return count_bytes(payload)
        except Exception as error:  # a sparse tensor has no number of bytes; the rest is still worth noting
            self._recorder.failed(error)
            return 0

    def _claimed(self, result: object) -> None:
        keys = self._keys = keys_of(result)
        self._n_keys = count_keys(keys)
        if keys and self._traced():
            tags = tags_of(result)
            origins: Sequence[Origin] = self._remember(keys, tags) if tags else ()
            if self._span is not None or not origins:  # this process may know more than the tags say
                origins, _ = self._recorder.lineage.find(self._name or "", keys)
                self._link(origins)
            self._measure_lag(origins)

    def _read(self, result: object) -> None:
        self._n_bytes = self._count_bytes(result)
        keys = self._keys
        if keys and self._span is not None:
            operation = self._operation
            if operation.batch is not None:
                tags = tags_of(operation.batch.of(self.args, self.kwargs))
                if tags:
                    self._remember(keys, tags)
            origins, self._misses = self._recorder.lineage.find(self._name or "", keys)
            self._link(origins)

    def _cleared(self, result: object) -> None:
        keys, name = self._keys, self._name or ""
        if keys is not None or self._all_keys:
            self._recorder.outstanding.clear(name, keys)
        if keys and self._operation.consumes and self._traced():
            origins, self._misses = self._recorder.lineage.find(name, keys)
            self._link(origins)
            self._measure_lag(origins)

    def _listed(self, result: Any) -> None:
        lineage = self._recorder.lineage
        if isinstance(result, Mapping):  # TransferQueue's own: partition to key to tag
            for partition, rows in result.items():
                self._n_keys += len(rows)
                if rows and self._traced():
                    tags = list(rows.values())
                    lineage.remember(partition_name(partition) or "", list(rows), versions_of(tags), contexts_of(tags))
            return
        if not isinstance(result, list):  # a foreign client's generator is its caller's to read
            return
        self._n_keys = sum(len(group.keys) for group in result)
        if self._traced():
            lineage.remember_groups(self._name or "", result)

    def _traced(self) -> bool:
        """Whether anybody may look at versions or links, and this call is the one that tells them."""
        return not self._nested and (self._span is not None or self._recorder.instruments.live())

    def _remember(self, keys: Sequence[Any], tags: Sequence[Any]) -> Sequence[Origin]:
        return self._recorder.lineage.remember(self._name or "", keys, versions_of(tags), contexts_of(tags))

    def _link(self, origins: Sequence[Origin]) -> None:
        if self._span is not None:
            for context in linkable(origins):
                self._span.add_link(context)

    def _measure_lag(self, origins: Sequence[Origin]) -> None:
        reference = trainer_version.published
        if reference is None:
            reference = self._recorder.lineage.newest_version()
        if reference is None or self._cell is None:
            return
        for version in {origin.version for origin in origins if origin.version is not None}:
            self._recorder.instruments.lag.record(max(0, reference - version), self._cell.lag_attributes)

    def _close(self, elapsed: int, cell: Cell | None, kind: str | None) -> None:
        recorder = self._recorder
        self.active = False
        if cell is not None:
            cell.add(elapsed, self._n_keys, self._n_bytes, self._misses)
            if not self._nested:
                try:
                    recorder.record_duration(elapsed / 1e9, cell.attributes)
                except Exception as error:
                    recorder.failed(error)
        if self._span is not None:
            try:
                if self._operation.direction is not None:
                    self._span.set_attribute("messaging.batch.message_count", self._n_keys)
                self._span.end()
            except Exception as error:
                recorder.failed(error)
        try:
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
            "op": self._operation.event,
            "partition_id": self._name,
            "n_keys": self._n_keys,
            "n_bytes": self._n_bytes,
            "wall_ms": elapsed / 1e6,
            "status": "ok" if kind is None else "timeout" if kind == DataPlaneTimeout.__name__ else "error",
            "error_type": kind,
        }


_LEARN: Mapping[Effect | None, Callable[[Call, Any], None] | None] = {
    "write": Call._wrote,
    "claim": Call._claimed,
    "read": Call._read,
    "clear": Call._cleared,
    "list": Call._listed,
    None: None,
}


def _error_kind(error: BaseException, operation: Operation) -> str:
    """Return the ``error.type`` of *error*: of what it would be translated to where it is not ours."""
    if isinstance(error, DataPlaneError):
        return error_type(error)
    if not isinstance(error, Exception):
        return OTHER_ERROR_TYPE
    return error_type(error_class(error, operation.name, operation.default_error))
