"""What others wrote, shown on a terminal: the way of every snapshot to one."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import msgspec
from rich.console import Console

from dataplane.visible import visible
from exporter.model.snapshot import Snapshot

__all__ = ["make_console", "visible_snapshot"]


def make_console(stream: TextIO | None = None, *, width: int | None = None) -> Console:
    """Return a console that takes every text as it is: ``[bold]`` or ``:warning:`` in a name is no markup."""
    return Console(file=stream or sys.stdout, width=width, markup=False, emoji=False, highlight=False)


def visible_snapshot(snapshot: Snapshot) -> Snapshot:
    """Return *snapshot* with every text in it visible, so that no renderer can forget one."""
    return msgspec.convert(_visible(msgspec.to_builtins(snapshot, enc_hook=dict)), Snapshot)


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {_visible(name): _visible(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible(inner) for inner in value]
    return value
