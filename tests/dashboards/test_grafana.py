"""The committed dashboards: up to date with the modules, complete, and every query can return data.

Grafana itself does not run here. Only its own builder types check the dashboards' form.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dashboards.build import render
from dashboards.promql import Checker
from exporter.catalogue.metrics import METRICS, prometheus_name
from exporter.cli import main
from exporter.shipped import rules

FOLDER = Path(rules.__file__).parent / "grafana"
BOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
CHECKER = Checker(rules.recorded())
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"]
QUERIES = [(uid, panel, target["expr"]) for uid, panel in PANELS for target in panel["targets"]]


def name(value: Any) -> str | None:
    return f"{value['title']}".replace(" ", "-") if isinstance(value, dict) else None


def test_the_committed_files_are_what_the_modules_build() -> None:
    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == render(), "make dashboards"


def test_the_command_writes_them(tmp_path: Path) -> None:
    assert main(["dashboards", "-o", str(tmp_path)]) == 0
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == render()


def test_a_query_that_names_what_nothing_emits_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    from dashboards.panels import Query, series
    from dashboards.promql import QueryError

    with pytest.raises(QueryError, match="no label partitions"):
        series("title", "description", [Query('dataplane_partition_depth{partitions="train"}', "")])


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=name)
def test_every_panel_explains_itself(uid: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["datasource"]["uid"] == "${datasource}"
    if panel["type"] != "heatmap":
        assert panel["fieldConfig"]["defaults"]["unit"]
    for runbook in re.findall(r"\b(?:DataPlane|TQExporter)[A-Z]\w+", panel["description"]):
        assert runbook in rules.alerts()


@pytest.mark.parametrize(("uid", "panel", "query"), QUERIES, ids=name)
def test_every_query_passes(uid: str, panel: dict[str, Any], query: str) -> None:
    CHECKER.labels(query)
    if not query.startswith("tq:threshold:") and "tq_controller_" not in query and "tq_storage_" not in query:
        assert "$job" in query
        assert "$instance" in query


def test_every_metric_is_shown() -> None:
    shown = frozenset().union(*(CHECKER.metrics(query) for _, _, query in QUERIES))
    behind = frozenset().union(*(CHECKER.metrics(rules.recorded()[series]) for series in shown & set(rules.recorded())))
    families = {re.sub(r"_(bucket|sum|count)$", "", series) for series in shown | behind}
    judged = {"dataplane_condition"}  # the live page's list; the panels show the series that it is judged by
    assert {prometheus_name(metric) for metric in METRICS} <= families | judged


def test_every_threshold_of_a_panel_is_a_series_of_the_rules() -> None:
    drawn = {query for _, _, query in QUERIES if query.startswith("tq:threshold:")}
    assert drawn <= set(rules.recorded())
    assert len(drawn) >= 10


@pytest.mark.parametrize("uid", BOARDS)
def test_every_dashboard_has_what_it_takes(uid: str) -> None:
    board = BOARDS[uid]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert {"datasource", "job", "instance"} <= set(variables)
    assert ("partition" in variables) == (uid != "tq-health")
    for variable in variables.values():
        if variable["type"] == "query":
            CHECKER.labels(re.sub(r"label_values\((.+), \w+\)$", r"\1", variable["query"]))
    assert [link["tags"] for link in board["links"]] == [["transferqueue"]]
    assert board["tags"] == ["transferqueue"]
    assert [CHECKER.metrics(note["expr"]) for note in board["annotations"]["list"]] == [
        {"dataplane_controller_restarts_total"}
    ]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_overview_fits_on_one_screen() -> None:
    """A row of Grafana's grid takes 38 pixels: 24 of them are 912, which a screen of 1,080 shows."""
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in BOARDS["tq-overview"]["panels"]) <= 24


def test_traces_are_a_click_away() -> None:
    panels = [panel for uid, panel in PANELS if uid == "tq-clients"]
    links = [link["url"] for panel in panels for link in panel["fieldConfig"]["defaults"].get("links", [])]
    assert links
    assert all("${traces}" in link and "${__field.labels.messaging_operation_name}" in link for link in links)
