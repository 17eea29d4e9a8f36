"""``tq-exporter top``, and ``once --watch``: the page in the terminal."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from exporter.arguments import add_remote_arguments, duration, fail, printing, remote_of
from exporter.config import Config
from exporter.config.values import Duration

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.app import Watched
    from exporter.model.snapshot import Snapshot
    from exporter.terminal.frame import Feed, Frame

__all__ = ["add_arguments", "add_interval", "run", "watch_here"]

_FIRST_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``top`` to *parser*."""
    parser.add_argument(
        "--watch", action="store_true", help="in a pipe or on a dumb terminal: print a page per interval"
    )
    add_interval(parser)
    add_remote_arguments(parser)


def add_interval(parser: argparse.ArgumentParser) -> None:
    """Add ``--interval`` to *parser*."""
    parser.add_argument(
        "--interval",
        type=duration(Annotated[Duration, Meta(ge=0.5, le=3600)]),
        default=2.0,
        metavar="DURATION",
        help="time between two pages (default: 2s)",
    )


def run(options: argparse.Namespace, load: Callable[[], Config]) -> int:
    """Run ``top``; *load* reads the configuration. Returns 0; 1 when a single page has nothing to show."""
    from exporter.app import watched
    from exporter.terminal.frame import RemoteFeed
    from exporter.terminal.live import can_be_live

    remote = remote_of(options, os.environ)
    config = load()
    if remote is not None:
        return _show(RemoteFeed(remote, time.time), options, lambda: False)
    with watched(config) as seen:
        if not can_be_live(_console()):
            seen.listed(_FIRST_S)
        return _show(_OwnFeed(seen), options, lambda: seen.wait(0))


def watch_here(config: Config, seconds: float, interval_s: float) -> Snapshot:
    """Show the page of own polls for *seconds* after the first listing, or until q; return the last snapshot."""
    from exporter.app import watched
    from exporter.terminal.live import can_be_live, show_live

    with watched(config, seconds) as seen:
        begins: list[float] = [time.monotonic()]

        def over() -> bool:
            if len(begins) == 1 and seen.snapshot().trained is not None:
                begins.append(time.monotonic())
            return seen.wait(0) or time.monotonic() - begins[-1] >= seconds

        console = _console()
        if can_be_live(console):
            show_live(_OwnFeed(seen), console, interval_s=interval_s, stopped=over)
        else:
            while not over():
                _print(_OwnFeed(seen).next(), console)
                seen.wait(interval_s)
        return seen.snapshot()


class _OwnFeed:
    """Frames of own polls."""

    def __init__(self, seen: Watched) -> None:
        self._seen = seen

    def next(self) -> Frame:
        from exporter.model.window import decode_window
        from exporter.terminal.frame import Frame

        return Frame("own polls", self._seen.snapshot(), decode_window(self._seen.history.encode("recent")))


def _show(feed: Feed, options: argparse.Namespace, stopped: Callable[[], bool]) -> int:
    from exporter.terminal.live import can_be_live, show_live

    console = _console()
    if can_be_live(console):
        show_live(feed, console, interval_s=options.interval, stopped=stopped)
        return 0
    while True:
        frame = feed.next()
        if not options.watch and frame.snapshot is None:
            return fail(frame.why or "there is nothing to show", 1)
        _print(frame, console)
        if not options.watch:
            return 0
        until = time.monotonic() + options.interval
        while (left_s := until - time.monotonic()) > 0:
            if stopped():
                return 0
            time.sleep(min(left_s, 0.25))


def _console() -> Console:
    """Return the console: where no terminal is, as wide as it needs, unless ``COLUMNS`` says how wide."""
    from exporter.terminal.outside import make_console
    from exporter.terminal.table import PLAIN_WIDTH

    console = make_console()
    return console if console.is_terminal or os.environ.get("COLUMNS") else make_console(width=PLAIN_WIDTH)


def _print(frame: Frame, console: Console) -> None:
    from exporter.terminal.live import print_frame

    with printing():
        print_frame(frame, console)
        console.print()
        console.file.flush()
