"""Each threshold of the alerts must be there once, in each of the clusters that share a Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from exporter.shipped import rules
from exporter.shipped.thresholds import PREFIX, THRESHOLDS
from tests.dashboards.test_rules import run_promtool

NAMES = [threshold.name for threshold in THRESHOLDS]


def run(folder: Path, files: list[str], series: dict[str, str], **checks: Any) -> None:
    """Run one promtool test in which *series*, name to values, are scraped every 30 seconds."""
    for file in files:
        (folder / file).write_text(rules.read(file), encoding="utf-8")
    test = {"interval": "30s", "input_series": [{"series": k, "values": v} for k, v in series.items()], **checks}
    text = yaml.safe_dump({"rule_files": files, "evaluation_interval": "1m", "tests": [test]})
    (folder / "test.yaml").write_text(text, encoding="utf-8")
    run_promtool("test", "rules", "test.yaml", folder=folder)


def test_the_check_finds_each_one_that_is_missing(tmp_path: Path) -> None:
    missing = {f"without_{name}": [other for other in NAMES if other != name] for name in NAMES}
    clusters = {**missing, "whole": NAMES, "more": [*NAMES, "of_an_older_version"]}
    series = {
        f'{PREFIX}{name}{{cluster="{cluster}"}}': "1+0x20" for cluster, there in clusters.items() for name in there
    }
    query = 'max by (cluster) (ALERTS{alertname="TQExporterThresholdsMissing", alertstate="firing"})'
    samples = [{"labels": f'{{cluster="{cluster}"}}', "value": 1} for cluster in (*missing, "more")]
    check = {"expr": query, "eval_time": "7m", "exp_samples": samples}
    run(tmp_path, ["alerts.yaml"], series, promql_expr_test=[check])


def test_alerts_work_with_the_thresholds_of_two_clusters(tmp_path: Path) -> None:
    series = {f'{PREFIX}{name}{{cluster="{cluster}"}}': "0+0x20" for name in NAMES for cluster in "ab"}
    series[f'{PREFIX}malformed_rows{{cluster="a"}}'] = "7+0x20"
    labels = 'cluster="b", job="tq-exporter", instance="a:9464"'
    series[f'dataplane_partition_rows_malformed{{{labels}, partition="below"}}'] = "7+0x40"
    series[f'dataplane_partition_rows_malformed{{{labels}, partition="above"}}'] = "8+0x40"
    query = 'count by (partition) (ALERTS{alertname="DataPlaneRowsMalformed", alertstate="firing"})'
    samples = [{"labels": '{partition="above"}', "value": 1}]
    check = {"expr": query, "eval_time": "12m", "exp_samples": samples}
    run(tmp_path, ["recording.yaml", "alerts.yaml"], series, promql_expr_test=[check])


def test_long_rollouts_need_only_a_threshold(tmp_path: Path) -> None:
    chosen = {"starved_seconds": 1800, "waiting_seconds": 1500}
    series = {f"{PREFIX}{threshold.name}": f"{threshold.default:g}+0x120" for threshold in THRESHOLDS}
    series |= {f"{PREFIX}{name}": f"{value}+0x120" for name, value in chosen.items()}
    labels = 'job="tq-exporter", instance="a:9464"'
    series[f'dataplane_partition_info{{{labels}, partition="train", role="train"}}'] = "1+0x120"
    series[f'dataplane_partition_depth{{{labels}, partition="train"}}'] = "0+0x120"
    for event in ("arrived", "completed"):
        series[f'dataplane_groups_{event}_total{{{labels}, role="train"}}'] = "0+5x20 100+0x100"  # until 10m
    query = 'max by (alertname) (ALERTS{alertname=~"DataPlaneTrainer.+", alertstate="firing"})'
    waiting, starved = (
        {"labels": f'{{alertname="DataPlaneTrainer{name}"}}', "value": 1} for name in ("Waiting", "Starved")
    )
    expected = {"34m": [], "42m": [waiting], "56m": [waiting, starved]}
    checks = [{"expr": query, "eval_time": at, "exp_samples": samples} for at, samples in expected.items()]
    run(tmp_path, ["recording.yaml", "alerts.yaml"], series, promql_expr_test=checks)


def test_the_alert_knows_how_many_there_are() -> None:
    assert f"!= {len(THRESHOLDS)}\n" in rules.alerts()["TQExporterThresholdsMissing"]["expr"]
