"""The base class of the sources: a span and a duration per poll, a span per call, failures as values."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Generic, NamedTuple, TypeVar

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from dataplane import semconv
from dataplane.adapters.wire import ReplyLimitExceeded
from dataplane.errors import DataPlaneError, error_type
from exporter.clock import Clock
from exporter.model.results import Failed, Ok, Result
from exporter.model.state import State

__all__ = ["Next", "Source", "exceeded"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Next(NamedTuple):
    """When to poll again, and what the poll showed about the controller.

    Attributes:
        interval_s: Seconds from the start of one poll to that of the next, infinite when none is due.
        why: Why the interval is longer than configured, empty when it is not.
        alive: Whether the controller has shown that it is alive. False requests a look-up; None means unknown.
    """

    interval_s: float
    why: str = ""
    alive: bool | None = None


class Source(ABC, Generic[T]):
    """One kind of request to the data plane, and how its answer changes the state.

    Args:
        tracer: Makes the spans.
        clock: Measures durations.

    Attributes:
        name: Its name: the label ``source``.
        operation: The operation of failures whose error names none.
        interval_s: Seconds between two polls as configured, infinite when it is polled on demand.
        awaited: Whether readiness waits for its first poll.
    """

    name: ClassVar[str]
    operation: ClassVar[str]
    awaited: ClassVar[bool] = False
    interval_s: float

    def __init__(self, *, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock

    def poll(self) -> Result[T]:
        """Ask once, on the source's own thread. Blocks for at most its deadline; never raises."""
        started = self._clock.monotonic()
        with self._tracer.start_as_current_span(
            "tq_exporter.poll",
            attributes={"tq_exporter.source": self.name},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                value = self._ask()
            except DataPlaneError as error:
                _mark_failed(span, error)
                took = self._clock.monotonic() - started
                return Failed(error.operation or self.operation, error_type(error), str(error), took, exceeded(error))
            except Exception as error:  # our bug must not end the exporter: it is logged and counted
                logger.exception("the %s poll failed with an unexpected error", self.name)
                _mark_failed(span, error)
                detail = f"{type(error).__name__}: {error}"
                return Failed(self.operation, error_type(error), detail, self._clock.monotonic() - started)
        return Ok(value, self._clock.monotonic() - started)

    @abstractmethod
    def _ask(self) -> T:
        """Ask once; an exception becomes a failed poll."""

    @abstractmethod
    def fold(self, result: Result[T], state: State) -> Next:
        """Apply the result of :meth:`poll` to *state*. Called under the poller's lock, so it must be quick."""

    @contextmanager
    def _call(self, partition: str | None = None, operation: str | None = None) -> Iterator[None]:
        """Wrap one call to the data plane in a client span, named by the messaging conventions."""
        operation = operation or self.operation
        attributes = {semconv.MESSAGING_SYSTEM: semconv.TRANSFER_QUEUE, semconv.MESSAGING_OPERATION_NAME: operation}
        name = operation
        if partition is not None:
            attributes[semconv.MESSAGING_DESTINATION_NAME] = partition
            name = f"{operation} {partition}"
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                _mark_failed(span, error)
                raise


def exceeded(error: BaseException) -> str | None:
    """Return the limit that the refused reply exceeded, None when *error* has another cause."""
    return error.limit if isinstance(error, ReplyLimitExceeded) else None


def _mark_failed(span: Span, error: BaseException) -> None:
    """Record *error* on *span* by the conventions: ``error.type``, an error status, an exception event."""
    span.set_attribute(semconv.ERROR_TYPE, error_type(error))
    span.set_status(Status(StatusCode.ERROR, str(error)))
    span.record_exception(error)
