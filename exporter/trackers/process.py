"""Starts, asks and kills the process of one tracker."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from exporter.trackers.base import Order, Outcome, Point

__all__ = ["TrackerProcess"]

# Not with -m, which would put the working directory before the installed packages: trackers make folders there that
# have the names of their packages.
_COMMAND: Final = (
    sys.executable,
    "-c",
    "import sys; sys.path[:] = filter(None, sys.path); from exporter.trackers.child import main; main()",
)
_MAX_ANSWER: Final = 65536


class TrackerProcess:
    """One tracker's process, and all that it starts. One thread asks; :meth:`close` may come from another.

    Args:
        order: The tracker.
        command: How to start the process; for tests.
    """

    def __init__(self, order: Order, command: tuple[str, ...] = _COMMAND) -> None:
        self._order = order
        self._command = command
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's id, None while there is none."""
        child = self._child
        return None if child is None else child.pid

    def start(self, timeout_s: float) -> Outcome:
        """Start the process and its tracker. The outcome says why that failed; the process is then gone."""
        with self._lock:
            if self._closed:
                return Outcome("it is closed")
            try:
                self._child = subprocess.Popen(  # noqa: S603 - a fixed command
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # in a process group of its own: killed as a unit, receives no Ctrl-C
                )
            except OSError as error:
                return Outcome(f"cannot start its process: {error.strerror or error}")
        outcome = self._ask(self._order, timeout_s)
        if outcome.error is not None:
            self.kill()
        return outcome

    def log(self, point: Point, timeout_s: float) -> Outcome:
        """Have a point written. Without an answer in time the process is killed: it hangs."""
        return self._ask(point, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """End the input, so that the tracker writes what is left, and kill after *timeout_s* what is still there.

        Returns:
            Whether it ended by itself.
        """
        with self._lock:
            self._closed = True
            child = self._child
        if child is None:
            return True
        with contextlib.suppress(OSError):  # BrokenPipeError: it has ended
            if child.stdin is not None:
                child.stdin.close()
        ended = True
        try:
            child.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            ended = False
        self.kill()
        return ended

    def kill(self) -> None:
        """Kill the process and every process that it started."""
        with self._lock:
            child, self._child = self._child, None
            if child is None:
                return
            if child.returncode is None:  # reaped ids are reused
                for pid in (*_descendants(child.pid), child.pid):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _ask(self, message: Order | Point, timeout_s: float) -> Outcome:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            return Outcome("its process has ended")
        try:
            _write(child.stdin.fileno(), msgspec.json.encode(message) + b"\n", time.monotonic() + timeout_s)
            line = _read_line(child.stdout.fileno(), time.monotonic() + timeout_s)
            return msgspec.json.decode(line, type=Outcome)
        except TimeoutError:
            self.kill()
            return Outcome(f"it did not answer within {timeout_s:g} s; its process was killed")
        except (OSError, EOFError, ValueError, msgspec.DecodeError):
            self.kill()
            code = child.returncode
            return Outcome(f"its process has ended with {code}")


def _write(fd: int, data: bytes, deadline: float) -> None:
    """Write *data* into a pipe whose reader may have stopped."""
    os.set_blocking(fd, False)
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_WRITE)
        while data:
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise TimeoutError
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(fd, data) :]


def _read_line(fd: int, deadline: float) -> bytes:
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise TimeoutError
            chunk = os.read(fd, _MAX_ANSWER)
            line += chunk
            if not chunk or len(line) > _MAX_ANSWER:
                raise EOFError("the process has ended") if not chunk else ValueError("the answer is too long")
    return line


def _descendants(pid: int) -> list[int]:
    """Return the processes that *pid* has started, children of children first; those of wandb leave its group."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError, ValueError):
            for child in map(int, children.read_text().split()):
                found += [*_descendants(child), child]
    return found
