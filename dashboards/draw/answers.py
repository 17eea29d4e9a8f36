"""What Prometheus answers to the queries of a dashboard's panels, asked as Grafana asks."""

from __future__ import annotations

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

__all__ = ["Answer", "Board", "QueryFailedError", "Series", "ask", "boards", "interpolated"]

SCRAPE_S: Final = 30
"""Time between scrapes, as configured in the data source."""

COLUMN_PX: Final = 64
"""Width of a column of the grid on a screen."""

_VARIABLE: Final = re.compile(r"\$(?:{(\w+)(?::\w+)?}|(\w+))")
_FIELD: Final = re.compile(r"{{\s*(\w+)\s*}}")
_SPECIAL: Final = re.compile(r"[$^*{}\[\]'+?.()|\\]")

Board = dict[str, Any]
"""A dashboard as committed."""


class QueryFailedError(RuntimeError):
    """Prometheus refuses a query."""


@dataclass
class Series:
    """A series of a panel: its legend, the letter of its target, and its values by time, with NaN for gaps."""

    name: str
    target: str
    labels: dict[str, str]
    times: list[float]
    values: list[float]


@dataclass
class Answer:
    """The data of a panel.

    Attributes:
        panel: The panel as committed.
        series: Its series, in the order in which Grafana draws them.
        by_target: Number of series of each target.
        rows: The rows of a table, column to value, after the transformations.
        columns: The columns of a table, in order.
    """

    panel: dict[str, Any]
    series: list[Series] = field(default_factory=list)
    by_target: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)


def boards() -> list[Board]:
    """Return the committed dashboards."""
    folder = resources.files("exporter.shipped") / "grafana"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def ask(board: Board, url: str, start: float, end: float, chosen: Mapping[str, Sequence[str]]) -> list[Answer]:
    """Ask the queries of every panel of *board*, and those of its annotations, which come last.

    Raises:
        QueryFailedError: Prometheus refuses a query.
    """
    found = []
    values = {variable["name"]: _value(variable, chosen) for variable in board["templating"]["list"]}
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        step = max(SCRAPE_S, math.ceil((end - start) / (panel["gridPos"]["w"] * COLUMN_PX)))
        answer = Answer(panel)
        for target in panel["targets"]:
            expression = interpolated(target["expr"], values, step, end - start)
            result = _query(url, expression, start, end, step, instant=target.get("instant", False))
            answer.by_target[target["refId"]] = len(result)
            answer.series += [_series(one, target, start, end, step) for one in result]
        if panel["type"] == "table":
            _tabulate(answer)
        found.append(answer)
    for note in board["annotations"]["list"]:
        step = 60
        expression = interpolated(note["expr"], values, step, end - start)
        target = {"refId": "Anno", "legendFormat": note["textFormat"], "instant": False}
        series = [_series(one, target, start, end, step) for one in _query(url, expression, start, end, step)]
        found.append(Answer({"type": "annotation", "title": note["name"], "color": note["iconColor"]}, series))
    return found


def interpolated(text: str, values: Mapping[str, str], step: int, range_s: float) -> str:
    """Return *text* with its variables replaced. One that is not known stays."""
    own = {
        "__rate_interval": f"{max(step + SCRAPE_S, 4 * SCRAPE_S)}s",
        "__interval": f"{step}s",
        "__range": f"{round(range_s)}s",
    }
    return _VARIABLE.sub(lambda found: {**own, **values}.get(found[1] or found[2], found[0]), text)


def _value(variable: Mapping[str, Any], chosen: Mapping[str, Sequence[str]]) -> str:
    if variable["name"] not in chosen:
        current = variable.get("current", {}).get("value", "")
        return str(variable.get("allValue", "")) if current == "$__all" else str(current)
    values = [_SPECIAL.sub(r"\\\\\g<0>", value) if variable["multi"] else value for value in chosen[variable["name"]]]
    return values[0] if len(values) == 1 else f"({'|'.join(values)})"


def _query(
    url: str, expression: str, start: float, end: float, step: int, *, instant: bool = False
) -> list[dict[str, Any]]:
    asked = {"query": expression}
    asked |= {"time": str(end)} if instant else {"start": str(start), "end": str(end), "step": str(step)}
    address = f"{url.rstrip('/')}/api/v1/{'query' if instant else 'query_range'}"
    try:
        with urllib.request.urlopen(address, urllib.parse.urlencode(asked).encode(), timeout=60) as answer:  # noqa: S310
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise QueryFailedError(f"{json.load(error).get('error')}: {expression}") from error
    return result


def _series(one: Mapping[str, Any], target: Mapping[str, Any], start: float, end: float, step: int) -> Series:
    labels = one["metric"]
    name = " ".join(_FIELD.sub(lambda found: labels.get(found[1], ""), target.get("legendFormat", "")).split())
    if "value" in one:
        return Series(name, target["refId"], labels, [end], [float(one["value"][1])])
    known = {round(at - start): float(number) for at, number in one["values"]}
    times = range(0, round(end - start) + 1, step)
    return Series(
        name, target["refId"], labels, [start + at for at in times], [known.get(at, math.nan) for at in times]
    )


def _tabulate(answer: Answer) -> None:
    """Make the rows of a table, by the transformations ``merge`` and ``organize``."""
    several = len(answer.panel["targets"]) > 1
    tables: dict[str, list[dict[str, Any]]] = {}
    for series in answer.series:
        value = f"Value #{series.target}" if several else "Value"
        tables.setdefault(series.target, []).append({**series.labels, value: series.values[-1]})
    columns = [list(dict.fromkeys(name for row in rows for name in row)) for rows in tables.values()]
    keys = set.intersection(*map(set, columns)) if columns else set()
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, rows in enumerate(tables.values()):
        for position, row in enumerate(rows):
            key = tuple(row.get(name) for name in sorted(keys)) if several else (number, position)
            merged.setdefault(key, {}).update(row)
    answer.rows = list(merged.values())
    answer.columns = list(dict.fromkeys(name for names in columns for name in names))
    for transformation in answer.panel["transformations"]:
        if transformation["id"] == "organize":
            _organize(answer, transformation["options"])


def _organize(answer: Answer, options: Mapping[str, Any]) -> None:
    order, renamed = options["indexByName"], options["renameByName"]
    kept = [name for name in answer.columns if not options["excludeByName"].get(name)]
    kept.sort(key=lambda name: order.get(name, len(order)))
    answer.columns = [renamed.get(name, name) for name in kept]
    answer.rows = [{renamed.get(name, name): row.get(name) for name in kept} for row in answer.rows]
