"""The conditions that hold, and those that could not be judged, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from exporter.model.condition import Severity
from exporter.model.snapshot import Snapshot

__all__ = ["MARKS", "findings", "well"]

MARKS: Final[dict[Severity, tuple[str, str]]] = {
    "critical": ("!!", "bold red"),
    "warning": ("!", "yellow"),
    "notice": ("-", "cyan"),
}


def well(snapshot: Snapshot) -> Iterator[Text]:
    """Yield a line per condition that says that all is well."""
    for one in snapshot.conditions:
        if one.holds and one.severity == "ok":
            yield Text(f"{one.text[0].upper()}{one.text[1:]}.", style="green")


def findings(snapshot: Snapshot) -> Iterator[Text]:
    """Yield a line per condition that says that something is wrong: its text, where to look, its name, what to do."""
    for one in snapshot.held:
        mark, style = MARKS[one.severity]
        line = Text(f"{mark} {one.text}", style=style)
        yield line.append(f" ({one.stage.replace('_', ' ')}, {one.name})", style="dim")
        if one.severity != "notice":
            yield Text(f"  {one.remedy} {one.runbook}", style="dim")
