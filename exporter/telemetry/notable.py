"""Keeps the traces of polls that tell something: a decision that is made when a trace is complete."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from exporter.catalogue.spans import NOTABLE

__all__ = ["NotableTraces"]

_MAX_TRACES: Final = 64
_MAX_SPANS: Final = 2048
"""Of one trace. The batch processor's queue is no longer by default."""


class NotableTraces(SpanProcessor):
    """Passes on the spans of traces whose root has the attribute :data:`NOTABLE`, and drops the others.

    The root of a poll ends last, after its calls. At most 2048 spans of 64 traces are kept until then.

    Args:
        inner: Gets the spans of notable traces, the root last.
    """

    def __init__(self, inner: SpanProcessor) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._waiting: OrderedDict[int, list[ReadableSpan]] = OrderedDict()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See :meth:`SpanProcessor.on_start`."""

    def on_end(self, span: ReadableSpan) -> None:
        """See :meth:`SpanProcessor.on_end`."""
        trace_id = span.context.trace_id
        with self._lock:
            if span.parent is not None:
                calls = self._waiting.setdefault(trace_id, [])
                if len(calls) < _MAX_SPANS:
                    calls.append(span)
                while len(self._waiting) > _MAX_TRACES:
                    self._waiting.popitem(last=False)
                return
            calls = self._waiting.pop(trace_id, [])
        if NOTABLE in (span.attributes or {}):
            for one in (*calls, span):
                self._inner.on_end(one)

    def shutdown(self) -> None:
        """See :meth:`SpanProcessor.shutdown`."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See :meth:`SpanProcessor.force_flush`."""
        return self._inner.force_flush(timeout_millis)
