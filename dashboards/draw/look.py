"""How a field of a panel looks: its unit, mappings, colour and overrides, as Grafana applies them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dashboards.draw.answers import Series

__all__ = ["BACKGROUND", "CANVAS", "TEXT", "Look", "contrast", "shown"]

CANVAS, BACKGROUND, TEXT = "#111217", "#181b1f", "#ccccdc"

_COLOURS: Final = {
    "green": "#73bf69",
    "dark-green": "#37872d",
    "light-green": "#96d98d",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "light-orange": "#ffb357",
    "red": "#f2495c",
    "blue": "#5794f2",
    "text": TEXT,
}
_PALETTE: Final = (
    *("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0"),
    *("#508642", "#cca300", "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477"),
    *("#b7dbab", "#f4d598", "#70dbed", "#f9ba8f", "#f29191", "#82b5d8", "#e5a8e2", "#aea2e0"),
)
_SI: Final = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"))
_BYTES: Final = ((2**40, " TiB"), (2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"))
_SECONDS: Final = ((86400, " day"), (3600, " hour"), (60, " min"))
_SUFFIXES: Final = {"cps": " c/s", "ops": " ops/s", "reqps": " req/s", "Bps": "/s"}


class Look:
    """The look of one series.

    Args:
        panel: The panel as committed.
        series: The series.
        index: Its number in the panel.
    """

    def __init__(self, panel: Mapping[str, Any], series: Series, index: int) -> None:
        config = panel["fieldConfig"]
        self._config: dict[str, Any] = {**config["defaults"], "custom": dict(config["defaults"].get("custom", {}))}
        for override in config["overrides"]:
            if _matches(override["matcher"], series):
                self._apply(override["properties"])
        self._index = index

    def _apply(self, properties: Sequence[Mapping[str, Any]]) -> None:
        for one in properties:
            name = one["id"].removeprefix("custom.")
            (self._config["custom"] if name != one["id"] else self._config)[name] = one["value"]

    def custom(self, name: str, otherwise: Any = None) -> Any:
        """Return a setting of the panel's type."""
        return self._config["custom"].get(name, otherwise)

    def text(self, value: float) -> str:
        """Return a value as it is shown."""
        mapped = self._mapped(value)
        return mapped["text"] if mapped else shown(value, self._config.get("unit", "short"))

    def colour(self, value: float = math.nan) -> str:
        """Return the colour of a value, or of the series."""
        if (mapped := self._mapped(value)) and mapped.get("color"):
            return _named(mapped["color"])
        how = self._config.get("color", {})
        if how.get("mode") == "fixed":
            return _named(how["fixedColor"])
        steps = self._config.get("thresholds", {}).get("steps", [])
        if how.get("mode") == "thresholds" and steps:
            passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
            return _named(passed[-1])
        return _PALETTE[self._index % len(_PALETTE)]

    def _mapped(self, value: float) -> dict[str, Any] | None:
        for mapping in self._config.get("mappings", ()):
            if found := mapping["options"].get(f"{value:g}"):
                return dict(found)
        return None


def contrast(colour: str) -> str:
    """Return the colour of a text on *colour*."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    opaque = len(colour) < 9 or int(colour[7:9], 16) > 128
    return "#111217" if opaque and 0.3 * red + 0.59 * green + 0.11 * blue > 140 else TEXT


def shown(value: float, unit: str) -> str:
    """Return *value* with its unit."""
    if math.isnan(value):
        return ""
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit in ("bytes", "Bps"):
        return _scaled(value, _BYTES, " B") + _SUFFIXES.get(unit, "")
    if unit == "s":
        if 0 < abs(value) < 1:
            return f"{1000 * value:.3g} ms" if abs(value) >= 0.001 else f"{1e6 * value:.3g} µs"
        return _scaled(value, _SECONDS, " s")
    if unit == "none":
        return f"{value:g}"
    return _scaled(value, _SI, "") + _SUFFIXES.get(unit, "")


def _scaled(value: float, steps: Sequence[tuple[float, str]], otherwise: str) -> str:
    for size, suffix in steps:
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}{otherwise}"


def _matches(matcher: Mapping[str, Any], series: Series) -> bool:
    how, wanted = matcher["id"], matcher["options"]
    if how == "byName":
        return bool(series.name == wanted)
    if how == "byRegexp":
        return re.search(wanted[1:-1] if wanted.startswith("/") else f"^{wanted}$", series.name) is not None
    return bool(how == "byFrameRefID" and series.target == wanted)


def _named(colour: str) -> str:
    return colour if colour.startswith("#") else _COLOURS[colour]
