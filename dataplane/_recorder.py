"""Records calls: the one place that turns a call and its outcome into a span, metrics and an event.

Whoever makes the call (the wrapper, the instrumentor) asks :meth:`Recorder.start` for a :class:`Call` before it
and tells the call how it ended. Nothing here raises: a failure of telemetry is logged once, counted, and the
call goes on as if nobody had looked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from importlib import import_module
from time import perf_counter_ns
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanContext, StatusCode, TracerProvider

from dataplane._instruments import SCOPE, Instruments, instruments_for, reset_after_fork, scope_version
from dataplane._lineage import Lineage, Origin, contexts_of, linkable, stamp, traceparent, versions_of
from dataplane._operations import Argument, Operation, keys_of, partition_of, tags_of
from dataplane._outstanding import Outstanding
from dataplane._payload import count_bytes, count_keys
from dataplane._tally import Cell, Tally, partition_name
from dataplane.errors import OTHER_ERROR_TYPE, DataPlaneError, DataPlaneTimeout, error_type
from dataplane.interfaces import RESERVED_PARTITION

__all__ = ["Call", "Event", "Observer", "Recorder", "TrainerVersion", "trainer_version"]

Event = dict[str, Any]
Observer = Callable[[Event], object]

_logger = logging.getLogger("dataplane.observability")

# The call that this thread or task is inside of. A call made by an observed call is part of it.
_current: ContextVar[Call | None] = ContextVar("dataplane_call", default=None)


class TrainerVersion:
    """The weight version that this process published last, None before the first."""

    published: int | None = None


trainer_version = TrainerVersion()


class Recorder:
    """Records the calls of one client.

    Args:
        on_event: Called with one event per call.
        meter_provider: Where metrics go, None for the global provider.
        tracer_provider: Where spans go, None for the global provider.
        propagate: Whether a put writes its span into the tags.
    """

    def __init__(
        self,
        on_event: Observer | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        propagate: bool = False,
    ) -> None:
        self.on_event = on_event
        self.propagate = propagate
        self.outstanding = Outstanding()
        self.lineage = Lineage()
        broken: Exception | None = None
        try:
            self.instruments = instruments_for(meter_provider)
        except Exception as error:
            broken, self.instruments = error, Instruments(metrics.NoOpMeterProvider())
        try:
            self.tracer = trace.get_tracer(SCOPE, scope_version(), tracer_provider)
        except Exception as error:
            broken, self.tracer = error, trace.NoOpTracer()
        self.tally = Tally(self.instruments.labels)
        # Calls inside another client's observed call: in this client's snapshot, and counted by the outer one.
        self.nested_tally = Tally(self.instruments.labels)
        self.instruments.feed(self, self.tally)
        if broken is not None:
            self.failed(broken)
        _recorders.add(self)

    def start(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Begin to observe a call with these arguments; make it with the call's ``args`` and ``kwargs``."""
        call = Call(self, operation, args, kwargs)
        try:
            call.open()
        except Exception as error:
            self.failed(error)
        try:
            call.enter()
        except Exception as error:
            self.failed(error)
        call.started = perf_counter_ns()
        return call

    def failed(self, error: BaseException) -> None:
        """Note that telemetry itself failed: the first time in the log, always in the count."""
        if self.tally.observer_failed() == 0:
            with contextlib.suppress(Exception):  # a log handler that fails has nowhere to say so
                _logger.warning(
                    "Observing a data plane call failed; calls go on. Further failures are only counted.",
                    exc_info=error,
                )

    def reset(self) -> None:
        """Start from nothing in a forked child, keeping what is known of keys."""
        self.tally.reset()
        self.nested_tally.reset()
        self.outstanding.reset()
        self.lineage.reset()


