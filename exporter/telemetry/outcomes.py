"""Outcomes of pushes: every one is counted, few are logged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from exporter.clock import Clock
from exporter.logs import mask
from exporter.telemetry.instruments import Outcome, Signal
from exporter.telemetry.targets import PushTarget

__all__ = ["ExportLog", "Outcomes"]

logger = logging.getLogger(__name__)

_REMIND_S: Final = 300.0
_SDK_LOGGER: Final = "opentelemetry.exporter.otlp"
_MAX_LINES: Final = 2
_MAX_REASON: Final = 300


class ExportLog(logging.Handler):
    """Collects the lines that the SDK logs about a failed push, two to four each, as the reason of the failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._reasons: dict[int, list[str]] = {}

    def install(self) -> None:
        """Redirect the SDK's lines to this handler, so that they no longer reach the log."""
        sdk = logging.getLogger(_SDK_LOGGER)
        sdk.propagate = False
        sdk.addHandler(self)

    def remove(self) -> None:
        """Stop redirecting, unless another handler of this class is still installed."""
        sdk = logging.getLogger(_SDK_LOGGER)
        sdk.removeHandler(self)
        sdk.propagate = not any(isinstance(handler, ExportLog) for handler in sdk.handlers)

    def emit(self, record: logging.LogRecord) -> None:
        """See :meth:`logging.Handler.emit`."""
        line = mask(" ".join(record.getMessage().split()))[:_MAX_REASON]
        lines = self._reasons.setdefault(record.thread or 0, [])
        if len(lines) < _MAX_LINES:
            lines.append(line)

    def take_reason(self) -> str:
        """Return what the SDK logged in this thread since the last call, and forget it."""
        return " ".join(self._reasons.pop(threading.get_ident(), ())) or "no reason given"


class Outcomes:
    """Counts the pushes of one signal and logs the first failure, one reminder in five minutes, and the recovery.

    Args:
        target: The signal and its receiver.
        count: Counts a push.
        reasons: The SDK's log lines about failures.
        clock: Spaces the reminders.
    """

    def __init__(
        self, target: PushTarget, count: Callable[[Signal, Outcome], None], reasons: ExportLog, clock: Clock
    ) -> None:
        self._signal: Signal = target.signal
        self._receiver = target.receiver
        self._count = count
        self._reasons = reasons
        self._clock = clock
        self._failures = 0
        self._logged_at = 0.0

    def ok(self) -> None:
        """Note a push that arrived."""
        self._count(self._signal, "ok")
        self._reasons.take_reason()
        if self._failures:
            logger.info("pushing %s to %s works again after %d failures", self._signal, self._receiver, self._failures)
        self._failures = 0

    def failed(self, error: Exception | None = None) -> None:
        """Note a failed push. The reason is *error*, or what the SDK logged."""
        self._count(self._signal, "failed")
        logged = self._reasons.take_reason()
        self._failures += 1
        now = self._clock.monotonic()
        if self._failures > 1 and now - self._logged_at < _REMIND_S:
            return
        self._logged_at = now
        reason = logged if error is None else f"{type(error).__name__}: {error}"
        logger.warning("pushing %s to %s failed, %d in a row: %s", self._signal, self._receiver, self._failures, reason)
