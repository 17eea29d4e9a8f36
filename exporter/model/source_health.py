"""Health of the sources: last success, interval, failures by type."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from exporter.clock import Clock
from exporter.model.recorder import Recorder
from exporter.model.results import Failed, Ok, Result
from exporter.model.snapshot import ErrorCount, Incident, SourceReason, SourceState

__all__ = ["MISSED_POLLS", "SourceHealth"]

logger = logging.getLogger(__name__)

MISSED_POLLS: Final = 3
"""After this many missed polls a source's data is stale and no longer shown."""

_INCIDENTS_KEPT: Final = 50


@dataclass
class _Record:
    """The mutable health of one source."""

    on_demand: bool = False  # polled on demand, so neither stale nor disabled
    unsupported: bool = False
    awaited: bool = False
    up: bool | None = None
    last_success: float | None = None
    answered_at: float | None = None  # monotonic; also set after a partial answer or a failed ping
    duration: float | None = None
    interval: float | None = None
    detail: str = ""
    stretched: str = ""


class SourceHealth:
    """The health of every source, and the failures. Not thread-safe.

    Args:
        recorder: Counts polls, errors and refused replies.
        clock: The clock.
        sources: The sources that are listed even while they are not scheduled, in order.
        on_demand: The ones among them without an interval.
    """

    def __init__(self, recorder: Recorder, clock: Clock, sources: Iterable[str], on_demand: Iterable[str]) -> None:
        self._recorder = recorder
        self._clock = clock
        self._records = {name: _Record() for name in sources}
        for name in on_demand:
            self._records[name].on_demand = True
        self._incidents: deque[Incident] = deque(maxlen=_INCIDENTS_KEPT)
        self._errors: Counter[tuple[str, str]] = Counter()

    def _record(self, source: str) -> _Record:
        return self._records.setdefault(source, _Record())

    def schedule(self, source: str, interval: float | None, stretched: str = "", *, awaited: bool = False) -> None:
        """Note the present interval of a source.

        Args:
            source: Its name.
            interval: Seconds between polls, None when it is not polled.
            stretched: Why it is longer than configured, empty when it is not.
            awaited: Whether :meth:`all_polled` waits for its first poll.
        """
        record = self._record(source)
        record.interval, record.stretched = interval, stretched
        record.awaited = awaited or record.awaited

    def cannot_ask(self, source: str, detail: str) -> None:
        """Note that what the source would poll is there and cannot be asked, and why."""
        record = self._record(source)
        record.unsupported, record.detail = True, detail

    def finish(self, source: str, result: Result[object], *, expected: bool = False) -> None:
        """Note how a poll ended. *expected*: a failure is normal, since no data plane was found yet."""
        record = self._record(source)
        record.duration = result.took
        if isinstance(result, Ok):
            if record.up is False:
                logger.info("the %s poll works again", source)
            record.up = True
            record.detail = ""
            record.last_success = self._clock.time()
            self.answered(source)
            self._recorder.poll(source, "ok")
            return
        if record.up is not False or record.detail != result.detail:
            level = logging.INFO if expected else logging.WARNING
            logger.log(level, "the %s poll failed: %s: %s", source, result.error_type, result.detail)
        record.up = False
        record.detail = result.detail
        self._recorder.poll(source, "failed")

    def answered(self, source: str) -> None:
        """Note that the source's data is current as of now."""
        self._record(source).answered_at = self._clock.monotonic()

    def explain(self, source: str, detail: str) -> None:
        """Note a text about what a successful poll found."""
        self._record(source).detail = detail

    def detail(self, source: str) -> str:
        """Return the text about the source's last poll."""
        return self._record(source).detail

    def failed(self, source: str, failure: Failed, *, counted: bool) -> None:
        """Keep a failure as an incident. *counted*: also count it as an error of the data plane."""
        if counted:
            self._recorder.error(failure.operation, failure.error_type)
            self._errors[failure.operation, failure.error_type] += 1
            if failure.limit is not None:
                self._recorder.refused(failure.limit)
        self._incidents.append(
            Incident(self._clock.time(), source, failure.operation, failure.error_type, failure.detail)
        )

    def restart(self) -> None:
        """Forget all but the times of the last successes, since another controller or none is polled from now on."""
        for name, record in self._records.items():
            if not record.on_demand:
                self._records[name] = _Record(last_success=record.last_success)

    def all_polled(self) -> bool:
        """Whether every awaited source has been polled since the last :meth:`restart`."""
        return all(record.up is not None for record in self._records.values() if record.awaited)

    def is_known(self, source: str) -> bool:
        """Whether the source's last poll succeeded and is not stale."""
        return self._record(source).up is True and not self.is_stale(source)

    def last_success(self, source: str) -> float | None:
        """Return when the source last succeeded, seconds since the epoch, None when never."""
        return self._record(source).last_success

    def is_stale(self, source: str) -> bool:
        """Whether the source has not answered for longer than :data:`MISSED_POLLS` intervals."""
        record = self._record(source)
        if record.on_demand or record.answered_at is None or record.interval is None:
            return False
        return self._clock.monotonic() - record.answered_at > MISSED_POLLS * record.interval

    def states(self) -> tuple[SourceState, ...]:
        """Return the state of every source."""
        return tuple(self._state(name, record) for name, record in self._records.items())

    def incidents(self) -> tuple[Incident, ...]:
        """Return the last failures, newest first."""
        return tuple(reversed(self._incidents))

    def errors(self) -> tuple[ErrorCount, ...]:
        """Return the failures by operation and type, most frequent first."""
        return tuple(ErrorCount(*what, count) for what, count in self._errors.most_common())

    def _state(self, name: str, record: _Record) -> SourceState:
        reason: SourceReason
        if record.interval is None and not record.on_demand:
            reason = "unsupported" if record.unsupported else "disabled"
        elif self.is_stale(name):
            reason = "stale"
        elif record.up is False:
            reason = "failing"
        elif record.stretched:
            reason = "budget"
        else:
            reason = "ok"
        detail = record.detail or record.stretched
        return SourceState(name, reason, record.up, record.last_success, record.duration, record.interval, detail)
