"""What the polls' results add up to: the one place that turns results into the next snapshot.

No threads and no I/O: the poller calls one ``on_*`` method per result and asks for a snapshot after it.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from dataplane.discovery.record import Endpoint
from dataplane.groups import DataPlaneCapabilities
from exporter.clock import Clock
from exporter.model.flow import FlowTracker
from exporter.model.occupancy import merge, summarise
from exporter.model.results import Absent, Failed, Found, MetadataPoll, Ok, Result, StoragePoll
from exporter.model.snapshot import (
    SOURCES,
    DiscoveryState,
    ErrorCount,
    Incident,
    PartitionState,
    Snapshot,
    SourceName,
    SourceReason,
    SourceState,
    StorageState,
)

__all__ = ["MISSED_POLLS", "Recorder", "State"]

logger = logging.getLogger(__name__)

MISSED_POLLS: Final = 3
"""After how many missed polls what a source said is withdrawn."""

_INCIDENTS_KEPT = 50
_POLLED: Final[tuple[SourceName, ...]] = ("ping", "metadata", "storage")
_BUSY_WINDOW_S = 300.0


class Recorder(Protocol):
    """Counts what has a fixed label set. Implemented by :mod:`exporter.telemetry`."""

    def ping(self, duration_s: float, error_type: str | None) -> None:
        """A ping took *duration_s* seconds, and failed with *error_type* unless that is None."""
        ...

    def error(self, operation: str, error_type: str) -> None:
        """An operation on the data plane failed."""
        ...

    def poll(self, source: SourceName, outcome: Literal["ok", "failed"]) -> None:
        """A poll ended."""
        ...

    def skipped(self, source: SourceName) -> None:
        """A poll was due while the last one was still running."""
        ...

    def restart(self) -> None:
        """A new controller took the place of the last one."""
        ...

    def refused(self, limit: str) -> None:
        """A reply was refused because it exceeds *limit*."""
        ...


@dataclass
class _SourceRecord:
    """How a source is doing, while it runs."""

    up: bool | None = None
    last_success: float | None = None
    answered_at: float | None = None  # monotonic; also when a part of the answer was missing, or a ping failed
    duration: float | None = None
    interval: float | None = None
    detail: str = ""
    stretched: str = ""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A partition's state with the monotonic time of its listing and for how long that stays true."""

    state: PartitionState
    at: float
    keep_s: float


