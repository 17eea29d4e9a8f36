"""The chart's PrometheusRule equals the repository's rules, except for what the values change."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.helm import CI_VALUES, ROOT, Stage, install, install_or_fail, steps

_FILES = ("thresholds.yaml", "recording.yaml", "alerts.yaml")


def repository() -> list[dict[str, Any]]:
    """Return the groups of dashboards/prometheus."""
    texts = [(ROOT / "dashboards" / "prometheus" / name).read_text() for name in _FILES]
    return [group for text in texts for group in yaml.safe_load(text)["groups"]]


def groups(stage: Stage) -> list[dict[str, Any]]:
    """Return the groups of the chart's PrometheusRule."""
    found: list[dict[str, Any]] = stage.find("PrometheusRule")["spec"]["groups"]
    return found


def test_without_overrides_they_are_the_files(installed: dict[str, Stage]) -> None:
    assert json.loads(json.dumps(groups(installed["sidecar"]))) == repository()


def test_overrides_change_what_they_name_and_nothing_else(installed: dict[str, Stage]) -> None:
    wanted = repository()
    changed = {"staleness_versions": "vector(2)", "stalled_seconds": "vector(120.5)", "given_up_ratio": "vector(0.4)"}
    for group in wanted:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["labels"] = {"team": "rl", **rule["labels"]}
                rule["annotations"] = {"owner": "rl on call", **rule["annotations"]}
                if "page" in rule["annotations"]:  # its web configuration has TLS
                    page = rule["annotations"]["page"]
                    rule["annotations"]["page"] = page.replace("http://", "https://")
                runbook = rule["annotations"]["runbook_url"]
                rule["annotations"]["runbook_url"] = f"https://wiki.example/tq/runbooks/{runbook.rpartition('/')[2]}"
            name = rule.get("record", "").removeprefix("tq:threshold:")
            rule["expr"] = changed.get(name, rule["expr"])
    assert groups(installed["full"]) == wanted


def test_an_alert_can_be_left_out_and_an_annotation_replaced(installed: dict[str, Stage]) -> None:
    settings = {"enabled": True, "disabled": ["DataPlaneLost"], "alertAnnotations": {"runbook_url": "https://wiki/tq"}}
    [[stage]] = install(steps("less", {**CI_VALUES["default"], "prometheusRule": settings}))
    before = [rule["alert"] for group in repository() for rule in group["rules"] if "alert" in rule]
    after = [rule for group in groups(stage) for rule in group["rules"] if "alert" in rule]
    assert [rule["alert"] for rule in after] == [name for name in before if name != "DataPlaneLost"]
    assert {rule["annotations"]["runbook_url"] for rule in after} == {"https://wiki/tq"}


@pytest.mark.parametrize("url", ["wiki/tq", "https://wiki.example/a b"])
def test_runbooks_are_at_a_url(url: str) -> None:
    values = {**CI_VALUES["default"], "prometheusRule": {"enabled": True}, "runbooks": url}
    [refused] = install_or_fail(steps("a", values))
    assert "runbooks" in refused


@pytest.mark.parametrize("name", ["full", "sidecar"])
def test_prometheus_takes_them(installed: dict[str, Stage], tmp_path: Path, name: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups(installed[name])}))
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {sum(len(group['rules']) for group in repository())} rules found" in done.stdout


def test_unknown_names_are_refused_with_those_that_there_are() -> None:
    def rule(**settings: Any) -> dict[str, Any]:
        return {**CI_VALUES["default"], "prometheusRule": {"enabled": True, **settings}}

    threshold, alert = install_or_fail(
        steps("a", rule(thresholds={"staleness": 2})), steps("b", rule(disabled=["DataPlaneLots"]))
    )
    assert "prometheusRule.thresholds.staleness is not a threshold; choose from unavailable_fast_ratio, " in threshold
    assert "prometheusRule.disabled: DataPlaneLots is not an alert; choose from DataPlaneLost, " in alert
