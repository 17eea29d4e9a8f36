"""The cells in which calls are counted: threads lose no count, wherever one interrupts another."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dataplane.observability.tally import Cell
from dataplane.operations import OPERATIONS


class _Lock:
    """A lock that reports when a thread has to wait for it."""

    def __init__(self, waited: threading.Event) -> None:
        self._lock = threading.Lock()
        self._waited = waited

    def acquire(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waited.set()
            self._lock.acquire()

    def release(self) -> None:
        self._lock.release()


class _Interrupted(int):
    """A number that, while it is being added, lets another thread count a call: between reading and writing."""

    other: threading.Thread
    moved: threading.Event

    def __add__(self, amount: int) -> int:
        self.other.start()
        assert self.moved.wait(60)  # the other thread waits for the lock, or has counted
        return int(self) + amount


@pytest.mark.parametrize("total", ["buckets", "nanoseconds", "keys", "bytes"])
def test_a_cell_loses_no_call_that_another_thread_counts_meanwhile(total: str) -> None:
    cell, moved = Cell(OPERATIONS["pop"], "train", None), threading.Event()
    cell.lock = _Lock(moved)  # type: ignore[assignment]

    def count() -> None:
        cell.add(1, 2, 3)
        moved.set()

    number = _Interrupted(0)
    number.other, number.moved = threading.Thread(target=count), moved
    value: Any = [number, *cell.buckets[1:]] if total == "buckets" else number
    setattr(cell, total, value)
    cell.add(1, 2, 3)
    number.other.join(60)
    assert (cell.count, cell.nanoseconds, cell.keys, cell.bytes) == (2, 2, 4, 6)
