"""What every source shares: a span and a duration per poll, a span per call, failures as values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from dataplane.adapters.wire import ReplyLimitExceeded
from dataplane.errors import DataPlaneError, error_type
from exporter.clock import Clock
from exporter.model.results import Failed, Ok, Result
from exporter.model.snapshot import SourceName

__all__ = ["call_span", "exceeded", "poll"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def poll(source: SourceName, operation: str, ask: Callable[[], T], *, tracer: Tracer, clock: Clock) -> Result[T]:
    """Run *ask* as one poll of *source*: timed, in a span, its exception turned into :class:`Failed`.

    Args:
        source: The source that is polled.
        operation: What a failure is attributed to when the error names no operation of its own.
        ask: The poll's work.
        tracer: Makes the span ``tq_exporter.poll``.
        clock: Measures the duration.
    """
    started = clock.monotonic()
    with tracer.start_as_current_span(
        "tq_exporter.poll",
        attributes={"tq_exporter.source": source},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            value = ask()
        except DataPlaneError as error:
            mark_failed(span, error)
            took = clock.monotonic() - started
            return Failed(error.operation or operation, error_type(error), str(error), took, exceeded(error))
        except Exception as error:  # a defect of ours must not end the exporter; it is logged in full and counted
            logger.exception("the %s poll failed in a way that it should not", source)
            mark_failed(span, error)
            detail = f"{type(error).__name__}: {error}"
            return Failed(operation, error_type(error), detail, clock.monotonic() - started)
    return Ok(value, clock.monotonic() - started)


@contextmanager
def call_span(tracer: Tracer, operation: str, partition: str | None = None) -> Iterator[None]:
    """Wrap one call to the data plane in a client span named after the messaging conventions."""
    attributes = {"messaging.system": "transfer_queue", "messaging.operation.name": operation}
    name = operation
    if partition is not None:
        attributes["messaging.destination.name"] = partition
        name = f"{operation} {partition}"
    with tracer.start_as_current_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except Exception as error:
            mark_failed(span, error)
            raise


def exceeded(error: BaseException) -> str | None:
    """Return which limit the reply exceeds that *error* is about, None when it is about something else."""
    return error.limit if isinstance(error, ReplyLimitExceeded) else None


def mark_failed(span: Span, error: BaseException) -> None:
    """Record *error* on *span* as the conventions ask for: ``error.type``, an error status, an exception event."""
    span.set_attribute("error.type", error_type(error))
    span.set_status(Status(StatusCode.ERROR, str(error)))
    span.record_exception(error)
