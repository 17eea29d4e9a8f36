"""Figures, times and names as text, for the sentences of the conditions."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final

from dataplane.visible import visible
from exporter.model.snapshot import UnreadableReason

__all__ = ["UNREADABLE", "clock", "count", "percent", "quoted", "span"]

UNREADABLE: Final[dict[UnreadableReason, str]] = {
    "timeout": "timed out",
    "unavailable": "the controller did not answer",
    "refused": "too large",
    "held": "backing off after a failed listing",
    "pending": "not listed yet",
    "not_listable": "not listable: samples were put without keys",
    "error": "its reply cannot be read",
}
"""Why a partition cannot be read."""

_LONGEST_NAME: Final = 48


def clock(seconds: float) -> str:
    """Return a time in seconds since the epoch as a time of the day."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M:%S UTC")


def span(seconds: float) -> str:
    """Return a duration in its two largest units: ``12 s``, ``3 min 10 s``, ``2 h 5 min``."""
    whole = max(round(seconds), 0)
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def count(number: float) -> str:
    """Return a whole number with separators."""
    return f"{number:,.0f}"


def percent(ratio: float) -> str:
    """Return a ratio as a percentage. Only what is full is 100 %."""
    return "100 %" if ratio >= 1 else f"{min(ratio * 100, 99.9):.3g} %"


def quoted(name: str) -> str:
    """Return a name from outside in quotation marks, cut, with every sign visible."""
    cut = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return f"“{visible(cut)}”"
