"""Waiting for another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

_LONGEST_PAUSE_S = 0.1
_LOOKING_SHARE = 4


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait for *condition*; fail with *what* when it does not come true in time.

    It is looked at often at first, then ten times a second, and never for more than a fifth of the time: a look may be
    a scrape, which takes the CPU that the process under test needs.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    while True:
        began = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(max(pause_s, min(_LOOKING_SHARE * (now - began), 10 * _LONGEST_PAUSE_S)))
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
