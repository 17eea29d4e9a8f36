"""The checker refuses a metric that does not exist, and every rule passes it."""

from __future__ import annotations

import pytest

from dashboards.foreign import TARGET_LABELS
from dashboards.promql import Checker, QueryError
from dataplane.metrics import Metric
from exporter.catalogue.metrics import METRICS, prometheus_name
from exporter.shipped import rules

ALERTS = rules.alerts()
CHECKER = Checker(rules.recorded())


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("dataplane_upp", "there is no metric"),
        ("dataplane_ping_duration_seconds", "there is no metric"),
        ('dataplane_up{partition="train"}', "no label partition"),
        ('dataplane_discovery_state{state="gone"}', "never 'gone'"),
        ('dataplane_discovery_state{state=~"found|gone"}', "never 'gone'"),
        ("sum by (partition) (dataplane_up)", "groups by partition"),
        ("sum by (job) (sum by (instance) (dataplane_up))", "groups by job"),
        ("dataplane_up and on (partition) dataplane_partition_depth", "matches on partition"),
        ("dataplane_up and dataplane_partition_depth", "matches on partition"),
        ("dataplane_up and ignoring (state) dataplane_partition_depth", "ignores state"),
        ("dataplane_up and ignoring (role) dataplane_partition_info", "matches on convention, partition"),
        ("histogram_quantile(0.9, sum by (job) (rate(dataplane_ping_duration_seconds_bucket[5m])))", "needs le"),
        ("rate(dataplane_errors_total)", "expected type"),
        ("sum by (", "unclosed"),
        ("scalar(tq:threshold:nonsense)", "there is no metric"),
        ('count({__name__=~"tq:limit:.+"})', "there is no metric"),
    ],
)
def test_a_wrong_query_is_refused(query: str, complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        CHECKER.labels(query)


def test_the_labels_of_a_result() -> None:
    checker = Checker()
    assert checker.labels("dataplane_partition_depth") == TARGET_LABELS | {"partition"}
    assert checker.labels("sum by (job) (dataplane_partition_depth)") == {"job"}
    assert checker.labels("sum without (job) (dataplane_up)") == TARGET_LABELS - {"job"}
    assert checker.labels('dataplane_up{instance=~"$instance"} > 1') == TARGET_LABELS
    assert checker.labels("dataplane_partition_depth and ignoring (partition) dataplane_up") >= {"partition"}
    assert checker.labels("dataplane_up * on (job) up") == {"job"}
    assert checker.labels("dataplane_partition_depth * ignoring (partition) group_left () dataplane_up") >= {
        "partition"
    }
    assert checker.labels("scalar(dataplane_up)") == frozenset()


@pytest.mark.parametrize("metric", METRICS, ids=prometheus_name)
def test_every_metric_can_be_queried(metric: Metric) -> None:
    suffix = "_count" if metric.kind == "histogram" else ""
    assert CHECKER.metrics(f"sum(rate({prometheus_name(metric)}{suffix}[$__rate_interval]))") == {
        prometheus_name(metric) + suffix
    }
    CHECKER.labels(prometheus_name(metric) + suffix)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_passes(name: str) -> None:
    CHECKER.labels(ALERTS[name]["expr"])
