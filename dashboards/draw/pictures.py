"""The pictures of a dashboard: one for each of its rows, with the panels where the grid has them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from dashboards.draw.answers import COLUMN_PX, Answer, Board, Series
from dashboards.draw.look import BACKGROUND, CANVAS, TEXT, Look, contrast, shown

__all__ = ["paint"]

_DPI: Final = 100
_ROW_PX: Final = 38
_GAP_PX: Final = 8
_TITLE_PX: Final = 30
_LINE_PX: Final = 16
_FONT: Final = 8.0
_LEGEND_SHARE: Final = 0.35
_CHAR_PX: Final = 6.3

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


def paint(board: Board, answers: Sequence[Answer], folder: Path, start: float, end: float) -> list[Path]:
    """Draw *board* and return the paths of the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = [answer for answer in answers if answer.panel["type"] == "annotation"]
    by_id = {answer.panel["id"]: answer for answer in answers if "id" in answer.panel}
    sections: list[tuple[str, list[Answer]]] = []
    for panel in board["panels"]:
        if panel["type"] == "row":
            sections.append((panel["title"], []))
        else:
            sections[-1][1].append(by_id[panel["id"]])
    paths = []
    for number, (title, found) in enumerate(sections, start=1):
        word = re.sub(r"\W+", "-", title.partition("(")[0]).strip("-").lower()
        paths.append(folder / f"{board['uid']}-{number}-{word}.png")
        _picture(title, found, notes, start, end).savefig(paths[-1], facecolor=CANVAS)
    return paths


