"""The container in another chart's pod: with this chart as a dependency, and as the README shows for KubeRay."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.helm.helm import CHART, CI_VALUES, ROOT, Stage, ask, install, steps


def umbrella(folder: Path) -> Path:
    """Return the example chart with this chart as its dependency, where `helm dependency build` would put it."""
    chart = folder / "training"
    shutil.copytree(ROOT / "tests" / "helm" / "umbrella", chart)
    shutil.copytree(CHART, chart / "charts" / "tq-exporter")
    return chart


def test_the_templates_are_a_library_for_a_chart_of_your_own(tmp_path: Path) -> None:
    [[stage]] = install(steps("run", {}, chart=umbrella(tmp_path)))
    pod = stage.find("Pod")
    assert stage.kinds() == ["ConfigMap", "Pod", "PodMonitor", "Service"]
    _, exporter = pod["spec"]["containers"]
    assert exporter["image"] == f"tq-exporter:{yaml.safe_load((CHART / 'Chart.yaml').read_text())['appVersion']}"
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in exporter["volumeMounts"]} <= volumes.keys()
    assert volumes["tq-exporter-config"]["configMap"]["name"] == stage.find("ConfigMap")["metadata"]["name"]
    config = yaml.safe_load(stage.find("ConfigMap")["data"]["exporter.yaml"])
    assert config["discovery"] == {"file": "/run/tq-exporter/endpoint.json"}
    assert stage.find("PodMonitor")["spec"]["selector"] == {"matchLabels": {"app": "ray-head"}}
    assert ask("validate", objects=stage.objects, version="1.25.0") == []


def readme_block(heading: str) -> dict[str, Any]:
    """Return the first YAML block below a heading of the chart's README."""
    text = (CHART / "README.md").read_text().partition(f"## {heading}\n")[2]
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    found: dict[str, Any] = yaml.safe_load(block[1])
    return found


def test_the_values_for_kuberay_are_those_of_the_template(tmp_path: Path) -> None:
    """The README's block for the ray-cluster chart must equal what the chart renders."""
    values = readme_block("Sidecar")["head"]
    release = {**CI_VALUES["sidecar"], "fullnameOverride": "tq-exporter"}
    chart = umbrella(tmp_path)
    [[stage]] = install(steps("tq-exporter", {"tq-exporter": release}, chart=chart))
    pod = stage.find("Pod")["spec"]
    assert values["sidecarContainers"] == [pod["containers"][1]]
    assert values["volumes"] == pod["volumes"]
    assert values["volumeMounts"] == pod["containers"][0]["volumeMounts"]


def test_the_kuberay_block_and_the_release_agree(installed: dict[str, Stage]) -> None:
    ports = [port["name"] for port in readme_block("Sidecar")["head"]["sidecarContainers"][0]["ports"]]
    assert [end["port"] for end in installed["sidecar"].find("PodMonitor")["spec"]["podMetricsEndpoints"]] == ports
