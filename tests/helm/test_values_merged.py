"""Values that meet others: maps are merged, lists and addresses reach the objects as they are given."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.helm.helm import CI_VALUES, Stage, install, steps
from tests.helm.test_manifests import relabelled, rendered

_EVERYTHING: dict[str, Any] = {
    **CI_VALUES["default"],
    "fullnameOverride": "metrics",
    "commonLabels": {"release": "common", "team": "rl"},
    "podLabels": {"release": "pod"},
    "podAnnotations": {"release": "pod"},
    "podMonitor": {"enabled": True, "labels": {"release": "monitor"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "rule"}},
    "dashboards": {
        "enabled": True,
        "labels": {"release": "dashboard"},
        "annotations": {"grafana_folder": "Mine"},
    },
}


@pytest.fixture(scope="module")
def stage() -> Stage:
    [[made]] = install(steps("run", _EVERYTHING))
    return made


def test_a_label_of_an_object_replaces_the_common_one(stage: Stage) -> None:
    """``rendered`` refuses a key that is there twice."""
    found = {(item["kind"], item["metadata"]["labels"]["release"]) for item in rendered(stage)}
    named = {("PodMonitor", "monitor"), ("PrometheusRule", "rule"), ("ConfigMap", "dashboard")}
    assert found >= named
    assert {release for kind, release in found - named} == {"common"}
    assert all(item["metadata"]["labels"]["team"] == "rl" for item in rendered(stage))
    template = stage.find("Deployment")["spec"]["template"]["metadata"]
    assert template["labels"]["release"] == template["annotations"]["release"] == "pod"
    assert "checksum/config" in template["annotations"]


def test_an_annotation_replaces_the_charts(stage: Stage) -> None:
    folders = [item["metadata"].get("annotations", {}).get("grafana_folder") for item in stage.objects]
    assert set(folders) == {None, "Mine"}


def test_rules_and_dashboards_know_the_exporter_whatever_the_release_is_called(stage: Stage) -> None:
    labels = relabelled(stage.find("PodMonitor"), {"job": "training/metrics", "instance": "10.0.0.1:9464"})
    assert labels == {"job": "tq-exporter", "instance": "metrics.training.svc:9464"}


def test_the_address_listened_on_is_the_configured_one(installed: dict[str, Stage]) -> None:
    full = installed["full"]
    config = yaml.safe_load(full.find("ConfigMap", "full-tq-exporter")["data"]["exporter.yaml"])
    [container] = full.find("Deployment")["spec"]["template"]["spec"]["containers"]
    assert config["listen"] == "[::]:9465"
    assert [port["containerPort"] for port in container["ports"]] == [9465]
    assert full.find("Service")["spec"]["ports"][0] == {
        "name": "tq-metrics",
        "port": 9464,
        "targetPort": "tq-metrics",
        "protocol": "TCP",
    }
    assert full.find("Service")["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    assert full.find("Service")["spec"]["ipFamilies"] == ["IPv6", "IPv4"]


def test_a_protected_exporter_is_probed_by_a_command(installed: dict[str, Stage]) -> None:
    def probes(name: str) -> list[dict[str, Any]]:
        [container] = installed[name].find("Deployment")["spec"]["template"]["spec"]["containers"]
        return [container["livenessProbe"], container["readinessProbe"]]

    assert [probe["exec"]["command"] for probe in probes("full")] == [
        ["tq-exporter", "healthcheck"],
        ["tq-exporter", "healthcheck", "--ready"],
    ]
    http = {"port": "tq-metrics", "scheme": "HTTP"}
    assert [probe["httpGet"] for probe in probes("default")] == [
        {"path": "/healthz", **http},
        {"path": "/readyz", **http},
    ]
