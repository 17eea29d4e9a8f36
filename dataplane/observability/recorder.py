"""Records calls: the one place that turns a call and its outcome into a span, metrics and an event.

The wrapper and the instrumentor tell it when a call begins and how it ends. Nothing here raises: a failure of telemetry
is logged once and counted, and the call goes on as if it were not observed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from asyncio import CancelledError
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, StatusCode, TracerProvider

from dataplane.environment import SPANS_VARIABLE, switch
from dataplane.errors import OTHER_ERROR_TYPE, DataPlaneError, error_type
from dataplane.errors.translation import error_class
from dataplane.observability import row_tags
from dataplane.observability.call import Call, Event, current
from dataplane.observability.effects import EFFECTS, Memory
from dataplane.observability.instruments import (
    SCOPE,
    Instruments,
    instruments_for,
    reset_after_fork,
    scope_version,
    sdk_configured,
)
from dataplane.observability.server import server_attributes
from dataplane.observability.tally import Cell, Tally, partition_name
from dataplane.observability.trace_context import stamp, tells_version, traceparent
from dataplane.operations import Operation
from dataplane.semconv import ERROR_TYPE, MESSAGING_BATCH_MESSAGE_COUNT, SCHEMA_URL

__all__ = ["CallRecorder", "Observer"]

Observer = Callable[[Event], object]

_SUPPRESSED: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY

_logger = logging.getLogger("dataplane.observability")


class CallRecorder:
    """Records the calls of one client.

    Attributes:
        memory: What the client remembers of its calls.
        tally: The counts of its calls.
        nested_tally: The counts of its calls that another client's observed call makes. They are in this client's
            snapshot; the metrics count the outer call instead.
        step_before: The snapshot at the end of the last training step.

    Args:
        on_event: Called with one event per call.
        meter_provider: Where metrics go, None for the global provider.
        tracer_provider: Where spans go, None for the global provider.
        propagate: Whether a put writes its span into the tags.
        spans: Whether calls make spans, None for the environment variable ``TQ_EXPORTER_SPANS``, else yes.
        inner: The client that is observed, None for TransferQueue's functions.
    """

    def __init__(
        self,
        on_event: Observer | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        propagate: bool = False,
        spans: bool | None = None,
        inner: object = None,
    ) -> None:
        self.on_event = on_event
        self.propagate = propagate
        self.spans = spans
        self._inner = inner
        self._own_providers = meter_provider is not None or tracer_provider is not None
        broken: Exception | None = None
        try:
            self.instruments = instruments_for(meter_provider)
        except Exception as error:
            broken, self.instruments = error, Instruments(metrics.NoOpMeterProvider())
        self.record_duration = self.instruments.durations.record
        try:
            if not (switch(SPANS_VARIABLE, default=True) if spans is None else spans):
                tracer_provider = trace.NoOpTracerProvider()
            self.tracer = trace.get_tracer(SCOPE, scope_version(), tracer_provider, SCHEMA_URL)
        except Exception as error:
            broken, self.tracer = error, trace.NoOpTracer()
        self.memory = Memory()
        self.tally = Tally(self.instruments.labels)
        self.tally.take_lags = self.memory.lineage.take_lags
        self.nested_tally = Tally(self.instruments.labels)
        self.step_before: dict[str, Any] = {}
        self.instruments.feed(self, self.tally)
        if broken is not None:
            self._failed(broken)
        _recorders.add(self)

    def begin(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Begin a call and enter it. It ends with one of :meth:`succeed` and :meth:`fail`."""
        call = Call(operation, args, kwargs)
        try:
            partition = call.read_arguments()
            outer = current.get()
            nested = outer is not None and outer.active
            context = None
            if not nested and (self._own_providers or sdk_configured()):
                context = otel_context.get_current()
                # An instrumentation around this one may say that it covers everything inside of it.
                nested = context.get(_SUPPRESSED) is True
            call.nested = nested
            tally = self.nested_tally if nested else self.tally
            cell = tally.seen[operation.name].get(partition) if partition is None or type(partition) is str else None
            if cell is not None:
                call.name = partition
            else:
                call.name = partition_name(partition)
                cell = tally.success(operation, call.name)
            call.cell = cell
            if not row_tags.watching and context is not None and operation.effect in ("read", "clear"):
                row_tags.watch()
            if context is not None and not nested:
                call.metered = self.instruments.live()
                call.context = context  # OpenTelemetry would look it up again for each of its own calls
                span = self.tracer.start_span(cell.span_name, context, cell.span_kind, cell.span_attributes)
                if span.is_recording():
                    call.span = span
                    call.context = None
                    span.set_attributes(server_attributes(self._inner))
                if self.propagate and operation.effect == "write" and span.get_span_context().is_valid:
                    self._write_traceparent(call, span)
        except Exception as error:
            self._failed(error)
        call.token = current.set(call)  # as :meth:`enter` does
        if call.span is not None:
            self._attach(call, call.span)
        call.started = perf_counter_ns()
        return call

    def enter(self, call: Call) -> None:
        """Make *call* the one that the current thread or task is inside of, and its span the current one."""
        call.token = current.set(call)
        if call.span is not None:
            self._attach(call, call.span)

    def leave(self, call: Call) -> None:
        """Detach *call* from the current context; the inverse of :meth:`enter`."""
        try:
            if call.token is not None:
                current.reset(call.token)
                call.token = None
            if call.scope is not None:
                otel_context.detach(call.scope)
                call.scope = None
        except ValueError:  # a coroutine that is closed in another context than it ran in, as when its loop is gone
            pass
        except Exception as error:
            self._failed(error)

    def succeed(self, call: Call, result: object) -> None:
        """Record that *call* returned *result*."""
        elapsed = perf_counter_ns() - call.started
        effect = EFFECTS[call.operation.effect]
        if effect is not None:
            try:
                effect(call, result, self.memory)
            except Exception as error:
                self._failed(error)
        self._end(call, elapsed, call.cell, None)

    def fail(self, call: Call, error: BaseException) -> None:
        """Record that *call* raised *error*."""
        elapsed = perf_counter_ns() - call.started
        if isinstance(error, CancelledError | GeneratorExit):  # the caller has changed its mind, nothing is wrong
            self._end(call, elapsed, call.cell, None, cancelled=True)
            return
        kind = OTHER_ERROR_TYPE
        try:
            kind = _error_kind(error, call.operation)
            if call.span is not None:
                call.span.set_attribute(ERROR_TYPE, kind)
                call.span.set_status(StatusCode.ERROR)
                call.span.record_exception(error)
        except Exception as failure:
            self._failed(failure)
        tally = self.nested_tally if call.nested else self.tally
        self._end(call, elapsed, tally.failure(call.operation, call.name, kind), kind)

    def reset(self) -> None:
        """Start from nothing, as a forked child does."""
        self.tally.reset()
        self.nested_tally.reset()
        self.memory.reset()
        self.step_before = {}

    def _attach(self, call: Call, span: Span) -> None:
        # Only a span that is recorded is made current: any other changes nothing for the spans inside of it.
        try:
            call.scope = otel_context.attach(trace.set_span_in_context(span))
        except Exception as error:
            self._failed(error)

    def _end(self, call: Call, elapsed: int, cell: Cell | None, kind: str | None, *, cancelled: bool = False) -> None:
        call.active = False
        if cell is not None:
            if cancelled:
                cell.add(elapsed, 0, 0)
                cell.cancel()
            else:
                cell.add(elapsed, call.n_keys, call.n_bytes)
            if call.metered:
                try:
                    self.record_duration(elapsed / 1e9, cell.attributes, call.context)
                except Exception as error:
                    self._failed(error)
        if call.span is not None:
            try:
                if call.operation.effect is not None:
                    call.span.set_attribute(MESSAGING_BATCH_MESSAGE_COUNT, call.n_keys)
                call.span.end()
            except Exception as error:
                self._failed(error)
        try:  # as :meth:`leave` does
            if call.token is not None:
                current.reset(call.token)
            if call.scope is not None:
                otel_context.detach(call.scope)
        except ValueError:
            pass
        except Exception as error:
            self._failed(error)
        if self.on_event is not None:
            try:
                self.on_event(call.event(elapsed, kind, cancelled=cancelled))
            except Exception as error:
                self._failed(error)

    def _write_traceparent(self, call: Call, span: Span) -> None:
        """Add *span* to the tags of a put, except to rows that are known and of which the put tells no version.

        Such a put adds fields to the rows of another producer, whose span stays.
        """
        operation, keys = call.operation, call.keys
        where = operation.tags
        if where is None:
            return
        tags = where.of(call.args, call.kwargs)
        if tags is None:
            fields = operation.fields
            if fields is None or fields.of(call.args, call.kwargs) is None:
                return  # a put of nothing, which the client refuses: with our tags it would be a write
            tags = {} if operation.one_tag else [{} for _ in range(call.n_keys)]
        after = stamp(tags, traceparent(span))
        if keys and not tells_version(tags):
            unknown = self.memory.lineage.unknown(call.name or "", keys)
            if not any(unknown):
                return
            if type(after) is list and type(tags) is list and len(after) == len(unknown):
                after = [mine if new else its for new, mine, its in zip(unknown, after, tags, strict=True)]
        if after is not tags:
            call.given_tags = tags
            call.args, call.kwargs = where.replace(call.args, call.kwargs, after)

    def _failed(self, error: BaseException) -> None:
        """Note that telemetry itself failed: the first time in the log, always in the count."""
        if self.tally.observer_failed() == 0:
            with contextlib.suppress(Exception):  # there is nowhere to report a log handler that fails
                _logger.warning(
                    "Observing a data plane call failed; the call is not affected. Further failures are counted.",
                    exc_info=error,
                )


def _error_kind(error: BaseException, operation: Operation) -> str:
    """Return the ``error.type`` of *error*; of an error that is not ours, that of its translation."""
    if isinstance(error, DataPlaneError):
        return error_type(error)
    if not isinstance(error, Exception):
        return OTHER_ERROR_TYPE
    return error_type(error_class(error, operation.name, operation.default_error))


_recorders: weakref.WeakSet[CallRecorder] = weakref.WeakSet()


def _after_fork() -> None:
    reset_after_fork()
    for recorder in _recorders:
        recorder.reset()


os.register_at_fork(after_in_child=_after_fork)
