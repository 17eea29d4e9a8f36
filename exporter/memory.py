"""Makes freed memory go back to the system, so that one large reply does not keep the process large."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["keep_memory_small"]

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def keep_memory_small() -> None:
    """Tell glibc's allocator to map large blocks one by one, and to share its heaps among threads.

    By default it raises the size from which blocks are mapped with every such block that is freed, and gives each of
    the threads that ask the storage units a heap of its own; both leave holes. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**20)
        mallopt(_M_ARENA_MAX, 2)