class Call:
    """One observed call. It ends with exactly one of :meth:`succeed` and :meth:`fail`."""

    __slots__ = (
        "_cell",
        "_keys",
        "_misses",
        "_n_bytes",
        "_n_keys",
        "_name",
        "_operation",
        "_outer",
        "_recorder",
        "_scope",
        "_span",
        "_token",
        "active",
        "args",
        "kwargs",
        "started",
    )

    def __init__(self, recorder: Recorder, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        self.active = True
        self.started = 0
        self._recorder = recorder
        self._operation = operation
        self._outer: Call | None = None
        self._name: str | None = None
        self._keys: object = None
        self._n_keys = self._n_bytes = self._misses = 0
        self._cell: Cell | None = None
        self._span: Span = trace.INVALID_SPAN
        self._scope: Token[Context] | None = None
        self._token: Token[Call | None] | None = None

    def open(self) -> None:
        """Read the arguments, begin the span and write it into the tags where that is wanted."""
        recorder, operation = self._recorder, self._operation
        outer = _current.get()
        if outer is not None and outer.active:
            self._outer = outer
        if operation.meta is not None:
            batch = operation.meta.of(self.args, self.kwargs)
            partition, self._keys = partition_of(batch), keys_of(batch)
        else:
            partition = operation.partition and operation.partition.of(self.args, self.kwargs)
            self._keys = operation.keys and operation.keys.of(self.args, self.kwargs)
        self._n_keys = count_keys(self._keys)
        self._name = partition_name(partition)
        cell = self._cell = self._tally.success(operation, self._name)
        if self._outer is not None:
            return
        self._span = recorder.tracer.start_span(cell.span_name, None, operation.kind, cell.span_attributes)
        if recorder.propagate and operation.tags is not None:
            self._propagate(operation.tags)

    def enter(self) -> None:
        """Make this the call, and its span the span, that the current thread or task is inside of."""
        self._token = _current.set(self)
        if self._span.get_span_context().is_valid:
            self._scope = otel_context.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        """Undo :meth:`enter`: for a coroutine, which enters again when it runs."""
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
        if self._scope is not None:
            otel_context.detach(self._scope)
            self._scope = None

    def succeed(self, result: object) -> None:
        """Record that the call returned *result*."""
        elapsed = perf_counter_ns() - self.started
        try:
            self._learn(result)
        except Exception as error:
            self._recorder.failed(error)
        self._close(elapsed, None)

    def fail(self, error: BaseException) -> None:
        """Record that the call raised *error*."""
        elapsed = perf_counter_ns() - self.started
        kind = OTHER_ERROR_TYPE
        try:
            kind = _error_kind(error, self._operation)
            if self._span.is_recording():
                self._span.set_attribute("error.type", kind)
                self._span.set_status(StatusCode.ERROR)
                self._span.record_exception(error)
        except Exception as failure:
            self._recorder.failed(failure)
        self._close(elapsed, kind)

    @property
    def _tally(self) -> Tally:
        return self._recorder.tally if self._outer is None else self._recorder.nested_tally

    def _propagate(self, tags: Argument) -> None:
        text = traceparent(self._span)
        before = tags.of(self.args, self.kwargs)
        after = before if text is None else stamp(before, self._keys, text)
        if after is not before:
            self.args, self.kwargs = tags.replace(self.args, self.kwargs, after)

    def _learn(self, result: object) -> None:
        """Take in what a successful call tells of keys and bytes."""
        recorder, operation = self._recorder, self._operation
        partition = self._name or ""
        if operation.result == "groups":
            groups: Any = result
            self._n_keys = sum(len(group.keys) for group in groups)
        elif operation.result == "batch" or (operation.direction == "write" and type(self._keys) is not list):
            self._keys = keys_of(result) or self._keys
            self._n_keys = count_keys(self._keys)
        if operation.fields is not None:
            self._n_bytes = count_bytes(operation.fields.of(self.args, self.kwargs))
        elif operation.result == "data":
            self._n_bytes = count_bytes(result)
        keys = _as_sequence(self._keys)
        if operation.direction == "write":
            if keys is not None and partition != RESERVED_PARTITION:
                recorder.outstanding.put(partition, keys, self._n_bytes)
        elif operation.direction == "clear" and (keys is not None or self._keys is None):
            recorder.outstanding.clear(partition, keys)
        recording = self._span.is_recording()
        if self._outer is None and (recording or recorder.instruments.live(self.started)):
            self._trace(result, partition, keys or (), recording)

    def _trace(self, result: object, partition: str, keys: Sequence[Any], recording: bool) -> None:
        """Remember where keys came from, link to their producers and measure their version lag."""
        lineage, operation = self._recorder.lineage, self._operation
        origins: list[Origin] = []
        if operation.tags is not None:
            tags = operation.tags.of(self.args, self.kwargs)
            versions = versions_of(tags) if type(tags) is list and tags else [None]
            lineage.remember(partition, keys, versions, [self._span.get_span_context() if recording else None])
        elif operation.result == "groups":
            lineage.remember_groups(partition, result)
        elif operation.result == "batch":
            origins = lineage.remember(partition, keys, *_told(tags_of(result)))
        elif operation.lag or (operation.links and recording):
            if operation.meta is not None:
                lineage.remember(partition, keys, *_told(tags_of(operation.meta.of(self.args, self.kwargs))))
            origins, self._misses = lineage.find(partition, keys)
        if recording and operation.links:
            for context in linkable(origins):
                self._span.add_link(context)
        if operation.lag:
            self._measure_lag(origins)

    def _measure_lag(self, origins: Sequence[Origin]) -> None:
        reference = trainer_version.published
        if reference is None:
            reference = self._recorder.lineage.newest_version
        if reference is None or self._cell is None:
            return
        for version in {origin.version for origin in origins if origin.version is not None}:
            self._recorder.instruments.lag.record(max(0, reference - version), self._cell.lag_attributes)

    def _close(self, elapsed: int, kind: str | None) -> None:
        recorder, operation = self._recorder, self._operation
        self.active = False
        cell = self._cell if kind is None else self._tally.failure(operation, self._name, kind)
        if cell is None:
            cell = self._tally.success(operation, self._name)
        cell.add(elapsed, self._n_keys, self._n_bytes, self._misses)
        if self._outer is None:
            try:
                recorder.instruments.duration.record(elapsed / 1e9, cell.attributes)
            except Exception as error:
                recorder.failed(error)
        try:
            if self._span.is_recording():
                if operation.direction is not None:
                    self._span.set_attribute("messaging.batch.message_count", self._n_keys)
                self._span.end()
        except Exception as error:
            recorder.failed(error)
        try:
            self.leave()
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


def _as_sequence(keys: object) -> Sequence[Any] | None:
    if type(keys) is list or type(keys) is tuple:
        return keys
    return (keys,) if isinstance(keys, str) else None


def _told(tags: Sequence[Any]) -> tuple[Sequence[int | None], Sequence[SpanContext | None]]:
    return (versions_of(tags), contexts_of(tags)) if tags else ((None,), (None,))


def _error_kind(error: BaseException, operation: Operation) -> str:
    """Return the ``error.type`` of *error*: of what it would be translated to where it is not ours."""
    if isinstance(error, DataPlaneError):
        return error_type(error)
    if not isinstance(error, Exception):
        return OTHER_ERROR_TYPE
    # By name, since the adapters stand beside this module; it is needed only where a foreign client fails.
    table = import_module("dataplane.adapters._tq_errors")
    return error_type(table.error_class(error, operation.name, operation.default_error))


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork() -> None:
    reset_after_fork()
    for recorder in _recorders:
        recorder.reset()


os.register_at_fork(after_in_child=_after_fork)
