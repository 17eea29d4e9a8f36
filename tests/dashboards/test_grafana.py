"""The committed dashboards: up to date with the modules, complete, and every query can return data.

Grafana itself does not run here. Its own builder types check the dashboards' form, ``test_drawn.py`` their data.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from dashboards.boards import OLDEST_GRAFANA
from dashboards.build import render
from dashboards.foreign import TARGET_LABELS
from dashboards.health import SOURCE_STATES
from dashboards.panels import series
from dashboards.promql import Checker, QueryError
from dashboards.queries import IDENTITY, PROCESSES, Query
from dataplane.observability import MetricsDataPlaneClient
from exporter.catalogue.metrics import METRICS, prometheus_name
from exporter.cli import main
from exporter.model.snapshot import SOURCE_REASONS
from exporter.shipped import rules
from exporter.telemetry import InstrumentRecorder

ROOT = Path(__file__).parents[2]
FOLDER = Path(rules.__file__).parent / "grafana"
BOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}
CHECKER = Checker(rules.recorded())
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"]
TARGETS = [
    (uid, panel, target)
    for uid, panel in PANELS
    for target in panel["targets"]
    if not target["expr"].startswith("max(tq:threshold:")
]
THRESHOLDS = [
    target["expr"] for _, panel in PANELS for target in panel["targets"] if target["expr"].startswith("max(tq:thresh")
]

SCHEMAS = {"11.0": 39, "11.5": 40, "11.6": 41}
"""``DASHBOARD_SCHEMA_VERSION`` of Grafana, from the version on. A dashboard of a newer schema is not migrated."""

VARIABLES = {
    "tq-overview": ["partition"],
    "tq-staleness": ["partition"],
    "tq-clients": ["partition"],
    "tq-health": ["tq_job"],
}


def name(value: Any) -> str | None:
    return f"{value['title']}".replace(" ", "-") if isinstance(value, dict) and "title" in value else None


def panel_of(uid: str, title: str) -> dict[str, Any]:
    [found] = [panel for board, panel in PANELS if (board, panel["title"]) == (uid, title)]
    return dict(found)


def test_the_committed_files_are_what_the_modules_build() -> None:
    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == render(), "make dashboards"


def test_the_command_writes_them(tmp_path: Path) -> None:
    assert main(["dashboards", "-o", str(tmp_path)]) == 0
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == render()


def test_the_command_writes_links_to_the_users_runbooks(tmp_path: Path) -> None:
    assert main(["dashboards", "-o", str(tmp_path), "--runbooks", "https://wiki/tq"]) == 0
    text = (tmp_path / "tq-overview.json").read_text()
    assert "https://wiki/tq/DataPlaneLost.md" in text
    assert "https://wiki/tq/${__data.fields.alertname}.md" in text
    assert "tq-exporter.example" not in text


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (Query('dataplane_partition_depth{partitions="train"}', "{{partition}}"), "no label partitions"),
        (Query("sum by (partition) (dataplane_partition_depth{@p})", "{{partition}}"), "it drops cluster, instance"),
        (Query("dataplane_partition_depth{@p}"), "the legend does not show partition"),
    ],
)
def test_a_query_that_cannot_be_right_stops_the_build(query: Query, complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        series("title", "description", [query])


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=name)
def test_every_panel_explains_itself(uid: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["fieldConfig"]["defaults"]["unit"]
    named = re.findall(r"\b(?:DataPlane|TQExporter)[A-Z]\w+", panel["description"])
    linked = [link["url"].rsplit("/", 1)[1].removesuffix(".md") for link in panel.get("links", ())]
    assert linked == [word for word in dict.fromkeys(named) if word in rules.alerts()]
    assert set(named) - {"DataPlaneFlows"} <= set(rules.alerts())


@pytest.mark.parametrize(("uid", "panel", "target"), TARGETS, ids=name)
def test_every_query_tells_runs_apart(uid: str, panel: dict[str, Any], target: dict[str, Any]) -> None:
    query, table = target["expr"], target.get("format") == "table"
    for choice in PROCESSES.values():
        labels = CHECKER.labels(query.replace(", $processes", "").replace("$processes", ""))
        assert labels >= TARGET_LABELS - {choice}
    shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    assert table or shown >= labels - {"job"}
    assert table or shown >= {*IDENTITY}


@pytest.mark.parametrize(("uid", "panel", "target"), TARGETS, ids=name)
def test_every_selector_has_the_variables(uid: str, panel: dict[str, Any], target: dict[str, Any]) -> None:
    query = re.sub(r"scalar\(max\(tq:threshold:\w+\)\)", "0", target["expr"])
    selectors = re.findall(r"{[^}]*}", query)
    assert len(selectors) >= len(CHECKER.metrics(query))
    for selector in selectors:
        chosen = dict(re.findall(r'(\w+)=~"\$(\w+)"', selector))
        wanted = {"cluster": "cluster", "namespace": "namespace", "run": "run", "job": "job", "instance": "instance"}
        if "tq_controller_" in query or "tq_storage_" in query:
            wanted |= {"job": "tq_job"}
            del wanted["instance"]
        if panel["title"] == "Firing alerts":  # of clients as well
            del wanted["job"], wanted["instance"]
        if uid != "tq-health" and ("dataplane_partition_" in query or "tq:partition_" in query):
            wanted["partition"] = "partition"
        assert wanted.items() <= chosen.items()


def test_every_metric_is_shown() -> None:
    shown = frozenset().union(*(CHECKER.metrics(target["expr"]) for _, _, target in TARGETS))
    behind = frozenset().union(*(CHECKER.metrics(rules.recorded()[series]) for series in shown & set(rules.recorded())))
    families = {re.sub(r"_(bucket|sum|count)$", "", series) for series in shown | behind}
    assert {prometheus_name(metric) for metric in METRICS} <= families


def test_every_threshold_of_a_panel_is_a_series_of_the_rules() -> None:
    drawn = {query.removeprefix("max(").removesuffix(")") for query in THRESHOLDS}
    assert drawn <= set(rules.recorded())
    assert len(drawn) >= 10


@pytest.mark.parametrize("uid", BOARDS)
def test_every_dashboard_has_what_it_takes(uid: str) -> None:
    board = BOARDS[uid]
    assert board["schemaVersion"] == SCHEMAS[OLDEST_GRAFANA]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    chosen = ["cluster", "namespace", "run", "job", "instance", *VARIABLES[uid]]
    assert [one for one in variables if one not in ("datasource", "traces", "processes", "exporter")] == chosen
    for variable in (variables[one] for one in chosen):
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
        assert label in CHECKER.labels(selector)
        # A label that a Prometheus does not have matches ".*" as well.
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")
        assert variable["current"]["value"] == "$__all"
    assert ("processes" in variables) == ("exporter" in variables) == (uid == "tq-clients")
    assert board["links"][-1]["tags"] == board["tags"] == ["transferqueue"]
    notes = {note["name"]: note for note in board["annotations"]["list"]}
    assert {name: CHECKER.metrics(note["expr"]) for name, note in notes.items()} == {
        "Controller restart": {"dataplane_controller_restarts_total"},
        "Firing alert": {"ALERTS"},
    }
    for note in notes.values():
        assert 'cluster=~"$cluster", namespace=~"$namespace", run=~"$run"' in note["expr"]
    assert all(place["x"] + place["w"] <= 24 for place in (panel["gridPos"] for panel in board["panels"]))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_docs_name_the_oldest_grafana() -> None:
    text = (ROOT / "docs" / "dashboards.md").read_text()
    assert f"**Grafana** ({OLDEST_GRAFANA} or newer)" in text
    assert f"schemaVersion` {SCHEMAS[OLDEST_GRAFANA]}" in text
    image = re.search(r"grafana/grafana:(\d+)\.(\d+)", (ROOT / "docker-compose.yaml").read_text())
    assert image is not None
    assert tuple(map(int, image.groups())) >= tuple(map(int, OLDEST_GRAFANA.split(".")))


def test_the_overview_fits_on_one_screen() -> None:
    """A row of Grafana's grid takes 38 pixels: 24 of them are 912, which a screen of 1,080 shows."""
    panels = [panel for panel in BOARDS["tq-overview"]["panels"] if panel["title"] != "Partitions"]
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) <= 24
    assert panel_of("tq-overview", "Conditions")["gridPos"]["y"] < 6


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=name)
def test_every_panel_has_the_form_of_its_type(uid: str, panel: dict[str, Any]) -> None:
    defaults, options = panel["fieldConfig"]["defaults"], panel.get("options", {})
    if panel["type"] == "timeseries":
        assert options["legend"]["showLegend"]
        assert options["legend"]["calcs"] == ["lastNotNull", "max"]
        assert ("min" in defaults) == (panel["title"] != "Weight versions")
    elif panel["type"] == "stat":
        assert options["colorMode"] == "background"
        assert options["textMode"] == "value_and_name"
        assert defaults["color"]["mode"] == "thresholds"
    elif panel["type"] == "state-timeline":
        assert defaults["mappings"]
    else:
        assert panel["type"] == "table"