class State:
    """Folds results into snapshots. Not thread-safe: the poller serialises the calls.

    Args:
        recorder: Counts errors, polls and restarts.
        clock: Tells the time.
        max_partitions: How many partitions keep a label of their own.
        max_versions: How many weight versions keep a count of their own, per partition.
    """

    def __init__(self, recorder: Recorder, clock: Clock, *, max_partitions: int, max_versions: int) -> None:
        self._recorder = recorder
        self._clock = clock
        self._max_versions = max_versions
        self._flow = FlowTracker(max_partitions)
        self._started_at = clock.time()
        self._discovery: DiscoveryState = "never_found"
        self._looked = False
        self._ready = False
        self._endpoint: Endpoint | None = None
        self._last_endpoint: Endpoint | None = None
        self._capabilities: DataPlaneCapabilities | None = None
        self._sender_id: str | None = None
        self._generation = 0
        self._up = False
        self._listed: dict[str, _Listed] = {}
        self._storage: tuple[StorageState, ...] = ()
        self._busy: deque[tuple[float, float]] = deque()
        self._incidents: deque[Incident] = deque(maxlen=_INCIDENTS_KEPT)
        self._errors: Counter[tuple[str, str]] = Counter()
        self._sources = {name: _SourceRecord() for name in SOURCES}

    @property
    def endpoint(self) -> Endpoint | None:
        """The controller in use."""
        return self._endpoint

    @property
    def discovery(self) -> DiscoveryState:
        """Whether a data plane was found."""
        return self._discovery

    # Discovery

    def on_discovery(self, result: Result[Found | Absent]) -> None:
        """Take in a look-up's result; :attr:`endpoint` says afterwards where to poll."""
        self._looked = True
        last_detail = self._sources["discovery"].detail
        self._finish_poll("discovery", result)
        if isinstance(result, Failed):
            self._count_if_running("discovery", result)
            return
        if isinstance(result.value, Found):
            self._adopt(result.value.endpoint)
            return
        record = self._sources["discovery"]
        if last_detail != result.value.detail:
            logger.info("no TransferQueue: %s", result.value.detail)
        record.detail = result.value.detail
        if result.value.ended:
            self._end(result.value.detail)
        elif self._discovery == "found" and not self._up:
            self._lose(result.value.detail)

    def _adopt(self, endpoint: Endpoint) -> None:
        last, self._last_endpoint = self._last_endpoint, endpoint
        self._endpoint = endpoint
        if last is not None and last.actor_id and endpoint.actor_id and last.actor_id != endpoint.actor_id:
            self._begin_generation()

    def _begin_generation(self) -> None:
        """A new controller: what the last one held is lost, and nothing known of it is true any more."""
        if self._generation:
            self._generation += 1
            self._recorder.restart()
            logger.warning("a new controller took over; this is generation %d", self._generation)
        self._flow.lose_all()
        self._listed.clear()
        self._sender_id = None

    def _lose(self, detail: str) -> None:
        if self._discovery == "found":
            self._discovery = "lost"
            logger.error("lost TransferQueue: %s", detail)

    def _end(self, detail: str) -> None:
        if self._discovery in ("found", "lost"):
            self._discovery = "ended"
            logger.info("TransferQueue was ended on purpose: %s", detail or "its owner took it down")
        self._endpoint = None

    def reset_polls(self) -> None:
        """Another controller is polled from now on, or none: what the last one said is not true of it."""
        self._capabilities = None
        self._up = False
        self._listed.clear()
        self._storage = ()
        for name in _POLLED:
            self._sources[name] = _SourceRecord(last_success=self._sources[name].last_success)

    # Ping

    def on_ping(self, result: Result[float], capabilities: DataPlaneCapabilities | None) -> None:
        """Take in a ping's result and what the reader in use claims."""
        self._finish_poll("ping", result)
        self._sources["ping"].answered_at = self._clock.monotonic()
        if isinstance(result, Ok):
            self._recorder.ping(result.value, None)
            self._spend(result.value)
            self._up = True
            self._capabilities = capabilities
            if self._discovery != "found":
                address = self._endpoint.address if self._endpoint else "an unknown address"
                logger.info("found TransferQueue at %s", address)
            self._discovery = "found"
            self._generation = self._generation or 1
            return
        self._up = False
        if self._discovery != "never_found":
            self._recorder.ping(result.took, result.error_type)
        self._count_if_running("ping", result)
        if result.error_type == "DataPlaneUnavailable":
            self._lose(result.detail)

    # Metadata

    def on_metadata(self, result: Result[MetadataPoll], *, keep_s: float) -> None:
        """Take in a round over the partitions.

        Args:
            result: The round.
            keep_s: For how many seconds a listing stays true: three times the interval in force.
        """
        if isinstance(result, Failed):
            self._finish_poll("metadata", result)
            self._count_if_running("metadata", result)
            return
        poll = result.value
        now, time = self._clock.monotonic(), self._clock.time()
        self._spend(poll.controller_s)
        self._notice_other_sender(poll)
        self._flow.begin_poll(poll.partitions, poll.published_version, time=time, now=now)
        for listing in poll.listings:
            self._flow.observe(listing.partition, listing.groups, time=time)
            state = summarise(
                listing.partition,
                listing.groups,
                listed_at=time,
                reference=self._flow.reference(listing.partition),
                first_seen=self._flow.first_seen(listing.partition),
                max_versions=self._max_versions,
            )
            self._listed[listing.partition] = _Listed(state, now, keep_s)
        for partition in self._listed.keys() - set(poll.partitions):
            del self._listed[partition]
        for failure in poll.failures:
            detail = f"partition {failure.partition!r}: {failure.detail}"
            self._count("metadata", "list_metadata", failure.error_type, detail)
            self._count_refusal(failure.limit)
        self._sources["metadata"].answered_at = now
        if poll.failures:
            first = poll.failures[0]
            self._finish_poll("metadata", Failed("list_metadata", first.error_type, first.detail, result.took))
        else:
            self._finish_poll("metadata", result)

    def hold(self, partition: str, keep_s: float) -> None:
        """Keep what was last listed of *partition* for *keep_s* seconds: it is listed less often from now on."""
        listed = self._listed.get(partition)
        if listed is not None:
            self._listed[partition] = replace(listed, keep_s=keep_s)

    def _notice_other_sender(self, poll: MetadataPoll) -> None:
        """Without actor ids, another sender that has none of the groups of the last listings is a new controller.

        It is decided only when every partition that had groups was listed again or is gone. A restart of an empty
        data plane goes unnoticed.
        """
        sender = poll.sender_id
        if sender is None or sender == self._sender_id:
            return
        if self._sender_id is not None and not (self._endpoint and self._endpoint.actor_id):
            listed = {listing.partition: (group.group_id for group in listing.groups) for listing in poll.listings}
            if not self._flow.has_any_of(listed):
                unsure = self._flow.resident_partitions() & set(poll.partitions) - set(listed)
                if unsure:
                    return
                if self._flow.resident_partitions():
                    self._begin_generation()
        self._sender_id = sender

    # Storage

    def on_storage(self, result: Result[StoragePoll]) -> None:
        """Take in a round over the storage units; a unit that did not answer is left out at once."""
        if isinstance(result, Failed):
            self._finish_poll("storage", result)
            self._count_if_running("storage", result)
            self._storage = ()
            return
        self._storage = result.value.units
        self._sources["storage"].answered_at = self._clock.monotonic()
        for failure in result.value.failures:
            self._count("storage", "storage_metrics", failure.error_type, failure.detail)
        if result.value.failures:
            first = result.value.failures[0]
            self._finish_poll("storage", Failed("storage_metrics", first.error_type, first.detail, result.took))
        else:
            self._finish_poll("storage", result)

    # All sources

    def on_skip(self, source: SourceName) -> None:
        """A poll was due while the last one was still running."""
        self._recorder.skipped(source)

    def schedule(self, source: SourceName, interval: float | None, stretched: str = "") -> None:
        """Note the interval now in force, and why it is longer than configured (empty when it is not)."""
        record = self._sources[source]
        record.interval = interval
        record.stretched = stretched

    def snapshot(self) -> Snapshot:
        """Return what is known now, without what is too old to be true."""
        now = self._clock.monotonic()
        self._up = self._up and not self._is_stale("ping", now)
        if self._is_stale("metadata", now):
            self._listed.clear()
        if self._is_stale("storage", now):
            self._storage = ()
        self._listed = {name: listed for name, listed in self._listed.items() if now - listed.at <= listed.keep_s}
        return Snapshot(
            taken_at=self._clock.time(),
            started_at=self._started_at,
            discovery=self._discovery,
            up=self._up,
            ready=self._is_ready(),
            generation=self._generation,
            endpoint=self._endpoint,
            capabilities=self._capabilities,
            partitions=self._partitions(),
            flows=self._flow.flows(),
            storage=self._storage,
            sources=tuple(self._source_state(name, now) for name in SOURCES),
            controller_busy_ratio=self._busy_ratio(now),
            incidents=tuple(reversed(self._incidents)),
            errors=tuple(ErrorCount(*what, count) for what, count in self._errors.most_common()),
        )

    def _partitions(self) -> tuple[PartitionState, ...]:
        by_label: dict[str, list[PartitionState]] = {}
        for name, listed in sorted(self._listed.items()):
            by_label.setdefault(self._flow.label(name), []).append(listed.state)
        return tuple(
            parts[0]
            if len(parts) == 1 and parts[0].partition == label
            else merge(label, parts, max_versions=self._max_versions)
            for label, parts in sorted(by_label.items())
        )

    def _is_ready(self) -> bool:
        """Whether the first round is done. It stays done: a controller that comes later takes nothing back."""
        polled = self._sources["ping"].up is not None and self._sources["metadata"].up is not None
        self._ready = self._ready or (self._looked and (self._endpoint is None or polled))
        return self._ready

    def _source_state(self, name: SourceName, now: float) -> SourceState:
        record = self._sources[name]
        reason: SourceReason
        if record.interval is None and name != "discovery":  # a look-up is made when one is needed
            reason = "disabled"
        elif name in _POLLED and self._is_stale(name, now):
            reason = "stale"
        elif record.up is False:
            reason = "failing"
        elif record.stretched:
            reason = "budget"
        else:
            reason = "ok"
        detail = record.detail or record.stretched
        return SourceState(name, reason, record.up, record.last_success, record.duration, record.interval, detail)

    def _is_stale(self, name: SourceName, now: float) -> bool:
        record = self._sources[name]
        if record.answered_at is None or record.interval is None:
            return False
        return now - record.answered_at > MISSED_POLLS * record.interval

    def _finish_poll(self, name: SourceName, result: Result[object]) -> None:
        record = self._sources[name]
        record.duration = result.took
        if isinstance(result, Ok):
            if record.up is False:
                logger.info("the %s poll works again", name)
            record.up = True
            record.detail = ""
            record.last_success = self._clock.time()
            record.answered_at = self._clock.monotonic()
            self._recorder.poll(name, "ok")
            return
        if record.up is not False or record.detail != result.detail:
            level = logging.INFO if self._discovery == "never_found" else logging.WARNING
            logger.log(level, "the %s poll failed: %s: %s", name, result.error_type, result.detail)
        record.up = False
        record.detail = result.detail
        self._recorder.poll(name, "failed")

    def _count_if_running(self, source: SourceName, failed: Failed) -> None:
        """Count a failure, unless no data plane runs yet or any more: then nothing is wrong with it."""
        if self._discovery in ("found", "lost"):
            self._count(source, failed.operation, failed.error_type, failed.detail)
            self._count_refusal(failed.limit)
        else:
            self._note(source, failed.operation, failed.error_type, failed.detail)

    def _count(self, source: SourceName, operation: str, error_type: str, detail: str) -> None:
        self._recorder.error(operation, error_type)
        self._errors[operation, error_type] += 1
        self._note(source, operation, error_type, detail)

    def _count_refusal(self, limit: str | None) -> None:
        if limit is not None:
            self._recorder.refused(limit)

    def _note(self, source: SourceName, operation: str, error_type: str, detail: str) -> None:
        self._incidents.append(Incident(self._clock.time(), source, operation, error_type, detail))

    def _spend(self, controller_s: float) -> None:
        now = self._clock.monotonic()
        self._busy.append((now, controller_s))
        while self._busy and now - self._busy[0][0] > _BUSY_WINDOW_S:
            self._busy.popleft()

    def _busy_ratio(self, now: float) -> float | None:
        spent = [seconds for at, seconds in self._busy if now - at <= _BUSY_WINDOW_S]
        if not spent or self._sources["metadata"].up is None:
            return None
        interval = self._sources["metadata"].interval or 0.0
        window = max(min(now - self._busy[0][0], _BUSY_WINDOW_S), interval)
        return min(sum(spent) / window, 1.0) if window else None
