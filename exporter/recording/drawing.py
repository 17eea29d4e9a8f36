"""Inline SVG for the report: a time axis, the strip of states, a lane of events, and lines over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape
from typing import Final

from dataplane.visible import visible

__all__ = ["Axis", "Bar", "Line", "bars", "chart", "safe", "time_of"]

WIDTH: Final = 1000
_HEIGHT: Final = 120
_LANE: Final = 18
_LEFT: Final = 4
_TICKS_S: Final = (10, 30, 60, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800)
_MOST_TICKS: Final = 8

Values = Sequence[float | int | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its label, its tone (a class of the page's style), and a value per time."""

    label: str
    tone: str
    values: Values


@dataclass(frozen=True, slots=True)
class Bar:
    """A time in a lane: from when to when, its tone, and what it says."""

    begin: float
    end: float
    tone: str
    title: str


def safe(text: object) -> str:
    """Return outside text as HTML: nothing in it is obeyed, and every character shows."""
    return escape(visible(str(text)))


def time_of(seconds: float, form: str = "%d %b %Y %H:%M:%S") -> str:
    """Return a time in seconds since the epoch, in UTC."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime(form)
    except (ValueError, OverflowError, OSError):  # a damaged row
        return "unknown time"


class Axis:
    """Where a time is drawn.

    Args:
        begin: The left end, seconds since the epoch.
        end: The right end.
    """

    def __init__(self, begin: float, end: float) -> None:
        self.begin, self.end = begin, max(end, begin + 1)

    def x(self, time: float) -> float:
        """Return the place of a time, kept within the drawing."""
        share = (time - self.begin) / (self.end - self.begin)
        return round(WIDTH * min(max(share, 0.0), 1.0), 2)

    def ticks(self) -> list[float]:
        """Return the times of the marks, on whole minutes, hours or days."""
        length = self.end - self.begin
        step = next((one for one in _TICKS_S if length / one <= _MOST_TICKS), _TICKS_S[-1])
        step *= max(math.ceil(length / step / _MOST_TICKS), 1)
        first = math.ceil(self.begin / step) * step
        return [first + step * index for index in range(int((self.end - first) // step) + 1)]

    def labels(self) -> str:
        """Return the axis below a drawing, as text."""
        form = (
            "%H:%M:%S" if self.end - self.begin < 600 else "%H:%M" if self.end - self.begin < 72000 else "%d %b %H:%M"
        )
        marks = "".join(
            f'<text x="{self.x(tick)}" y="12" text-anchor="middle">{time_of(tick, form)}</text>'
            for tick in self.ticks()
            if 25 < self.x(tick) < WIDTH - 25
        )
        return f'<svg class="marks" viewBox="0 0 {WIDTH} 16" role="presentation">{marks}</svg>'

    def rules(self, height: float) -> str:
        """Return thin lines at the marks."""
        return "".join(f'<path class="mark" d="M{self.x(tick)} 0V{height:g}"/>' for tick in self.ticks())


def bars(axis: Axis, lanes: Iterable[tuple[str, Sequence[Bar]]], *, label: str) -> str:
    """Return lanes of times, one below the other, each with its name before it."""
    drawn = []
    for name, lane in lanes:
        rects = "".join(
            f'<rect data-tone="{bar.tone}" x="{axis.x(bar.begin)}" y="2" height="{_LANE - 4}" '
            f'width="{max(axis.x(bar.end) - axis.x(bar.begin), 2):.2f}"><title>{safe(bar.title)}</title></rect>'
            for bar in lane
        )
        said = safe(f"{name}: {'; '.join(bar.title for bar in lane[:20]) or 'nothing'}")
        drawn.append(
            f'<div class="lane"><span>{safe(name)}</span><svg class="lane-bars" viewBox="0 0 {WIDTH} {_LANE}" '
            f'preserveAspectRatio="none" role="img" aria-label="{said}">{axis.rules(_LANE)}{rects}</svg></div>'
        )
    foot = f'<div class="lane"><span></span>{axis.labels()}</div>'
    return f'<div class="lanes" role="group" aria-label="{safe(label)}">{"".join(drawn)}{foot}</div>'


def chart(
    axis: Axis, times: Sequence[float], lines: Sequence[Line], *, title: str, gap_s: float, unit: str = ""
) -> str:
    """Return lines over time. A line has a gap where its value is unknown, and over more than *gap_s* seconds."""
    known = [value for line in lines for value in line.values if value is not None and math.isfinite(value)]
    if not known:
        return f'<figure class="chart"><figcaption>{safe(title)}: nothing is known</figcaption></figure>'
    top = _nice(max(known))
    paths = "".join(
        f'<path class="line tone-{line.tone}" d="{_path(axis, times, line.values, top, gap_s)}"/>' for line in lines
    )
    legend = "".join(
        f'<li><i class="swatch tone-{line.tone}" aria-hidden="true"></i>{safe(line.label)} {_range(line.values)}</li>'
        for line in lines
    )
    said = safe(f"{title}: " + ", ".join(f"{line.label} {_range(line.values)}" for line in lines))
    return (
        f'<figure class="chart"><h3>{safe(title)}</h3><div class="plot">'
        f'<svg viewBox="0 0 {WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{said}">'
        f'{axis.rules(_HEIGHT)}{paths}</svg><span class="y-top">{top:g}{safe(unit)}</span></div>'
        f'{axis.labels()}<figcaption><ul class="legend">{legend}</ul></figcaption></figure>'
    )


def _path(axis: Axis, times: Sequence[float], values: Values, top: float, gap_s: float) -> str:
    parts: list[str] = []
    before: float | None = None
    for at, value in zip(times, values, strict=True):
        if value is None or not math.isfinite(value):
            before = None
            continue
        joined = before is not None and at - before <= gap_s
        point = f"{axis.x(at):g} {round(_HEIGHT * (1 - value / top), 1):g}"
        # A point alone has no length; round line caps make it a dot.
        parts.append(f"L{point}" if joined else f"M{point}h0.01")
        before = at
    return "".join(parts)


def _nice(value: float) -> float:
    """Return the next larger of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999), 10 * power)


def _range(values: Values) -> str:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return "unknown"
    low, high = min(known), max(known)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
