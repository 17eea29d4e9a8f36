"""The conditions and the shipped alerts know the same faults, by the same names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from exporter.conditions import CONDITIONS, Limits
from exporter.conditions.base import Rule
from exporter.shipped import rules as shipped
from exporter.shipped.thresholds import PREFIX, THRESHOLDS
from tests.conditions.test_conditions import CASES

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
    assert critical <= known.keys()


def test_what_has_the_same_name_has_the_same_severity_and_runbook() -> None:
    for name, alert in alerts().items():
        for rule in CONDITIONS:
            if rule.name == name:
                assert rule.severity == SEVERITIES[alert["labels"]["severity"]], name
                assert alert["annotations"]["runbook_url"].endswith(rule.runbook), name


class Asked(dict[str, float]):
    """The thresholds, and which of them a condition asks for."""

    def __init__(self) -> None:
        super().__init__({threshold.name: threshold.default for threshold in THRESHOLDS})
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> float:
        self.names.add(name)
        return super().__getitem__(name)


def thresholds_of(alert: str) -> set[str]:
    """Return the thresholds that an alert compares with, also those of the series that it uses."""
    recorded = shipped.recorded()
    found: set[str] = set()
    new = set(re.findall(r"tq:[\w:]+", shipped.alerts()[alert]["expr"]))
    while new:
        found |= new
        new = {name for series in new for name in re.findall(r"tq:[\w:]+", recorded[series])} - found
    return {name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX)}


RULED_OUT_BY = {
    "DataPlaneTrainerStarved": {"given_up_groups"},
    "DataPlaneTrainerWaiting": {"given_up_groups", "starved_seconds"},
}
"""The thresholds of the conditions that say more and take the place of this one."""


@pytest.mark.parametrize("rule", [rule for rule in CONDITIONS if rule.name in shipped.alerts()], ids=lambda r: r.name)
def test_a_condition_is_judged_by_the_thresholds_of_its_alert(rule: Rule) -> None:
    asked = Asked()
    for case in CASES[rule.name][:2]:
        rule.check(replace(case, limits=Limits(thresholds=asked)))
    assert asked.names <= thresholds_of(rule.name) | RULED_OUT_BY.get(rule.name, set())


SHARED = {
    "DataPlaneGroupsGivenUp": {"given_up_groups", "given_up_ratio"},
    "DataPlaneTrainerStarved": {"starved_seconds"},
    "DataPlaneStorageLeaking": {"unlisted_ratio"},
    "DataPlaneStorageUnitFlapping": {"storage_down_ratio", "storage_changes"},
    "DataPlaneFullRepeatedly": {"storage_full_time_ratio", "storage_changes"},
}


@pytest.mark.parametrize(("name", "threshold"), [(name, one) for name, all_ in SHARED.items() for one in sorted(all_)])
def test_a_threshold_decides(name: str, threshold: str) -> None:
    """With the threshold out of reach, what holds by default does not hold."""
    rule = next(rule for rule in CONDITIONS if rule.name == name)
    limits = Limits(thresholds={**Limits().thresholds, threshold: 1e9})
    assert rule.check(CASES[name][0])
    assert not rule.check(replace(CASES[name][0], limits=limits))


def test_the_docs_list_every_condition_in_order() -> None:
    said = (ROOT / "docs/concepts.md").read_text()
    places = [
        said.index(f"| `{rule.name}` | {rule.stage.replace('_', ' ')} | {rule.severity} |") for rule in CONDITIONS
    ]
    assert places == sorted(places)
    assert all(f"`{name}`" in said for name in NO_CONDITION)
