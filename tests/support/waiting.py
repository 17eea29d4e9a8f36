"""Waiting for another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

_LONGEST_PAUSE_S = 0.1


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait for *condition*; fail with *what* when it does not come true in time.

    It is looked at often at first, then ten times a second: a look may be a scrape, which takes the CPU that the
    process under test needs.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