def _picture(title: str, answers: Sequence[Answer], notes: Sequence[Answer], start: float, end: float) -> Figure:
    places = [answer.panel["gridPos"] for answer in answers]
    top = min(place["y"] for place in places)
    height = max(place["y"] + place["h"] for place in places) - top
    figure = Figure((24 * COLUMN_PX / _DPI, (height + 1) * _ROW_PX / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    page = _Page(figure, start, end, notes)
    page.write(title, (10, 8), size=11)
    for answer in answers:
        place = answer.panel["gridPos"]
        left, above = place["x"] * COLUMN_PX, (place["y"] - top + 1) * _ROW_PX
        page.panel(answer, (left, above, place["w"] * COLUMN_PX - _GAP_PX, place["h"] * _ROW_PX - _GAP_PX))
    return figure


class _Page:
    def __init__(self, figure: Figure, start: float, end: float, notes: Sequence[Answer]) -> None:
        self._figure = figure
        self._width, self._height = (side * _DPI for side in figure.get_size_inches())
        self._start, self._end = start, end
        every = 600 * math.ceil((end - start) / 4200)
        self._ticks = range(math.ceil(start / every) * every, math.floor(end) + 1, every)
        self._notes = notes

    def write(self, text: str, at: tuple[float, float], *, size: float = _FONT, colour: str = TEXT, **how: Any) -> None:
        """Write *text* whose upper left corner is *at*."""
        how = {"va": "top", **how}
        self._figure.text(at[0] / self._width, 1 - at[1] / self._height, text, color=colour, fontsize=size, **how)

    def panel(self, answer: Answer, box: Box) -> None:
        """Draw a panel."""
        self._fill(box, BACKGROUND)
        panel = answer.panel
        self.write(panel["title"], (box[0] + 8, box[1] + 7), size=9, weight="bold")
        inner = (box[0] + 8, box[1] + _TITLE_PX, box[2] - 16, box[3] - _TITLE_PX - 6)
        painters: dict[str, Callable[[Answer, Box], None]] = {
            "timeseries": self._over_time,
            "state-timeline": self._timeline,
            "stat": self._tiles,
            "table": self._table,
        }
        if any(not math.isnan(value) for series in answer.series for value in series.values):
            painters[panel["type"]](answer, inner)
            return
        nothing = panel["fieldConfig"]["defaults"].get("noValue") or "No data"
        middle = (box[0] + box[2] / 2, box[1] + (box[3] + _TITLE_PX) / 2)
        self.write(nothing, middle, size=11, ha="center", va="center")

    def _on_figure(self, box: Box) -> Box:
        left, above, width, height = box
        below = 1 - (above + height) / self._height
        return left / self._width, below, max(width, 1) / self._width, max(height, 1) / self._height

    def _fill(self, box: Box, colour: str) -> None:
        left, below, width, height = self._on_figure(box)
        self._figure.add_artist(Rectangle((left, below), width, height, color=colour, lw=0, zorder=-1))

    def _axes(self, box: Box) -> Axes:
        """Return axes without matplotlib's own axis, whose ticks take most of the time."""
        axes = self._figure.add_axes(self._on_figure(box))
        axes.set_axis_off()
        return axes

    def _finish(self, axes: Axes, box: Box, unit: str | None) -> None:
        """Draw the grid, its numbers and the annotations of *axes*, which are at *box*; without *unit* only times."""
        low, high = axes.get_ylim()
        axes.set_xlim(self._start, self._end)
        axes.set_ylim(low, high)
        for at in self._ticks:
            left = box[0] + (at - self._start) / (self._end - self._start) * box[2]
            clock = datetime.fromtimestamp(at, timezone.utc).strftime("%H:%M")
            self.write(clock, (left, box[1] + box[3] + 3), size=7, ha="center")
        if unit is not None:
            levels = [level for level in MaxNLocator(5).tick_values(low, high) if low <= level <= high]
            axes.hlines(levels, self._start, self._end, color="#2c3235", lw=0.6)
            axes.vlines(self._ticks, low, high, color="#2c3235", lw=0.6)
            for level in levels:
                above = box[1] + (high - level) / (high - low) * box[3]
                self.write(shown(level, unit), (box[0] - 5, above), size=7, ha="right", va="center")
        for note in self._notes:
            began = [
                next(at for at, value in zip(one.times, one.values, strict=True) if value > 0) for one in note.series
            ]
            axes.vlines(began, low, high, color=note.panel["color"], lw=0.8, ls=":")

    def _over_time(self, answer: Answer, box: Box) -> None:
        series = [one for one in answer.series if not all(map(math.isnan, one.values))]
        looks = [Look(answer.panel, one, index) for index, one in enumerate(series)]
        lines = min(len(series) + 1, max(int(box[3] * _LEGEND_SHARE / _LINE_PX), 2))
        legend = lines * _LINE_PX
        inner = (box[0] + 48, box[1], box[2] - 56, box[3] - legend - 20)
        axes = self._axes(inner)
        stacks: dict[str, list[float]] = {}
        for one, look in zip(series, looks, strict=True):
            mode = (look.custom("stacking") or {}).get("mode", "none")
            below = stacks.get(mode, [0.0] * len(one.values)) if mode != "none" else [0.0] * len(one.values)
            upper = [low + value for low, value in zip(below, one.values, strict=True)]
            dashed = (0, (4, 3)) if (look.custom("lineStyle") or {}).get("fill") == "dash" else "-"
            opacity = look.custom("fillOpacity", 0) / 100
            if look.custom("drawStyle") == "bars":
                wide = one.times[1] - one.times[0]
                axes.bar(
                    one.times, _known(one.values), width=wide, bottom=below, color=look.colour(), alpha=opacity, lw=0
                )
            else:
                axes.plot(one.times, upper, color=look.colour(), lw=1.2, ls=dashed)
                if mode != "none":
                    axes.fill_between(one.times, below, upper, color=look.colour(), alpha=opacity, lw=0)
            if mode != "none":
                stacks[mode] = [low + value for low, value in zip(below, _known(one.values), strict=True)]
        lowest = answer.panel["fieldConfig"]["defaults"].get("min")
        if lowest is not None:
            axes.set_ylim(bottom=lowest)
        self._finish(axes, inner, answer.panel["fieldConfig"]["defaults"].get("unit", "short"))
        self._legend(series, looks, (box[0], box[1] + box[3] - legend, box[2], legend), lines)

    def _legend(self, series: Sequence[Series], looks: Sequence[Look], box: Box, lines: int) -> None:
        right = box[0] + box[2]
        self.write("Name", (box[0] + 14, box[1]), size=7)
        self.write("Last *", (right - 90, box[1]), size=7, ha="right")
        self.write("Max", (right - 8, box[1]), size=7, ha="right")
        room = int((box[2] - 190) / _CHAR_PX)
        for row, (one, look) in enumerate(itertools.islice(zip(series, looks, strict=True), lines - 1), start=1):
            above = box[1] + row * _LINE_PX
            known = [value for value in one.values if not math.isnan(value)]
            name = one.name if len(one.name) <= room else f"{one.name[:room]}…"
            if row == lines - 1 and len(series) > row:
                name = f"{one.name[: max(room - 15, 5)]} (and {len(series) - row} more)"
            self.write("▬", (box[0], above), colour=look.colour())
            self.write(name, (box[0] + 14, above))
            self.write(look.text(known[-1]), (right - 90, above), ha="right")
            self.write(look.text(max(known)), (right - 8, above), ha="right")

    def _timeline(self, answer: Answer, box: Box) -> None:
        series = [one for one in answer.series if not all(map(math.isnan, one.values))]
        room = min(max(len(one.name) for one in series) * _CHAR_PX + 8, box[2] * 0.5)
        inner = (box[0] + room, box[1], box[2] - room, box[3] - 20)
        axes = self._axes(inner)
        for row, one in enumerate(series):
            look, bottom = Look(answer.panel, one, row), len(series) - 1 - row
            step = one.times[1] - one.times[0]
            points = zip(one.times, one.values, strict=True)
            for value, run in itertools.groupby(points, key=lambda point: f"{point[1]:g}"):
                times = [at for at, _ in run]
                if value == "nan":
                    continue
                left, right = times[0], min(times[-1] + step, self._end)
                axes.broken_barh([(left, right - left)], (bottom + 0.08, 0.85), color=look.colour(float(value)), lw=0)
                text = look.text(float(value))
                if (right - left) / (self._end - self._start) * (box[2] - room) > len(text) * _CHAR_PX:
                    colour = contrast(look.colour(float(value)))
                    axes.text(
                        left + (right - left) / 2, bottom + 0.5, text, ha="center", va="center", size=7, color=colour
                    )
            name = one.name if len(one.name) * _CHAR_PX <= room else f"{one.name[: int(room / _CHAR_PX) - 1]}…"
            self.write(name, (box[0], box[1] + (row + 0.5) * (box[3] - 20) / len(series)), size=7.5, va="center")
        axes.set_ylim(0, len(series))
        self._finish(axes, inner, None)

    def _tiles(self, answer: Answer, box: Box) -> None:
        wide = box[2] / box[3] > len(answer.series) / 2
        across = len(answer.series) if wide else max(round(len(answer.series) ** 0.5), 1)
        down = math.ceil(len(answer.series) / across)
        width, height = box[2] / across, box[3] / down
        for index, one in enumerate(answer.series):
            look = Look(answer.panel, one, index)
            left, above = box[0] + index % across * width, box[1] + index // across * height
            colour = look.colour(one.values[-1])
            self._fill((left, above, width - 3, height - 3), colour)
            dark = contrast(colour)
            text = look.text(one.values[-1])
            size = max(min(height * 0.3, (width - 8) / max(len(text), 1) * 1.4, 20), 5)
            middle = (left + width / 2, above + height / 2)
            self.write(text, middle, size=size, colour=dark, ha="center", va="center")
            if one.name:
                name = one.name[: int(width / 4.6)]
                self.write(name, (left + width / 2, above + 2), size=5.5, colour=dark, ha="center")

    def _table(self, answer: Answer, box: Box) -> None:
        texts = [[self._cell(answer, column, row.get(column)) for column in answer.columns] for row in answer.rows]
        wide = [
            max(len(name), *(len(row[index][0]) for row in texts), 3) + 2 for index, name in enumerate(answer.columns)
        ]
        scale = box[2] / sum(wide)
        edges = [box[0] + scale * sum(wide[:index]) for index in range(len(wide))]
        size = min(7.5, scale * 1.2)
        for name, left in zip(answer.columns, edges, strict=True):
            self.write(name, (left, box[1]), size=size, colour="#6e9fff")
        for number, row in enumerate(texts, start=1):
            above = box[1] + number * 22
            if above > box[1] + box[3] - _LINE_PX:
                break
            for (text, colour), left, width in zip(row, edges, wide, strict=True):
                if colour:
                    self._fill((left - 2, above - 3, width * scale - 4, 20), colour)
                self.write(text, (left, above), size=size, colour=contrast(colour) if colour else TEXT)

    def _cell(self, answer: Answer, column: str, value: Any) -> tuple[str, str | None]:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "", None
        if isinstance(value, str):
            return value, None
        look = Look(answer.panel, Series(column, "", {}, [], []), 0)
        filled = (look.custom("cellOptions") or {}).get("type") == "color-background"
        return look.text(value), look.colour(value) if filled else None


def _known(values: Sequence[float]) -> list[float]:
    return [0.0 if math.isnan(value) else value for value in values]
