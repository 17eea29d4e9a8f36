"""``tq-exporter once``: one poll, or a while of them, without serving anything."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta

from dataplane.visible import visible_json
from exporter.arguments import duration, fail, print_out, printing
from exporter.commands.top import add_interval
from exporter.config import Config
from exporter.config.values import Duration

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags to *parser*."""
    parser.add_argument("--json", action="store_true", help="print the snapshot as JSON instead of a table")
    parser.add_argument(
        "--watch",
        type=duration(Annotated[Duration, Meta(ge=1, le=3600)]),
        nargs="?",
        const=math.inf,
        metavar="DURATION",
        help="poll at the configured intervals for this long, such as 60s, then print also what happened in that time; "
        "a terminal shows a page until then. Without DURATION it ends with q or Ctrl-C",
    )
    add_interval(parser)
    parser.add_argument("--strict", action="store_true", help="exit code 3 also while a warning holds")


def run(options: argparse.Namespace, load: Callable[[], Config]) -> int:
    """Run the command; *load* reads the configuration. For the exit code see :func:`exporter.cli.main`."""
    config = load()
    from exporter import app
    from exporter.diagnosis.verdict import exit_code
    from exporter.model.snapshot import encode_snapshot

    watched_s: float | None = options.watch
    if watched_s is None:
        snapshot = app.poll_once(config)
    elif not options.json and (math.isinf(watched_s) or sys.stdout.isatty()):
        from exporter.commands.top import watch_here

        snapshot = watch_here(config, watched_s, options.interval)
    else:
        snapshot = app.watch(config, watched_s)
    if options.json:
        print_out(visible_json(encode_snapshot(snapshot).decode()))
    else:
        from exporter.terminal.table import print_snapshot

        with printing():
            print_snapshot(snapshot, watched_s=None if watched_s == math.inf else watched_s)
    if snapshot.up:
        return exit_code(snapshot, strict=options.strict)
    reasons = [f"{source.source}: {source.detail}" for source in snapshot.sources if source.detail]
    why = "; ".join(reasons) or f"discovery: {snapshot.discovery.replace('_', ' ')}"
    return fail(f"TransferQueue did not answer: {why}", 1)
