"""One thread per source, so that a poll that hangs delays no other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

__all__ = ["Worker"]


class Worker:
    """Runs one job at a time on a daemon thread of its own.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a job is running or about to run."""
        return not self._idle.is_set()

    def submit(self, job: Callable[[], None]) -> bool:
        """Run *job*, which must not raise. While the last one still runs, drop it and return False."""
        if not self._idle.is_set():
            return False
        self._idle.clear()
        self._jobs.put(job)
        return True

    def stop(self) -> None:
        """End the thread after the running job."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; return whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                self._idle.set()
