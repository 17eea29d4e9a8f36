"""The loop that asks the sources on time and publishes one snapshot after another.

The loop itself never blocks on the data plane: each source runs on a worker of its own, and one that is still
running when it is due again is skipped, not queued.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.trace import Tracer

from dataplane.discovery.record import Endpoint
from dataplane.errors import DataPlaneError, error_type
from exporter.clock import Clock
from exporter.config import Config
from exporter.discovery import Discovery
from exporter.model.results import (
    Absent,
    Failed,
    Found,
    MetadataPoll,
    Ok,
    PartitionFailure,
    PartitionListing,
    Result,
    StoragePoll,
)
from exporter.model.snapshot import Snapshot, SourceName
from exporter.model.state import MISSED_POLLS, Recorder, State
from exporter.polling.readers import Connection
from exporter.polling.schedule import Backoff, Budget, Timer
from exporter.polling.sources import DiscoverySource, MetadataSource, PingSource, StorageSource
from exporter.polling.worker import Worker

__all__ = ["Connect", "Poller"]

logger = logging.getLogger(__name__)

_TICK_S = 1.0
"""How often the loop looks at the clock at least: withdrawals and the liveness check depend on it."""

_LOST_PAUSE_S = 15.0
_IDLE_PAUSE_S = 60.0
"""Longest pauses between two look-ups, while a data plane is lost and while none was there or it has ended."""

_ALIVE_S = 30.0
"""A loop that has not ticked for this long is dead."""


Connect = Callable[[Endpoint], Connection]


@dataclass(frozen=True, eq=False)
class _Target:
    """A controller that is being polled, with the sources bound to it."""

    endpoint: Endpoint
    connection: Connection
    ping: PingSource
    metadata: MetadataSource
    storage: StorageSource | None


class Poller:
    """Polls a data plane until it is stopped.

    Args:
        config: Intervals, deadlines, budget and limits.
        discovery: Finds the controller.
        connect: Makes the readers for a controller that was found; may raise a DataPlaneError.
        recorder: Counts what has a fixed label set.
        tracer: Makes the spans of polls and calls.
        clock: Tells the time.
        observe: Is given every snapshot; called under the poller's lock, so it must be quick.
    """

    def __init__(
        self,
        config: Config,
        *,
        discovery: Discovery,
        connect: Connect,
        recorder: Recorder,
        tracer: Tracer,
        clock: Clock,
        observe: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        self._config = config
        self._discovery = discovery
        self._connect = connect
        self._tracer = tracer
        self._clock = clock
        self._observe = observe
        self._state = State(recorder, clock, max_partitions=config.max_partitions, max_versions=config.weight_versions)
        self._budget = Budget(
            config.metadata.interval, config.metadata.max_controller_share, config.metadata.max_controller_stall
        )
        self._backoff = Backoff()
        self._look = DiscoverySource(discovery, tracer=tracer, clock=clock)
        # A look-up sets its own next time, all others repeat.
        self._timers: dict[SourceName, Timer] = {
            "discovery": Timer(math.inf),
            "ping": Timer(config.ping.interval),
            "metadata": Timer(config.metadata.interval),
            "storage": Timer(config.storage.interval),
        }
        self._workers: dict[SourceName, Worker] = {name: Worker(f"tq-exporter-{name}") for name in self._timers}
        self._running: dict[SourceName, _Target | None] = {}
        self._target: _Target | None = None
        self._retired: list[_Target] = []
        self._lock = threading.Lock()  # guards everything above from here on
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tq-exporter-poller", daemon=True)
        self._snapshot = self._state.snapshot()
        self._ticked_at = clock.monotonic()

    @property
    def snapshot(self) -> Snapshot:
        """The latest snapshot."""
        return self._snapshot

    def alive(self) -> bool:
        """Return whether the loop still turns."""
        return self._clock.monotonic() - self._ticked_at < _ALIVE_S

    def start(self) -> None:
        """Start the workers and the loop."""
        for worker in self._workers.values():
            worker.start()
        self._timers["discovery"].start(self._clock.monotonic())
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop the loop, end a look-up in flight, and wait; return whether every thread has ended."""
        deadline = self._clock.monotonic() + timeout_s
        self._stopping.set()
        self._wake.set()
        self._discovery.close()
        for worker in self._workers.values():
            worker.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        ended = not self._thread.is_alive()
        for worker in self._workers.values():
            ended = worker.join(max(deadline - self._clock.monotonic(), 0.0)) and ended
        if ended:
            self._running.clear()  # what a worker was given after its stop never ran
            self._disconnect()
        return ended

    def poll_once(self) -> Snapshot:
        """Do one round of every source on the calling thread, without :meth:`start`, and release everything."""
        self._discover()
        if (target := self._target) is not None:
            self._on_ping(target, target.ping.poll())
            if self._snapshot.up:
                self._on_metadata(target, self._clock.monotonic(), target.metadata.poll())
                if target.storage is not None:
                    self._on_storage(target, target.storage.poll())
        self._discovery.close()
        self._disconnect()
        return self._snapshot

    # The loop

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.tick()
            self._clock.wait(self._wake, self._sleep_s())
            self._wake.clear()

    def tick(self) -> None:
        """Start every poll that is due and publish a snapshot."""
        with self._lock:
            now = self._ticked_at = self._clock.monotonic()
            for name, timer in self._timers.items():
                if timer.fire(now):
                    self._begin(name, now)
            self._publish()
        self._close_retired()

    def _sleep_s(self) -> float:
        with self._lock:
            due = [timer.due for timer in self._timers.values() if timer.due is not None]
        now = self._clock.monotonic()
        return max(min([_TICK_S, *(at - now for at in due)]), 0.0)

    def _begin(self, name: SourceName, now: float) -> None:
        worker, timer, target = self._workers[name], self._timers[name], self._target
        poll = self._discover if name == "discovery" else self._poll_of(name, target, now)
        if poll is None:
            return

        def job() -> None:
            try:
                poll()
            except Exception:  # a defect of ours must not end the source: it is polled again when it is due
                logger.exception("the result of a %s poll could not be taken in", name)
                if name == "discovery":
                    timer.start(self._clock.monotonic() + _IDLE_PAUSE_S)
            finally:
                with self._lock:
                    self._running.pop(name, None)
                self._wake.set()

        if worker.submit(job):
            self._running[name] = target  # the job lets go of it under the lock that is held here
        else:
            self._state.on_skip(name)

    def _poll_of(self, name: SourceName, target: _Target | None, now: float) -> Callable[[], None] | None:
        if target is None:
            return None
        if name == "ping":
            return lambda: self._on_ping(target, target.ping.poll())
        if name == "metadata":
            return lambda: self._on_metadata(target, now, target.metadata.poll())
        storage = target.storage
        return None if storage is None else lambda: self._on_storage(target, storage.poll())

    def _publish(self) -> None:
        self._snapshot = self._state.snapshot()
        self._observe(self._snapshot)

    # Results

    def _discover(self) -> None:
        """Look the controller up, connect to it when it is another one than before, and take that in."""
        result = self._look.poll()
        target: _Target | None = None
        if isinstance(result, Ok) and isinstance(result.value, Found):
            endpoint = result.value.endpoint
            self._look.previous = endpoint
            if self._target is None or _differs(self._target.endpoint, endpoint):
                try:
                    target = self._bind(endpoint)
                except Exception as error:  # a record may hold anything, and the public client may raise anything
                    if not isinstance(error, DataPlaneError):
                        logger.exception("could not connect to what was found: %s", endpoint)
                    result = Failed("discover", error_type(error), f"could not connect: {error}", result.took)
            elif endpoint.actor_id is not None:
                self._target.connection.confirm()
        with self._lock:
            self._on_discovery(result, target)
            self._publish()

    def _bind(self, endpoint: Endpoint) -> _Target:
        connection = self._connect(endpoint)
        tracer, clock = self._tracer, self._clock
        return _Target(
            endpoint,
            connection,
            PingSource(connection.ping_reader, timeout_s=self._config.ping.timeout, tracer=tracer, clock=clock),
            MetadataSource(connection.metadata_reader, held=self._held, tracer=tracer, clock=clock),
            StorageSource(connection.storage, tracer=tracer, clock=clock) if connection.storage else None,
        )

    def _held(self) -> frozenset[str]:
        with self._lock:
            return self._budget.held(self._clock.monotonic())

    def _on_discovery(self, result: Result[Found | Absent], target: _Target | None) -> None:
        now = self._clock.monotonic()
        self._state.on_discovery(result)
        if target is not None:
            self._switch(target, now)
        elif self._state.endpoint is None:
            self._switch(None, now)
        found = isinstance(result, Ok) and isinstance(result.value, Found)
        wait_s = math.inf if found else self._pause_s()
        wait_s = min(wait_s, self._discovery.recheck_s or math.inf)
        self._timers["discovery"].start(now + wait_s)
        self._state.schedule("discovery", None if math.isinf(wait_s) else wait_s)

    def _pause_s(self) -> float:
        """Return how long to wait before the next look-up: a running job that lost its data plane is in a hurry."""
        return self._backoff.next_s(_LOST_PAUSE_S if self._state.discovery == "lost" else _IDLE_PAUSE_S)

    def _switch(self, target: _Target | None, now: float) -> None:
        """Poll *target* from now on; None polls nothing."""
        if self._target is not None:
            self._retired.append(self._target)
        self._target = target
        self._state.reset_polls()
        self._budget.forget()
        intervals: dict[SourceName, float] = {
            "ping": self._config.ping.interval,
            "metadata": self._config.metadata.interval,
            "storage": self._config.storage.interval,
        }
        for name, configured in intervals.items():
            timer = self._timers[name]
            timer.interval_s = configured
            if target is None or (name == "storage" and target.storage is None):
                timer.stop()
                self._state.schedule(name, None)
            else:
                timer.start(now)
                self._state.schedule(name, configured)

    def _on_ping(self, target: _Target, result: Result[float]) -> None:
        with self._lock:
            if target is not self._target:
                return
            self._state.on_ping(result, target.connection.ping_reader.get_capabilities())
            if isinstance(result, Ok):
                self._backoff.reset()
            elif math.isinf(self._timers["discovery"].due or math.inf) and "discovery" not in self._running:
                wait_s = self._pause_s()
                self._timers["discovery"].start(self._clock.monotonic() + wait_s)
                self._state.schedule("discovery", wait_s)
            self._publish()

    def _on_metadata(self, target: _Target, started: float, result: Result[MetadataPoll]) -> None:
        with self._lock:
            if target is not self._target:
                return
            timer = self._timers["metadata"]
            if isinstance(result, Ok):
                held_s = self._charge(result.value)
                free_s = result.value.controller_s - sum(cost for cost, _ in held_s.values())
                timer.stretch(self._budget.interval_s(max(free_s, 0.0)), started)
                self._state.on_metadata(result, keep_s=MISSED_POLLS * timer.interval_s)
                for listing in result.value.listings:
                    if listing.partition in held_s:
                        self._state.hold(listing.partition, MISSED_POLLS * held_s[listing.partition][1])
                self._state.schedule("metadata", timer.interval_s, self._budget.explain(timer.interval_s))
            else:
                self._state.on_metadata(result, keep_s=MISSED_POLLS * timer.interval_s)
            self._publish()

    def _charge(self, poll: MetadataPoll) -> dict[str, tuple[float, float]]:
        """Charge the budget with a round; return what the partitions cost that are held back now, and for how long."""
        self._budget.retain(frozenset(poll.partitions))
        now = self._clock.monotonic()
        held: dict[str, tuple[float, float]] = {}
        asked: list[PartitionListing | PartitionFailure] = [*poll.listings, *poll.failures]
        for one in asked:
            hold_s = self._budget.charge(one.partition, one.controller_s, now)
            if hold_s is not None:
                held[one.partition] = (one.controller_s, hold_s)
        return held

    def _on_storage(self, target: _Target, result: Result[StoragePoll]) -> None:
        with self._lock:
            if target is self._target:
                self._state.on_storage(result)
                self._publish()

    # Connections are closed when no poll uses them any more, and without the lock: closing waits for sockets.

    def _close_retired(self) -> None:
        with self._lock:
            in_use = {id(target) for target in self._running.values()}
            idle = [target for target in self._retired if id(target) not in in_use]
            self._retired = [target for target in self._retired if id(target) in in_use]
        for target in idle:
            try:
                target.connection.close()
            except Exception:
                logger.exception("could not close the readers of %s", target.endpoint.address)

    def _disconnect(self) -> None:
        with self._lock:
            self._switch(None, self._clock.monotonic())
        self._close_retired()


def _differs(one: Endpoint, other: Endpoint) -> bool:
    def identity(endpoint: Endpoint) -> tuple[object, ...]:
        return endpoint.address, endpoint.controller_id, endpoint.actor_id, endpoint.storage_units

    return identity(one) != identity(other)
