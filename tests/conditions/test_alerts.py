"""The conditions and the shipped alerts know the same faults, by the same names."""

from __future__ import annotations

from pathlib import Path

import msgspec

from exporter.conditions import CONDITIONS

ROOT = Path(__file__).parents[2]

NO_CONDITION = {
    "DataPlaneClientUnavailable": "a client's own metrics tell it; the exporter does not see them",
    "DataPlaneClientTimeouts": "a client's own metrics tell it; the exporter does not see them",
    "DataPlaneClientWritesFailing": "a client's own metrics tell it; the exporter does not see them",
    "DataPlaneClientCrashLooping": "a client's own metrics tell it; the exporter does not see them",
    "TQExporterAbsent": "an exporter that is absent judges nothing",
    "TQExporterThresholdsMissing": "Prometheus's rule files, which the exporter does not read",
    "TQExporterOTLPFailing": "pushes are counted where they are made, after the snapshot that they carry",
}
"""The alerts without a condition, and why."""

ALERT_OF = {
    # A unit that is 100 % full raises the alert for one that is nearly full.
    "DataPlaneStorageFull": "DataPlaneNearCapacity",
}
"""The alert of a critical condition that has another name."""

SEVERITIES = {"critical": "critical", "warning": "warning", "info": "notice"}


def alerts() -> dict[str, dict[str, dict[str, str]]]:
    """Return the shipped alerts by name."""
    groups = msgspec.yaml.decode((ROOT / "dashboards/prometheus/alerts.yaml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_every_alert_has_a_condition_or_a_reason_for_none() -> None:
    conditions = {rule.name for rule in CONDITIONS}
    assert alerts().keys() - conditions == NO_CONDITION.keys()
    assert not NO_CONDITION.keys() & conditions


def test_every_critical_condition_has_an_alert() -> None:
    known = alerts()
    critical = {rule.name for rule in CONDITIONS if rule.severity == "critical"}
    assert {ALERT_OF.get(name, name) for name in critical} <= known.keys()
    assert ALERT_OF.keys() <= critical - known.keys(), "an entry that is not needed"


def test_what_has_the_same_name_has_the_same_severity_and_runbook() -> None:
    for name, alert in alerts().items():
        for rule in CONDITIONS:
            if rule.name == name:
                assert rule.severity == SEVERITIES[alert["labels"]["severity"]], name
                assert alert["annotations"]["runbook_url"].endswith(rule.runbook), name


def test_the_docs_list_every_condition_in_order() -> None:
    said = (ROOT / "docs/concepts.md").read_text()
    places = [
        said.index(f"| `{rule.name}` | {rule.stage.replace('_', ' ')} | {rule.severity} |") for rule in CONDITIONS
    ]
    assert places == sorted(places)
    assert all(f"`{name}`" in said for name in NO_CONDITION)
