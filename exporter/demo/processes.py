"""Child processes of the demo: started so that they cannot outlive it, killed by their process ids."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

__all__ = ["adopt_orphans", "descendants", "end_all", "start"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def start(command: Sequence[str], *, env: Mapping[str, str], log: Path, piped: bool = False) -> subprocess.Popen[bytes]:
    """Start *command* in a session of its own, so that a terminal's Ctrl-C reaches only this process.

    On Linux it gets SIGTERM when this process dies for any reason. With *piped* its standard input and output are
    pipes. Its standard error always goes to *log*.
    """
    pipe: IO[bytes] | int = subprocess.PIPE if piped else subprocess.DEVNULL
    with log.open("ab") as sink:
        return subprocess.Popen(  # noqa: S603 - our own modules
            command,
            stdin=pipe,
            stdout=pipe if piped else sink,
            stderr=sink,
            env=dict(env),
            start_new_session=True,
            preexec_fn=None if _libc is None or piped else _end_with_parent,  # noqa: PLW1509 - one system call
        )


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none escapes the clean-up (Linux)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """Return the ids of all processes that descend from this one (Linux; elsewhere none)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The second field is the command's name in parentheses, which may contain any character.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        offspring = children.get(queue.pop(), [])
        found += offspring
        queue += offspring
    return found


def end_all(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> None:
    """Wait *timeout_s* seconds for *processes* to exit, then kill all descendants that are left."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
    own = {process.pid for process in processes}
    # The children of a killed process become children of this one.
    for _ in range(10):
        left = [process.pid for process in processes if process.poll() is None]
        left += [pid for pid in descendants() if pid not in own and _is_alive(pid)]
        if not left:
            return
        _kill(left)
        time.sleep(0.1)


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    """Whether an adopted process still runs. Reaps it when it has ended."""
    with contextlib.suppress(ChildProcessError):
        ended, _ = os.waitpid(pid, os.WNOHANG)
        return ended == 0
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


# Runs between fork and exec: only this one call, into a library that is loaded already.
def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # type: ignore[union-attr]
