"""The demo's output: live tables in a terminal, else a line every few seconds. It shows what the exporter sees.

The input is the exporter's snapshot, None while the exporter does not answer.
"""

from __future__ import annotations

import time
from typing import Final, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dataplane.groups import GROUP_STATES
from dataplane.visible import visible
from exporter.model.snapshot import Snapshot
from exporter.terminal.outside import make_console, visible_snapshot
from exporter.terminal.table import render_snapshot

__all__ = ["LiveScreen", "PlainScreen", "Screen", "build_screen", "line", "tables", "waiting"]

_PLAIN_EVERY_S: Final = 5.0
_MUTE: Final = "the exporter does not answer"


class Screen(Protocol):
    """Output of the demo. ``show`` is called about once a second."""

    def say(self, text: str) -> None:
        """Print a line about an event."""
        ...

    def show(self, snapshot: Snapshot | None) -> None:
        """Show what the exporter sees now."""
        ...

    def wait(self, what: str, seconds: float, limit: float | None = None) -> None:
        """Show for how long *what* has been awaited, and for how long it will be at most. Called now and then."""
        ...

    def close(self) -> None:
        """Restore the terminal."""
        ...


def build_screen(stream: TextIO | None = None) -> Screen:
    """Return a live screen for a terminal, else a plain one."""
    console = make_console(stream)
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


class PlainScreen:
    """Lines of text, one about the data plane every five seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._due = 0.0
        self._wait_due = 0.0

    def say(self, text: str) -> None:
        """See :meth:`Screen.say`."""
        self._console.print(visible(text), markup=False, soft_wrap=True)

    def show(self, snapshot: Snapshot | None) -> None:
        """See :meth:`Screen.show`."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _PLAIN_EVERY_S
            self.say(line(snapshot))

    def wait(self, what: str, seconds: float, limit: float | None = None) -> None:
        """See :meth:`Screen.wait`."""
        now = time.monotonic()
        if seconds >= _PLAIN_EVERY_S and now >= self._wait_due:
            self._wait_due = now + _PLAIN_EVERY_S
            self.say(waiting(what, seconds, limit))

    def close(self) -> None:
        """See :meth:`Screen.close`."""
        pass


class LiveScreen:
    """Tables that are redrawn below the printed lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, text: str) -> None:
        """See :meth:`Screen.say`."""
        self._console.print(visible(text), markup=False, soft_wrap=True)

    def show(self, snapshot: Snapshot | None) -> None:
        """See :meth:`Screen.show`."""
        self._draw(tables(snapshot))

    def wait(self, what: str, seconds: float, limit: float | None = None) -> None:
        """See :meth:`Screen.wait`."""
        self._draw(Text(waiting(what, seconds, limit), style="dim"))

    def _draw(self, shown: RenderableType) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(shown, refresh=True)

    def close(self) -> None:
        """See :meth:`Screen.close`."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def waiting(what: str, seconds: float, limit: float | None = None) -> str:
    """Return a line that says what is awaited, for how long already, and for how long at most."""
    most = "" if limit is None else f" of at most {limit:.0f} s"
    return f"waiting for {what}: {seconds:.0f} s{most}"


def line(snapshot: Snapshot | None) -> str:
    """Return *snapshot* as one line."""
    if snapshot is None:
        return _MUTE
    snapshot = visible_snapshot(snapshot)
    state = "degraded" if snapshot.degraded else "up" if snapshot.up else f"DOWN ({snapshot.discovery})"
    parts = [state, f"restarts {_restarts(snapshot)}"]
    for partition in snapshot.partitions:
        groups = ", ".join(f"{partition.groups[state]} {state}" for state in GROUP_STATES)
        version, lag = (
            "?" if value is None else value for value in (partition.reference_version, partition.staleness_max)
        )
        parts.append(f"{partition.partition}: {groups}; version {version}, lag at most {lag}")
    parts += [
        f"arrived {flow.arrived}, completed {flow.completed}, departed {flow.departed}, lost {flow.lost}"
        for flow in snapshot.flows
    ]
    return " | ".join(parts)


def tables(snapshot: Snapshot | None) -> RenderableType:
    """Return *snapshot* as tables: those of ``tq-exporter once``, and the flow."""
    if snapshot is None:
        return Text(_MUTE, style="bold red")
    snapshot = visible_snapshot(snapshot)
    return Group(render_snapshot(snapshot), _flow(snapshot), Text(f"Controller restarts: {_restarts(snapshot)}"))


def _flow(snapshot: Snapshot) -> Table:
    drawn = Table(title="Since the start", title_justify="left", title_style="bold", header_style="", box=None)
    drawn.pad_edge = False
    drawn.add_column("partition")
    columns = ("arrived", "completed", *(f"left {state}" for state in GROUP_STATES), "lost", "restored")
    for name in columns:
        drawn.add_column(name, justify="right")
    for flow in snapshot.flows:
        left = (flow.departed_by_state[state] for state in GROUP_STATES)
        counts = (flow.arrived, flow.completed, *left, flow.lost, flow.restored)
        drawn.add_row(Text(flow.partition), *map(str, counts))
    return drawn


def _restarts(snapshot: Snapshot) -> int:
    return max(snapshot.generation - 1, 0)
