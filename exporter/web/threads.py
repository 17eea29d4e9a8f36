"""Work that must not block the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_daemon_thread"]

T = TypeVar("T")


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Run *function* on a thread of its own and return what it returns; the caller bounds how many run.

    ``asyncio.to_thread`` and its like join their threads when the process ends: one that hangs, on a disk for example,
    would keep the process alive.
    """
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # from here on a cancelled caller leaves the future to the thread

    def run() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # the caller's, as with any call
            result.set_exception(error)

    threading.Thread(target=run, name="web-work", daemon=True).start()
    return await asyncio.wrap_future(result)
