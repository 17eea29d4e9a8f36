"""What others wrote, shown on a terminal: the way of every snapshot to one."""

from __future__ import annotations

import sys
from typing import Any, TextIO, TypeVar

import msgspec
from rich.console import Console

from dataplane.visible import visible
from exporter.model.snapshot import Snapshot

__all__ = ["make_console", "visible_copy", "visible_snapshot"]

T = TypeVar("T")


def make_console(stream: TextIO | None = None, *, width: int | None = None) -> Console:
    """Return a console that takes every text as it is: ``[bold]`` or ``:warning:`` in a name is no markup."""
    return Console(file=stream or sys.stdout, width=width, markup=False, emoji=False, highlight=False)


def visible_snapshot(snapshot: Snapshot) -> Snapshot:
    """Return *snapshot* with every text in it visible, so that no renderer can forget one."""
    return visible_copy(snapshot)


def visible_copy(value: T) -> T:
    """Return a dataclass or struct with every text in it visible."""
    return msgspec.convert(_visible(msgspec.to_builtins(value, enc_hook=dict)), type(value))


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {_visible(name): _visible(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible(inner) for inner in value]
    return value
