"""Publishes what a client has put and cleared, for an exporter to read between two listings of a large partition.

A thread of its own writes one row into the reserved partition, at most every 10 s and at least every 30 s. No call of
the client waits for it. What it writes is read from the counts that the client keeps anyway.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from dataplane.counts import COUNTS_PREFIX, COUNTS_TAG, Moved, decode_counts, encode_counts
from dataplane.interfaces import RESERVED_PARTITION
from dataplane.observability.tally import Tally

__all__ = ["CountsPublisher", "counts_of"]

_logger = logging.getLogger(__name__)

_PAUSE_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 30.0
_AFTER_FAILURE_S: Final = 60.0
_LEFT_BEHIND_S: Final = 3600.0
_CLOSE_S: Final = 1.0


def counts_of(tally: Tally) -> dict[str, Moved]:
    """Return the keys put and cleared by successful calls, by partition."""
    moved: dict[str, list[int]] = {}
    for cell in tally.cells():
        effect = cell.operation.effect
        if cell.error_type is None and cell.label not in (None, RESERVED_PARTITION) and effect in ("write", "clear"):
            moved.setdefault(str(cell.label), [0, 0])[effect == "clear"] += cell.keys
    return {name: (put, cleared) for name, (put, cleared) in moved.items()}


class CountsPublisher:
    """Writes one client's row until it is closed. Holds no reference to the wrapper, so that it can be collected.

    Args:
        inner: The client to write with; its calls must be thread-safe and have deadlines.
        counts: Returns what to publish.
        pause_s: Seconds between two writes at least.
    """

    def __init__(self, inner: Any, counts: Callable[[], Mapping[str, Moved]], *, pause_s: float = _PAUSE_S) -> None:
        self._inner = inner
        self._counts = counts
        self._pause_s = pause_s
        self._key = f"{COUNTS_PREFIX}{uuid.uuid4().hex[:16]}"
        self._stop = threading.Event()
        self._written = False
        self._thread = threading.Thread(target=self._run, name="dataplane-publish-counts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, which removes the row; waits for one second at most. Idempotent."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        last: Mapping[str, Moved] = {}
        written_at, pause_s, warned = 0.0, self._pause_s, False
        while not self._stop.wait(pause_s):
            counts, now = self._counts(), time.monotonic()
            pause_s = self._pause_s
            if not counts or (counts == last and now - written_at < _LONGEST_PAUSE_S):
                continue
            try:
                if not self._written:
                    self._clear_left_behind()
                self._put(counts)
                last, written_at = counts, now
            except Exception as error:  # of a framework's own client, any
                pause_s = max(_AFTER_FAILURE_S, self._pause_s)
                _logger.log(
                    logging.DEBUG if warned else logging.WARNING,
                    "could not publish this client's counts; the next try is in %.0f s: %s: %s",
                    pause_s,
                    type(error).__name__,
                    error,
                )
                warned = True
        if self._written:
            try:
                self._inner.clear_samples([self._key], RESERVED_PARTITION)
            except Exception as error:  # the exporter ignores a row that is not renewed
                _logger.debug("could not remove this client's counts: %s", error)

    def _put(self, counts: Mapping[str, Moved]) -> None:
        self._written = True  # also when the put fails: it may have happened
        tag = {COUNTS_TAG: encode_counts(time.time(), counts)}
        self._inner.put_samples([self._key], RESERVED_PARTITION, tags=[tag])

    def _clear_left_behind(self) -> None:
        """Remove the rows of clients that died long ago, which nobody else does."""
        for group in self._inner.list_metadata(RESERVED_PARTITION):
            line = decode_counts(group.tags.get(COUNTS_TAG)) if group.keys[0].startswith(COUNTS_PREFIX) else None
            if line is not None and time.time() - line[0] > _LEFT_BEHIND_S:
                self._inner.clear_samples(list(group.keys), RESERVED_PARTITION)
