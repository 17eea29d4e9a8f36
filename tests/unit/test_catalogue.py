"""The catalogue is consistent, and its pages match it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest

from dataplane.groups import DataPlaneCapabilities
from dataplane.metrics import CLIENT_METRICS, Metric
from exporter.catalogue import metrics as catalogue
from exporter.catalogue.docs import render_json, render_markdown, render_table
from exporter.catalogue.metrics import (
    CAPABILITIES,
    EXPORTER_METRICS,
    METRICS,
    UndeclaredError,
    check_attributes,
    ping_bounds,
    prometheus_label,
    prometheus_name,
)
from exporter.model.snapshot import RESIDENCE_BOUNDS

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_it_holds_the_exporters_and_the_clients_metrics_once() -> None:
    assert (*EXPORTER_METRICS, *CLIENT_METRICS) == METRICS
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


def test_no_exposed_name_is_used_twice() -> None:
    exposed = [name for metric in METRICS for name in _sample_names(metric)]
    assert len(set(exposed)) == len(exposed)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_declarations_follow_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", metric.name)
    assert metric.description.endswith(".")
    assert bool(metric.boundaries) == (metric.kind == "histogram")
    assert list(metric.boundaries) == sorted(set(metric.boundaries))
    labels = {prometheus_label(name) for name in metric.attributes}
    assert len(labels) == len(metric.attributes)
    assert not labels & {"type", "cluster", "service", "env", "job", "instance", "le", "quantile"}
    for values in metric.attributes.values():
        assert values is None or len(set(values)) == len(values) > 0
    # A Collector adds _ratio to a gauge of unit 1 and the scrape does not, so the name has to say it.
    assert (metric.unit == "1") == metric.name.endswith("_ratio")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_sdk_exposes_the_name_that_the_catalogue_derives(metric: Metric) -> None:
    registry = CollectorRegistry()
    provider = MeterProvider(
        [PrometheusMetricReader(scope_info_enabled=False, registry=registry)], shutdown_on_exit=False
    )
    meter = provider.get_meter("test")
    if metric.kind == "counter":
        meter.create_counter(metric.name, metric.unit).add(1)
    elif metric.kind == "gauge":
        meter.create_gauge(metric.name, metric.unit).set(1)
    else:
        meter.create_histogram(metric.name, metric.unit).record(1)
    exposed = set(re.findall(r"^([a-zA-Z_:][\w:]*)", generate_latest(registry).decode(), re.MULTILINE))
    assert exposed - {"target_info"} == set(_sample_names(metric))


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (Metric("a.b", "gauge", "", "."), "a_b"),
        (Metric("a.b", "gauge", "s", "."), "a_b_seconds"),
        (Metric("a.b_seconds", "gauge", "s", "."), "a_b_seconds"),
        (Metric("a.b", "counter", "By", "."), "a_b_bytes_total"),
        (Metric("a.b", "counter", "{error}", "."), "a_b_total"),
        (Metric("a.b_ratio", "gauge", "1", "."), "a_b_ratio"),
        (Metric("a.b", "histogram", "{version}", "."), "a_b"),
    ],
)
def test_names_follow_the_collectors_rules(metric: Metric, name: str) -> None:
    assert prometheus_name(metric) == name


def test_closed_sets_match_the_types_they_describe() -> None:
    assert tuple(field.name for field in dataclasses.fields(DataPlaneCapabilities)) == CAPABILITIES
    assert RESIDENCE_BOUNDS[-1] >= 3600


def test_the_ping_histogram_has_a_bucket_at_the_objective() -> None:
    assert 0.25 in catalogue.PING_DURATION.boundaries
    assert 0.3 in ping_bounds(0.3)
    assert list(ping_bounds(0.3)) == sorted(ping_bounds(0.3))


def test_declared_attributes_pass() -> None:
    check_attributes(catalogue.ERRORS, {"operation": "ping", "error.type": "_OTHER"})
    check_attributes(catalogue.PARTITION_KEYS, {"partition": "any name"})
    check_attributes(catalogue.ERRORS, {})


@pytest.mark.parametrize("attributes", [{"operation": "reboot"}, {"group_id": "7"}])
def test_undeclared_attributes_and_values_are_errors(attributes: dict[str, str]) -> None:
    with pytest.raises(UndeclaredError, match=r"dataplane\.errors"):
        check_attributes(catalogue.ERRORS, attributes)


def test_the_page_is_up_to_date() -> None:
    assert DOCS.read_text(encoding="utf-8") == render_markdown(), (
        "run: python -m exporter.catalogue.docs > docs/metrics.md"
    )


@pytest.mark.parametrize("render", [render_markdown, render_table])
def test_every_form_names_every_metric_once(render: Callable[[], str]) -> None:
    words = re.findall(r"^(?:\| `)?([a-z_]+)(?=[` ])", render(), re.MULTILINE)
    for metric in METRICS:
        assert words.count(prometheus_name(metric)) == 1


def test_json_has_every_field() -> None:
    described = {metric["name"]: metric for metric in json.loads(render_json())}
    assert described.keys() == {metric.name for metric in METRICS}
    assert described["dataplane.errors"]["prometheus_name"] == "dataplane_errors_total"
    assert described["dataplane.partition.keys"]["attributes"] == {"partition": None}


def _sample_names(metric: Metric) -> list[str]:
    name = prometheus_name(metric)
    return [f"{name}{suffix}" for suffix in ("_bucket", "_sum", "_count")] if metric.kind == "histogram" else [name]


def test_the_concepts_name_metrics_that_exist() -> None:
    text = (DOCS.parent / "concepts.md").read_text(encoding="utf-8").replace("`…_", "`dataplane_partition_")
    exposed = {name for metric in METRICS for name in (prometheus_name(metric), *_sample_names(metric))}
    named = set(re.findall(r"`(dataplane_\w+)", text))
    assert len(named) > 10
    assert named - {"dataplane_partition"} <= exposed
