"""Durations of calls on their way into the SDK's histogram.

Recording one there takes longer than all else that observing a call does. So it waits until a reader collects, whose
thread then records it. A call whose span is recorded does not wait: its exemplar has the time of the call.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram

__all__ = ["Durations"]

_MAX_WAITING: Final = 4096
"""With more, as where nobody collects, durations are recorded at once."""

_NOWHERE: Final = Context()
"""The context of a call without a recorded span: no exemplar shall name a span of the collecting thread."""


class Durations:
    """Records durations in *histogram*, some of them later. Thread-safe."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._record = histogram.record
        self._waiting: deque[tuple[float, dict[str, Any]]] = deque()
        self._may_wait = False

    def record(self, seconds: float, attributes: dict[str, Any], context: Context | None) -> None:
        """Record the duration of a call; *context* is None when its span, which is the current one, is recorded."""
        if context is not None and self._may_wait and len(self._waiting) < _MAX_WAITING:
            self._waiting.append((seconds, attributes))
        else:
            self._record(seconds, attributes, context)

    def catch_up(self) -> None:
        """Record what waits. The SDK's readers call this before they collect; until one has, nothing waits."""
        self._may_wait = True
        for _ in range(len(self._waiting)):
            try:
                seconds, attributes = self._waiting.popleft()
            except IndexError:  # another reader collects at the same time
                return
            self._record(seconds, attributes, _NOWHERE)

    def reset(self) -> None:
        """Forget what waits, as a forked child does: its parent records it."""
        self._waiting.clear()
