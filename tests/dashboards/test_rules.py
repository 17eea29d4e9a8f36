"""The shipped rules: promtool accepts them, and every alert is tested in every situation and is fully annotated."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from dashboards.foreign import TARGET_LABELS
from dashboards.promql import Checker
from exporter.shipped import rules
from exporter.shipped.thresholds import PREFIX, THRESHOLDS, render_rules

FOLDER = Path(rules.__file__).parent
ROOT = Path(__file__).parents[2]
UNIT_TESTS = sorted((ROOT / "dashboards" / "tests").glob("*.yaml"))
ALERTS = rules.alerts()
CHECKER = Checker(rules.recorded())
SITUATIONS = ("fires", "just below", "restart", "job not started", "job ended", "absent target")


def run_promtool(*arguments: str, folder: Path) -> str:
    answer = subprocess.run(
        ["promtool", *arguments], check=False, cwd=folder, capture_output=True, text=True, timeout=250
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@cache
def promtool_tests() -> list[dict[str, Any]]:
    return [test for file in UNIT_TESTS for test in msgspec.yaml.decode(file.read_text())["tests"]]


def test_promtool_accepts_them() -> None:
    assert "SUCCESS" in run_promtool("check", "rules", *rules.FILES, folder=FOLDER / "prometheus")


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.stem)
def test_promtools_tests_pass(file: Path, tmp_path: Path) -> None:
    """Only with the rules that a file is about, which takes a third of the time. By hand: promtool test rules FILE."""
    text = file.read_text(encoding="utf-8")
    needed = rules_needed(text)
    for folder in ("prometheus", "tests"):
        (tmp_path / folder).mkdir()
    for name in rules.FILES:
        groups = msgspec.yaml.decode(rules.read(name))["groups"]
        for group in groups:
            group["rules"] = [rule for rule in group["rules"] if rule.get("alert", rule.get("record")) in needed]
        (tmp_path / "prometheus" / name).write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    (tmp_path / "tests" / file.name).write_text(text, encoding="utf-8")
    run_promtool("test", "rules", file.name, folder=tmp_path / "tests")


def rules_needed(text: str) -> set[str]:
    """Return the names of the rules that decide whether the tests in *text* pass."""
    recorded = rules.recorded()
    if re.search(r'alertname!|ALERTS\{alertstate="firing"\}', text):
        return {*ALERTS, *recorded}

    def used(rule: str) -> set[str]:
        found = set(re.findall(r"tq:[\w:]+", rule))
        return {name for name in recorded if name in found or (PREFIX in found and name.startswith(PREFIX))}

    looked_at = set(re.findall(r'alertname(?:: |=")(\w+)', text))
    needed: set[str] = set()
    named = used(text).union(*(used(str(ALERTS[name])) for name in looked_at))
    while named:
        needed |= named
        named = set[str]().union(*(used(recorded[name]) for name in named)) - needed
    needed |= looked_at
    return needed


def test_the_thresholds_are_those_that_the_module_declares() -> None:
    assert rules.read("thresholds.yaml") == render_rules(), "python -m exporter.shipped.thresholds > the file"


@cache
def covered() -> dict[str, set[str]]:
    """Alert to the situations in which a promtool test checks it."""
    found: dict[str, set[str]] = {name: set() for name in ALERTS}
    for test in promtool_tests():
        subject, _, said = test["name"].partition(": ")
        queries = " ".join(case["expr"] for case in test.get("promql_expr_test", []))
        if subject == "every alert":
            assert "exp_samples" not in str(test), test["name"]
            looked_at = set(ALERTS) - set(re.findall(r'alertname!="(\w+)"', queries))
        else:
            looked_at = {case["alertname"] for case in test.get("alert_rule_test", [])}
            looked_at |= set(re.findall(r'alertname="(\w+)"', queries))
            assert looked_at == {subject}, test["name"]
        for name in looked_at:
            found[name] |= {situation for situation in SITUATIONS if situation in said}
    return found


# This one must fire: it is about the target.
ABOUT_THE_TARGET = {"TQExporterAbsent": {"absent target"}}


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_in_every_situation(name: str) -> None:
    assert covered()[name] == set(SITUATIONS) - ABOUT_THE_TARGET.get(name, set())


def test_a_test_that_says_fires_sees_it_fire() -> None:
    for test in promtool_tests():
        expected = [case["exp_alerts"] for case in test.get("alert_rule_test", [])]
        if ": fires" in test["name"]:
            assert any(expected), test["name"]
        elif "survives a restart" not in test["name"]:
            assert not any(expected), test["name"]


# It is about no exporter.
NO_PAGE = {"TQExporterThresholdsMissing": {"page"}}


def documentation() -> str:
    """Return the URL of the project's documentation, which pyproject.toml has."""
    found = re.search(r'^Documentation = "(https://.+/)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_it_must(name: str) -> None:
    alert = ALERTS[name]
    notes = alert["annotations"]
    assert alert["for"]
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(notes) == {"summary", "description", "runbook_url", "conventions"} | {"page"} - NO_PAGE.get(name, set())
    assert "$value" in notes["description"]
    assert notes["runbook_url"] == f"{documentation()}runbooks/{name}.md"
    assert ("partition=" in notes.get("page", "")) == ("$labels.partition" in notes["summary"])
    assert re.match(r"any\b|(recovery|nemo-rl|verl)\b", notes["conventions"])


def test_every_recorded_series_and_threshold_is_used() -> None:
    used = frozenset().union(*(CHECKER.metrics(alert["expr"]) for alert in ALERTS.values()))
    used = used.union(*(CHECKER.metrics(expression) for expression in rules.recorded().values()))
    described = "".join(alert["annotations"]["description"] for alert in ALERTS.values())
    unused = {name for name in rules.recorded() if name not in used and name not in described}
    assert unused == set()
    assert {f"{PREFIX}{threshold.name}" for threshold in THRESHOLDS} <= used


@pytest.mark.parametrize("name", [name for name, alert in ALERTS.items() if "tq:threshold:" in alert["expr"]])
def test_no_alert_compares_with_a_number_of_its_own(name: str) -> None:
    """Only 0, 1 and the number of thresholds may be literal. Every other number must be a threshold."""
    numbers = re.findall(r"(?:[<>=]=?|\*)\s*([\d.]+)", ALERTS[name]["expr"])
    assert set(numbers) <= {"0", "1", str(len(THRESHOLDS))}


def test_what_tells_targets_apart_stays_on_every_series_and_alert() -> None:
    """Also the labels that are not ours: routes by namespace and two clusters in one Prometheus need them."""
    for name, expression in rules.recorded().items():
        if not name.startswith(PREFIX):
            assert CHECKER.labels(expression) >= TARGET_LABELS, name
            assert not re.search(r"\b(by|on) \(", expression), name
    for name, alert in ALERTS.items():
        assert not re.search(r"\b(by|on) \(", alert["expr"]), name
        if name != "TQExporterThresholdsMissing":
            assert CHECKER.labels(alert["expr"]) >= TARGET_LABELS, name