def test_states_are_timelines_and_no_gauge_is_a_heatmap() -> None:
    timelines = {panel["title"] for _, panel in PANELS if panel["type"] == "state-timeline"}
    assert timelines == {
        *("Conditions", "Discovery", "Source state", "Source up", "Recorder up"),
        *("Storage unit up", "Origin of the reference version"),
    }
    lags = panel_of("tq-staleness", "Groups by lag")
    assert lags["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    beginnings = [override["matcher"]["options"] for override in lags["fieldConfig"]["overrides"]]
    [metric] = [metric for metric in METRICS if prometheus_name(metric) == "dataplane_partition_staleness_groups"]
    for lag in metric.attributes["lag"] or ():
        assert sum(bool(re.search(one.strip("/"), f"lag {lag} run")) for one in beginnings) == 1


def test_every_state_of_a_source_has_a_word() -> None:
    assert SOURCE_STATES.keys() == set(SOURCE_REASONS)
    mapped = panel_of("tq-health", "Source state")["fieldConfig"]["defaults"]["mappings"][0]["options"]
    assert {word["text"] for word in mapped.values()} == set(SOURCE_REASONS)
    for reason in set(SOURCE_REASONS) - {"ok"}:
        assert f"{reason}: " in panel_of("tq-health", "Source state")["description"]


def test_a_line_is_the_threshold_of_what_the_panel_shows() -> None:
    """A line that belongs to another state would be read as a limit of this one."""
    lines = {
        ("ready|taken",): ["max(tq:threshold:stalled_seconds)"],
        ("uncommitted|incomplete|failed",): [
            "max(tq:threshold:uncommitted_age_seconds)",
            "max(tq:threshold:incomplete_age_seconds)",
        ],
    }
    seen = 0
    for _, panel in PANELS:
        queries = [target["expr"] for target in panel["targets"]]
        if not any("tq:partition_oldest_group:age_seconds" in query for query in queries):
            continue
        drawn = [query for query in queries if query.startswith("max(tq:threshold:")]
        states = tuple(state for query in queries for state in re.findall(r'state=~"([\w|]+)"', query))
        assert drawn == lines[states], panel["title"]
        seen += 1
    assert seen == 3


def test_no_two_panels_or_rows_of_a_dashboard_share_a_title() -> None:
    for uid, board in BOARDS.items():
        titles = [panel["title"].lower() for panel in board["panels"]]
        # The table of partitions of the overview is alone in its row.
        repeated = {title for title in titles if titles.count(title) > 1} - {"partitions"}
        assert not repeated, uid


def test_a_panel_has_one_unit() -> None:
    """Bytes and a rate on one axis hide each other, and so does a state beside them."""
    kinds = ((r"_bytes\b", "bytes"), (r"_up\b", "a state"), (r"\b(rate|increase)\(", "a rate"))
    for _, panel in PANELS:
        if panel["type"] == "timeseries":
            queries = [target["expr"] for target in panel["targets"] if "tq:threshold:" not in target["expr"]]
            found = [{kind for pattern, kind in kinds if re.search(pattern, query)} for query in queries]
            assert all(one == found[0] for one in found), panel["title"]


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=name)
def test_descriptions_are_sentences_of_the_field(uid: str, panel: dict[str, Any]) -> None:
    text = panel["description"]
    assert not re.match(r"(By|In|Of|Up|At|Of all)\b", text), text
    assert not re.search(r"given up|that trains?\b|/api/v1/|meanwhile|again and again", text), text


