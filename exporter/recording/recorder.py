"""The flight recorder: keeps the run on disk, on a thread of its own.

Who calls it never waits for the disk: rows are kept in memory, up to a bound, until the disk takes them.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from exporter.clock import Clock
from exporter.model.recording import RecorderState
from exporter.model.samples import Slots
from exporter.model.snapshot import Snapshot, encode_snapshot
from exporter.recording.errors import RecordingError, described
from exporter.recording.events import Event, Watch
from exporter.recording.frames import Frame, reduce
from exporter.recording.store import FRAME_S, SNAPSHOT_S, Batch, Store
from exporter.recording.summary import Summary, Tally, decode_summary, encode_summary, log_summary, together

__all__ = ["FlightRecorder"]

logger = logging.getLogger(__name__)

MAX_FRAMES: Final = 360
"""Frames that wait for the disk: an hour."""

MAX_EVENTS: Final = 2000
"""Events that wait for the disk."""

_FLUSH_S: Final = 10.0
_SOON_S: Final = 1.0
_TIDY_S: Final = 600.0
_AGAIN_S: Final = 10.0


class FlightRecorder:
    """Records snapshots, events and a summary of the run. Thread-safe.

    Args:
        path: The recording.
        max_size: Bound of its size in bytes.
        window: The largest acceptable lag.
        clock: Tells the time.
        version: The exporter's version.
        run: Identity of the training run, None when it has none.
    """

    def __init__(
        self,
        path: Path,
        max_size: int,
        *,
        window: float,
        clock: Clock,
        version: str = "",
        run: str | None = None,
    ) -> None:
        self._path = path
        self._max_size = max_size
        self._clock = clock
        process = {"version": version, "pid": os.getpid(), "host": socket.gethostname(), "run": run}
        self._lock = threading.Lock()  # guards what follows
        self._watch = Watch({key: value for key, value in process.items() if value is not None})
        self._slots = Slots()
        self._tally = Tally(window)
        self._earlier: list[Summary] = []
        self._frames: deque[Frame] = deque()
        self._events: dict[int, Event] = {}
        self._last: Snapshot | None = None
        self._snapshot: Snapshot | None = None
        self._frame_due = self._snapshot_due = -math.inf
        self._dropped = 0
        self._state = RecorderState()
        self._ended = self._given_up = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tq-exporter-recorder", daemon=True)
        # Of the thread alone.
        self._store: Store | None = None
        self._opened_before = self._said = False
        self._tidy_due = -math.inf

    @property
    def state(self) -> RecorderState:
        """How the recording is doing."""
        with self._lock:
            return replace(self._state, dropped=self._dropped)

    def start(self) -> None:
        """Open the file and write to it, in the background."""
        self._thread.start()

    def observe(self, snapshot: Snapshot) -> Snapshot:
        """Note *snapshot*, and return it with the state of the recording. Cheap; call it with every snapshot."""
        with self._lock:
            if not self._given_up:
                self._note(snapshot)
            return replace(snapshot, recorder=replace(self._state, dropped=self._dropped))

    def record_departures(self, departures: Iterable[Mapping[str, object]]) -> None:
        """Record groups that left unusually. For the keys see :meth:`~exporter.recording.events.Watch.departures`."""
        with self._lock:
            if not self._given_up:
                self._add(self._watch.departures(departures, self._clock.time()))

    def stop(self, timeout_s: float) -> None:
        """Write what is left, and log the summary of the run. Returns within *timeout_s* seconds."""
        with self._lock:
            self._ended, self._snapshot = True, self._last
            if not self._given_up:
                self._add(self._watch.end(self._clock.time()))
            run = together([*self._earlier, self._tally.summary])
        log_summary(run)
        if self._thread.ident is None:
            return
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning("%s does not answer; the last recorded rows are lost", self._path)

    def flush(self) -> float | None:
        """Write what waits. The recorder's thread calls it; so may its owner where that was not started.

        Returns:
            The seconds after which to write again, None when there is no use in trying again.
        """
        batch: Batch | None = None
        if self._given_up:
            return None
        try:
            store = self._opened()
            batch = self._taken()
            now = self._clock.time()
            if len(batch):
                store.write(batch, now)
            batch = None
            if self._clock.monotonic() >= self._tidy_due:
                self._tidy_due = self._clock.monotonic() + _TIDY_S
                store.tidy(now)
            self._succeeded(store)
        except RecordingError as error:
            self._failed(batch, str(error), lasting=error.lasting)
            return None if error.lasting else _AGAIN_S
        except (OSError, sqlite3.Error) as error:
            self._failed(batch, f"{self._path} cannot be written: {described(error)}")
            return _AGAIN_S
        except Exception as error:  # our bug must not go on to fill the memory
            logger.exception("recording to %s failed unexpectedly", self._path)
            self._failed(batch, f"unexpected {type(error).__name__}", lasting=True)
            return None
        return _FLUSH_S

    # Who records.

    def _note(self, snapshot: Snapshot) -> None:
        try:
            self._take(snapshot)
        except Exception as error:  # our bug must not end the polling, which waits for this
            logger.exception("recording to %s failed unexpectedly", self._path)
            self._give_up(f"unexpected {type(error).__name__}")

    def _take(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        self._tally.see(snapshot)
        self._add(self._watch.see(snapshot))
        now = self._clock.monotonic()
        if now >= self._frame_due:
            # On a grid, so that frames do not drift apart. After a pause a new grid starts.
            on_grid = self._frame_due + FRAME_S
            self._frame_due = on_grid if on_grid > now else now + FRAME_S
            self._frames.append(reduce(snapshot, self._slots, FRAME_S))
            self._shorten()
        if now >= self._snapshot_due:
            self._snapshot_due = now + SNAPSHOT_S
            self._snapshot = snapshot

    def _add(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.key not in self._events and len(self._events) >= MAX_EVENTS:
                self._dropped += 1
                continue
            self._events[event.key] = event
            self._wake.set()

    def _shorten(self) -> None:
        while len(self._frames) > MAX_FRAMES:
            self._frames.popleft()
            self._dropped += 1

    # The thread.

    def _run(self) -> None:
        while True:
            stopping = self._stopping.is_set()
            again_s = self.flush()
            if stopping or again_s is None:
                break
            self._wake.clear()
            if not self._clock.wait(self._stopping, _SOON_S):  # events that come together are written together
                self._clock.wait(self._wake, again_s - _SOON_S)
        self._close()

    def _opened(self) -> Store:
        if self._store is not None and self._store.replaced():
            logger.warning("%s is gone or was replaced; creating it again", self._path)
            self._close()
        if self._store is None:
            self._store = Store(self._path, self._max_size)
            earlier = list(self._summaries(self._store))
            with self._lock:
                started = self._tally.summary.started_at
                self._earlier = [one for one in earlier if one.started_at != started]
                if self._opened_before:  # another file knows nothing of what lasts
                    self._add(self._watch.lasting)
            self._opened_before = True
        return self._store

    def _summaries(self, store: Store) -> Iterator[Summary]:
        for body in store.summaries():
            try:
                yield decode_summary(body)
            except ValueError:
                logger.debug("a summary in %s cannot be read", self._path)

    def _taken(self) -> Batch:
        """Take what waits."""
        with self._lock:
            snapshot, self._snapshot = self._snapshot, None
            batch = Batch(list(self._frames), dict(self._events))
            self._frames.clear()
            self._events.clear()
            if snapshot is not None or self._ended:
                summary = self._tally.summary
                batch.summary = summary.started_at, encode_summary(summary)
        if snapshot is not None:
            batch.snapshots.append((snapshot.taken_at, encode_snapshot(snapshot)))
        return batch

    def _succeeded(self, store: Store) -> None:
        if self._said:
            logger.info("recording to %s again; %d rows are missing", self._path, self._dropped)
        elif self._state.up is None:
            logger.info("recording the run to %s", self._path)
        self._said = False
        since, size = store.since, store.size  # before the lock: nobody who records waits for the disk
        with self._lock:
            if not self._given_up:
                self._state = RecorderState(True, since, size)

    def _failed(self, batch: Batch | None, why: str, *, lasting: bool = False) -> None:
        """Keep what was not written for the next turn, and say so once."""
        if lasting:
            logger.error("the run is not recorded: %s", why)
        elif not self._said:
            logger.warning("recording failed and will be retried: %s", why)
        self._said = True
        with self._lock:
            if lasting:
                self._give_up(why)
                return
            if batch is not None:
                self._events = {**batch.events, **self._events}
                self._frames.extendleft(reversed(batch.frames))
                self._shorten()
            self._state = replace(self._state, up=False, detail=why)

    def _give_up(self, why: str) -> None:
        """Keep nothing more."""
        self._given_up = True
        self._frames.clear()
        self._events.clear()
        self._last = self._snapshot = None
        self._state = replace(self._state, up=False, detail=why)

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except (OSError, sqlite3.Error) as error:
                logger.debug("closing the recording failed: %s", error)
