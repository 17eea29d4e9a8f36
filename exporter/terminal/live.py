"""Shows frames: on a terminal until q is pressed, elsewhere one after the other."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from exporter.terminal.frame import Feed, Frame
from exporter.terminal.page import page_lines

__all__ = ["can_be_live", "print_frame", "show_live"]

_LOOK_S: Final = 0.25
"""How often keys, the size and the age of what is shown are looked at."""
_REDRAWN_S: Final = 1.0
_ENDING: Final = b"qQ\x03\x04"


def can_be_live(console: Console) -> bool:
    """Return whether the console is a terminal that can be redrawn."""
    return console.is_terminal and not console.is_dumb_terminal


def print_frame(frame: Frame, console: Console) -> None:
    """Print a frame once, all of it."""
    for line in page_lines(frame, console, time.time()):
        console.print(line)


def show_live(
    feed: Feed,
    console: Console,
    *,
    interval_s: float,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Redraw the page with a new frame every *interval_s* seconds until q, Ctrl-C or SIGTERM, or *stopped*.

    Frames are read on a thread of their own: keys and changes of size never wait for one.

    Args:
        feed: Gives the frames.
        console: A terminal, see :func:`can_be_live`.
        interval_s: Seconds between two frames.
        stopped: Whether to end, for other reasons.
    """
    shown = _Shown(feed, interval_s)
    page = Live(console=console, screen=True, auto_refresh=False, transient=True)
    with _ended_by_signals(shown.ended.set), _keys() as pressed, shown, page:
        drawn: tuple[object, ...] = ()
        while not (shown.ended.is_set() or stopped()):
            now = time.time()
            state = (shown.number, console.size, int(now / _REDRAWN_S))
            if state != drawn:
                drawn = state
                page.update(Group(*_screen(shown.frame, console, now)), refresh=True)
            if any(key in _ENDING for key in pressed(_LOOK_S)):
                break


def _screen(frame: Frame, console: Console, now: float) -> list[Text]:
    height = max(console.height - 1, 1)
    lines = page_lines(frame, console, now, height=height)
    lines += [Text()] * (height - len(lines))
    foot = Text(f"q ends; {frame.origin}", style="dim", no_wrap=True)
    foot.truncate(console.width, overflow="ellipsis")
    return [*lines, foot]


class _Shown:
    """The newest frame, read in the background."""

    def __init__(self, feed: Feed, interval_s: float) -> None:
        self._feed = feed
        self._interval_s = interval_s
        self.ended = threading.Event()
        self.frame = Frame("the first answer")
        self.number = 0

    def __enter__(self) -> _Shown:
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()  # a reading in flight ends at its own deadline, and nothing waits for it

    def _read(self) -> None:
        while not self.ended.is_set():
            self.frame = self._feed.next()
            self.number += 1
            self.ended.wait(self._interval_s)


@contextlib.contextmanager
def _ended_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM, SIGHUP and Ctrl-C end the page, so that the terminal is put back as it was."""

    def handle(number: int, frame: FrameType | None) -> None:
        end()

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Yield a function that returns the keys pressed within so many seconds, without waiting for the end of a line."""
    try:
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (OSError, ValueError, AttributeError, termios.error):  # closed, or no terminal
        yield _no_keys
        return
    tty.setcbreak(keyboard)
    try:
        yield lambda seconds: _pressed(keyboard, seconds)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _no_keys(seconds: float) -> bytes:
    time.sleep(seconds)
    return b""


def _pressed(keyboard: int, seconds: float) -> bytes:
    with contextlib.suppress(InterruptedError):
        ready, _, _ = select.select([keyboard], [], [], seconds)
        if ready:
            return os.read(keyboard, 64) or b"q"  # the terminal is gone
    return b""