def test_the_data_age_is_that_of_the_oldest_source() -> None:
    [target] = panel_of("tq-overview", "Data age")["targets"]
    assert "time() - min without (source)" in target["expr"]


@pytest.mark.parametrize(("uid", "panel"), PANELS, ids=name)
def test_traces_and_the_page_are_a_click_away(uid: str, panel: dict[str, Any]) -> None:
    links = {link["title"]: link["url"] for link in panel["fieldConfig"]["defaults"].get("links", ())}
    labels = frozenset.intersection(*(CHECKER.labels(t["expr"]) for _, p, t in TARGETS if p is panel))
    for url in links.values():
        assert set(re.findall(r"__field\.labels\.(\w+)", url)) <= labels
    of_exporter = uid != "tq-clients" and not any("tq_job" in target["expr"] for target in panel["targets"])
    if panel["type"] == "table":
        return
    assert ("Page of the exporter" in links) == of_exporter
    if of_exporter and "partition" in labels:
        assert "?partition=${__field.labels.partition:percentencode}" in links["Page of the exporter"]
    if uid == "tq-clients" and "messaging_operation_name" in labels:
        assert "${traces}" in links["Traces of this operation"]


def test_the_tables_have_links() -> None:
    def links(title: str) -> str:
        return json.dumps(panel_of("tq-overview", title)["fieldConfig"]["overrides"])

    assert "${__data.fields.alertname}.md" in links("Firing alerts")
    assert "?partition=${__data.fields.partition:percentencode}" in links("Partitions")


def test_exemplars_are_asked_for_where_otlp_carries_them() -> None:
    reader = InMemoryMetricReader()
    meters, tracers = MeterProvider([reader]), TracerProvider()

    class Inner:
        def ping(self) -> float:
            return 0.001

    MetricsDataPlaneClient(Inner(), meter_provider=meters, tracer_provider=tracers).ping()
    with tracers.get_tracer("poll").start_as_current_span("poll"):
        InstrumentRecorder(meters.get_meter("exporter"), ping_slo_s=0.25).ping(0.001, None)
    data = reader.get_metrics_data()
    assert data is not None
    carry = {
        metric.name
        for scopes in data.resource_metrics
        for scope in scopes.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if any(exemplar.trace_id for exemplar in point.exemplars)
    }
    asked = {
        re.sub("_bucket$", "", series)
        for _, _, target in TARGETS
        if target.get("exemplar")
        for series in CHECKER.metrics(target["expr"])
    }
    histograms = {prometheus_name(m) for m in METRICS if m.kind == "histogram" and m.name in carry}
    assert asked == histograms == {"messaging_client_operation_duration_seconds", "dataplane_ping_duration_seconds"}
