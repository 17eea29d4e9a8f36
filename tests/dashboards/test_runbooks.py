"""Every alert has a runbook with the same sections, and the commands in the runbooks are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dashboards.promql import Checker
from dataplane import errors
from exporter.catalogue.metrics import METRICS, prometheus_name
from exporter.shipped import rules
from exporter.shipped.thresholds import THRESHOLDS

FOLDER = Path(__file__).parents[2] / "docs" / "runbooks"
ALERTS = rules.alerts()
CHECKER = Checker(rules.recorded())
SECTIONS = ["What it means", "How to confirm", "Likely causes", "What to do", "How to silence"]


def test_there_is_one_for_every_alert_and_no_other() -> None:
    assert {file.stem for file in FOLDER.glob("*.md")} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_it_has_the_sections(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    alert = ALERTS[name]
    head = " ".join(text.split("## ")[0].split())
    assert f"Severity {alert['labels']['severity']}; for {alert['for']}." in head
    assert " ".join(alert["annotations"]["conventions"].split()) in head
    causes = text.split("## Likely causes")[1].split("## ")[0]
    assert re.findall(r"^\* \*\*(.+?)\*\*:", causes, re.MULTILINE) == ["TransferQueue", "Ray", "NeMo RL", "verl"]
    assert f"amtool silence add alertname={name}" in text


@pytest.mark.parametrize("name", ALERTS)
def test_its_query_names_what_there_is(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    queries = re.findall(r"```promql\n(.+?)```", text, re.DOTALL)
    assert queries
    for query in queries:
        CHECKER.labels(query)


@pytest.mark.parametrize("name", ALERTS)
def test_what_it_names_exists(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    for other in re.findall(r"\b(?:DataPlane|TQExporter)[A-Z]\w+\b", text):
        assert other in ALERTS or hasattr(errors, other), other
    for threshold in re.findall(r"--set (\w+)=", text):
        assert threshold in {each.name for each in THRESHOLDS}
    for series in re.findall(r"`((?:dataplane|tq_exporter)_\w+(?:\{[^`]*\})?)`", text):
        histogram = any(series == prometheus_name(metric) for metric in METRICS if metric.kind == "histogram")
        CHECKER.labels(f"{series}_count" if histogram else series)


def test_the_table_of_the_dashboards_page_has_every_alert() -> None:
    text = (FOLDER.parent / "dashboards.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", text, re.MULTILINE)
    assert listed == [(name, name, alert["labels"]["severity"]) for name, alert in ALERTS.items()]
