"""The base class of the sources: a span and a duration per poll, a span per call, failures as values."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import ClassVar, Generic, NamedTuple, TypeVar

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, Tracer

from dataplane import semconv
from dataplane.adapters.wire import ReplyLimitExceeded
from dataplane.errors import DataPlaneError, error_type
from exporter.catalogue.spans import NOTABLE, POLL
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
        facts: What the poll's span says of it: attribute, without ``tq_exporter.``, to its value.
    """

    interval_s: float
    why: str = ""
    alive: bool | None = None
    facts: Mapping[str, int | float] = MappingProxyType({})


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
        slow_s: A poll that takes longer than this many seconds is slow.
    """

    name: ClassVar[str]
    operation: ClassVar[str]
    awaited: ClassVar[bool] = False
    interval_s: float
    slow_s: float

    def __init__(self, *, tracer: Tracer, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock
        self._span: Span = INVALID_SPAN
        self._failed = False  # whether a call of this poll has failed
        self._last_seen: object = None

    def poll(self, process: Callable[[Result[T]], None] = lambda result: None) -> Result[T]:
        """Ask once, on the source's own thread. Blocks for at most its deadline; never raises by itself.

        Args:
            process: Called with the result while the poll's span lasts.
        """
        with self._tracer.start_as_current_span(
            POLL,
            attributes={"tq_exporter.source": self.name},
            record_exception=False,
            set_status_on_exception=False,
        ) as self._span:
            self._failed = False
            result = self._result()
            process(result)
        return result

    def _result(self) -> Result[T]:
        started = self._clock.monotonic()
        try:
            value = self._ask()
        except DataPlaneError as error:
            _mark_failed(self._span, error)
            took = self._clock.monotonic() - started
            return Failed(error.operation or self.operation, error_type(error), str(error), took, exceeded(error))
        except Exception as error:  # our bug must not end the exporter: it is logged and counted
            logger.exception("the %s poll failed with an unexpected error", self.name)
            _mark_failed(self._span, error)
            detail = f"{type(error).__name__}: {error}"
            return Failed(self.operation, error_type(error), detail, self._clock.monotonic() - started)
        return Ok(value, self._clock.monotonic() - started)

    def describe(self, result: Result[T], following: Next, state: State) -> None:
        """Say on the span of the poll what it found, and why it is notable if it is. Called after :meth:`fold`."""
        lifecycle = state.lifecycle
        failed = isinstance(result, Failed) or self._failed
        seen = (failed, lifecycle.discovery, lifecycle.up, lifecycle.generation)
        changed, self._last_seen = seen != self._last_seen, seen
        if not self._span.is_recording():
            return
        self._span.set_attributes({f"tq_exporter.{name}": value for name, value in following.facts.items()})
        self._span.set_attribute("tq_exporter.discovery", lifecycle.discovery)
        if failed:
            self._span.set_attribute(NOTABLE, "failed")
        elif result.took > self.slow_s:
            self._span.set_attribute(NOTABLE, "slow")
        elif changed:
            self._span.set_attribute(NOTABLE, "changed")

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
                self._failed = True
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
