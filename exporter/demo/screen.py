"""What the demo shows: a live table in a terminal, a line now and then elsewhere. It shows what the exporter sees.

The input is the exporter's ``/api/v1/snapshot`` as parsed JSON, None while the exporter does not answer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dataplane.groups import GROUP_STATES
from exporter.snapshot import LAG_BUCKETS

__all__ = ["LiveScreen", "PlainScreen", "Screen", "Seen", "build_screen", "line", "table"]

Seen = Mapping[str, Any] | None

_PLAIN_EVERY_S: Final = 5.0
_NEWS_KEPT: Final = 6


class Screen(Protocol):
    """Where the demo speaks. ``show`` is called about once a second."""

    def say(self, text: str) -> None:
        """Tell something that happened."""
        ...

    def show(self, seen: Seen) -> None:
        """Show what the exporter sees now."""
        ...

    def close(self) -> None:
        """Give the terminal back."""
        ...


def build_screen(stream: TextIO | None = None) -> Screen:
    """Return a live screen for a terminal, else a plain one."""
    console = Console(file=stream or sys.stdout, highlight=False)
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


class PlainScreen:
    """Lines of text, one about the data plane every five seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._due = 0.0

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def show(self, seen: Seen) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _PLAIN_EVERY_S
            self.say(line(seen))

    def close(self) -> None:
        pass


class LiveScreen:
    """One table that is drawn over and over, under what was said before it; news stays below it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._news: list[str] = []

    def say(self, text: str) -> None:
        if self._live is None:
            self._console.print(text, markup=False, soft_wrap=True)
        else:
            self._news = [*self._news, f"{time.strftime('%H:%M:%S')} {text}"][-_NEWS_KEPT:]

    def show(self, seen: Seen) -> None:
        view = Group(table(seen), *(Text(news, style="yellow") for news in self._news))
        if self._live is None:
            self._live = Live(view, console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(view, refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def line(seen: Seen) -> str:
    """Return *seen* as one line."""
    if seen is None:
        return "the exporter does not answer"
    parts = ["up" if seen["up"] else f"DOWN ({seen['discovery']})", f"restarts {_restarts(seen)}"]
    for partition in seen["partitions"]:
        groups = ", ".join(f"{partition['groups'][state]} {state}" for state in GROUP_STATES)
        parts.append(
            f"{partition['partition']}: {groups}; version {_known(partition['reference_version'])}, "
            f"lag at most {_known(partition['staleness_max'])}"
        )
    parts += [f"arrived {flow['arrived']}, departed {flow['departed']}, lost {flow['lost']}" for flow in seen["flows"]]
    return " | ".join(parts)


def table(seen: Seen) -> RenderableType:
    """Return *seen* as a table for people."""
    if seen is None:
        return Text("the exporter does not answer", style="bold red")
    state = Text("data plane up", style="bold green") if seen["up"] else Text("data plane DOWN", style="bold red")
    state.append(f"   discovery {seen['discovery']}   restarts {_restarts(seen)}", style="default")
    return Group(state, _partitions(seen), _storage(seen))


def _partitions(seen: Mapping[str, Any]) -> Table:
    flows = {flow["partition"]: flow for flow in seen["flows"]}
    partitions = {partition["partition"]: partition for partition in seen["partitions"]}
    drawn = Table(title="groups, as the exporter sees them", title_justify="left")
    drawn.add_column("partition")
    for name in (*GROUP_STATES, "keys", "version", *(f"lag {bucket}" for bucket in LAG_BUCKETS)):
        drawn.add_column(name, justify="right")
    for name in ("arrived", "departed", "lost"):
        drawn.add_column(name, justify="right")
    for name in sorted(partitions.keys() | flows.keys()):
        partition, flow = partitions.get(name), flows.get(name)
        resident: list[str] = ["-"] * (len(GROUP_STATES) + 2 + len(LAG_BUCKETS))
        if partition is not None:
            resident = [
                *(_known(partition["groups"][state]) for state in GROUP_STATES),
                _known(partition["keys"]),
                _known(partition["reference_version"]),
                *(_known(partition["staleness"].get(bucket)) for bucket in LAG_BUCKETS),
            ]
        passed = [_known(None if flow is None else flow[key]) for key in ("arrived", "departed", "lost")]
        drawn.add_row(name, *resident, *passed)
    return drawn


def _storage(seen: Mapping[str, Any]) -> Text:
    units = (
        f"unit {unit['index']}: {_known(unit['keys'])} of {_known(unit['capacity'])} rows" for unit in seen["storage"]
    )
    return Text("storage   " + ("   ".join(units) or "-"))


def _restarts(seen: Mapping[str, Any]) -> int:
    return max(int(seen["generation"]) - 1, 0)


def _known(value: object) -> str:
    return "-" if value is None else str(value)
