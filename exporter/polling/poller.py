"""The loop that polls each source when it is due and publishes the snapshots.

The loop itself never blocks on the data plane: each source runs on a thread of its own. A source that is still running
when it is due again is skipped, not queued.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.trace import Tracer

from exporter.clock import Clock
from exporter.config import Config
from exporter.discovery import Discovery
from exporter.model.groups import Departed, GroupsView
from exporter.model.recorder import Recorder
from exporter.model.results import Result
from exporter.model.snapshot import Snapshot
from exporter.model.state import State
from exporter.polling.schedule import Timer
from exporter.polling.sources.base import Source
from exporter.polling.sources.discovery import Bind, DiscoverySource
from exporter.polling.sources.target import Target
from exporter.polling.worker import Worker

__all__ = ["Poller"]

logger = logging.getLogger(__name__)

_TICK_S: Final = 1.0
"""Longest time between two ticks of the loop. The checks for stale data and for liveness depend on it."""

_ALIVE_S: Final = 30.0
"""A loop that has not ticked for this long is dead."""

_AFTER_DEFECT_S: Final = 60.0
"""Seconds until the next look-up after one whose result could not be processed."""


class _Slot:
    """Schedule and thread of the sources of one name. Kept when the controller changes."""

    def __init__(self, name: str) -> None:
        self.timer = Timer(math.inf)
        self.worker = Worker(f"tq-exporter-{name}")
        self.running: Source[Any] | None = None


class Poller:
    """Polls a data plane until it is stopped.

    Args:
        config: Settings of the state: its limits, the partitions, the acceptable lag, whether groups are named. And
            whether storage is polled.
        discovery: Finds the controller.
        bind: Makes the readers and sources for a controller that was found; may raise a DataPlaneError.
        recorder: Counts events with a fixed label set.
        tracer: Makes the spans of look-ups.
        clock: The clock.
        judge: Completes every snapshot before it is published, under the poller's lock, so it must be quick.
    """

    def __init__(
        self,
        config: Config,
        *,
        discovery: Discovery,
        bind: Bind,
        recorder: Recorder,
        tracer: Tracer,
        clock: Clock,
        judge: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot,
    ) -> None:
        self._clock = clock
        self._judge = judge
        self._state = State(
            recorder,
            clock,
            max_partitions=config.max_partitions,
            max_versions=config.weight_versions,
            settings=config.partitions,
            window=config.thresholds.staleness_versions,
            names_groups=not config.web.disable_groups,
        )
        self._look_up = DiscoverySource(discovery, bind, tracer=tracer, clock=clock)
        self._sources: dict[str, Source[Any]] = {self._look_up.name: self._look_up}
        self._slots = {self._look_up.name: _Slot(self._look_up.name)}
        self._polls_storage = config.storage.enabled
        self._target: Target | None = None
        self._retired: list[Target] = []
        # Guards all of the above once threads run. ``_snapshot`` and ``_departed`` are replaced under it, each in one
        # assignment, and read without it.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._started = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tq-exporter-poller", daemon=True)
        self._snapshot = self._state.snapshot()
        self._departed: tuple[Departed, ...] = ()
        self._ticked_at = clock.monotonic()

    @property
    def snapshot(self) -> Snapshot:
        """The latest snapshot."""
        return self._snapshot

    @property
    def groups(self) -> GroupsView:
        """A copy of the groups of the last listings.

        It is made under the lock: callers are rare, and a poll waits no longer than the copy takes.
        """
        with self._lock:
            return self._state.partitions.groups()

    @property
    def departed(self) -> tuple[Departed, ...]:
        """The groups that left in an unusual way, the last one first."""
        return self._departed

    def alive(self) -> bool:
        """Return whether the loop still runs."""
        return self._clock.monotonic() - self._ticked_at < _ALIVE_S

    def start(self, *, loop: bool = True) -> None:
        """Look for a controller and poll it. Without *loop* the caller calls :meth:`tick`."""
        with self._lock:
            self._started = True
            slot = self._slots[self._look_up.name]
            slot.worker.start()
            slot.timer.start(self._clock.monotonic())
        if loop:
            self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop the loop, end a look-up in flight, and wait; return whether every thread has ended."""
        deadline = self._clock.monotonic() + timeout_s
        self._stopping.set()
        self._wake.set()
        with self._lock:
            workers = [slot.worker for slot in self._slots.values()]
        self._look_up.close()
        for worker in workers:
            worker.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        ended = not self._thread.is_alive()
        for worker in workers:
            ended = worker.join(max(deadline - self._clock.monotonic(), 0.0)) and ended
        if ended:
            for slot in self._slots.values():
                slot.running = None  # a job submitted after the worker stopped never ran
            self._disconnect()
        return ended

    def poll_once(self) -> Snapshot:
        """Do one round of every source on the calling thread, without :meth:`start`, and release everything."""
        self._poll(self._look_up, self._clock.monotonic())
        for source in self._target.sources if self._target else ():
            self._poll(source, self._clock.monotonic())
            if not self._snapshot.up:
                break
        self._look_up.close()
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
            for name, source in self._sources.items():
                if self._slots[name].timer.fire(now):
                    self._begin(source, self._slots[name], now)
            self._publish()
        self._close_retired()

    def _sleep_s(self) -> float:
        with self._lock:
            due = [slot.timer.due for slot in self._slots.values() if slot.timer.due is not None]
        now = self._clock.monotonic()
        return max(min([_TICK_S, *(at - now for at in due)]), 0.0)

    def _begin(self, source: Source[Any], slot: _Slot, now: float) -> None:
        def job() -> None:
            try:
                self._poll(source, now)
            except Exception:  # our bug must not end the source: it is polled again when it is due
                logger.exception("failed to process the %s poll's result", source.name)
                with self._lock:
                    if slot.timer.due == math.inf:
                        slot.timer.start(self._clock.monotonic() + _AFTER_DEFECT_S)
            finally:
                with self._lock:
                    slot.running = None
                self._wake.set()

        if slot.worker.submit(job):
            slot.running = source  # the job resets it later, under the same lock
        else:
            self._state.recorder.skipped(source.name)

    def _publish(self) -> None:
        self._snapshot = self._judge(self._state.snapshot())
        self._departed = self._state.partitions.departed()

    # Results

    def _poll(self, source: Source[Any], started: float) -> None:
        source.poll(lambda result: self._process(source, result, started))

    def _process(self, source: Source[Any], result: Result[Any], started: float) -> None:
        """Apply a result to the state and schedule the next poll. Ignore results of a controller no longer polled."""
        with self._lock:
            if self._sources.get(source.name) is not source:
                return
            following = source.fold(result, self._state)
            source.describe(result, following, self._state)
            if self._look_up.target is not self._target:
                self._switch(self._look_up.target)
            timer = self._slots[source.name].timer
            if source is self._look_up:
                self._look_again(following.interval_s)
            else:
                if following.interval_s != timer.interval_s:
                    timer.stretch(following.interval_s, started)
                self._schedule(source, following.interval_s, following.why)
            if following.alive:
                self._look_up.reset_pauses()
            elif following.alive is False and not self._look_up_due():
                self._look_again(self._look_up.pause_s(self._state))
            self._publish()

    def _look_up_due(self) -> bool:
        """Whether a look-up is running or scheduled."""
        slot = self._slots[self._look_up.name]
        return slot.running is not None or not math.isinf(slot.timer.due or math.inf)

    def _look_again(self, wait_s: float) -> None:
        self._slots[self._look_up.name].timer.start(self._clock.monotonic() + wait_s)
        self._schedule(self._look_up, wait_s)

    def _schedule(self, source: Source[Any], interval_s: float, why: str = "") -> None:
        interval = None if math.isinf(interval_s) else interval_s
        self._state.health.schedule(source.name, interval, why, awaited=source.awaited)

    def _switch(self, target: Target | None) -> None:
        """Poll *target* from now on; None polls nothing."""
        if self._target is not None:
            self._retired.append(self._target)
            for source in self._target.sources:
                del self._sources[source.name]
                self._slots[source.name].timer.stop()
        self._target = target
        self._state.switch()
        if target is not None and target.mute_storage is not None and self._polls_storage:
            self._state.health.cannot_ask("storage", target.mute_storage)
        now = self._clock.monotonic()
        for source in target.sources if target is not None else ():
            self._sources[source.name] = source
            slot = self._slot(source.name)
            slot.timer.interval_s = source.interval_s
            slot.timer.start(now)
            self._schedule(source, source.interval_s)

    def _slot(self, name: str) -> _Slot:
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = _Slot(name)
            if self._started and not self._stopping.is_set():
                slot.worker.start()
        return slot

    # Readers are closed once no poll uses them, and without the lock, since closing waits for sockets.

    def _close_retired(self) -> None:
        with self._lock:
            running = {slot.running for slot in self._slots.values()}
            idle = [target for target in self._retired if running.isdisjoint(target.sources)]
            self._retired = [target for target in self._retired if target not in idle]
        for target in idle:
            try:
                target.readers.close()
            except Exception:
                logger.exception("could not close the readers of %s", target.endpoint.address)

    def _disconnect(self) -> None:
        with self._lock:
            self._look_up.target = None
            self._switch(None)
        self._close_retired()
