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
    """Run *function* on a new daemon thread and return its result. The caller limits how many run.

    ``asyncio.to_thread`` is not used because its threads are joined when the process ends: one that hangs, for example
    on a disk, would keep the process alive.
    """
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # from here on, a cancelled caller cannot cancel the future

    def run() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # passed on to the caller, as with any call
            result.set_exception(error)

    threading.Thread(target=run, name="web-work", daemon=True).start()
    return await asyncio.wrap_future(result)
