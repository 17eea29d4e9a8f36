"""The values for Kubernetes: the chart makes valid objects of them, and the container is that of its README."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.helm.helm import ROOT, ask, install, steps
from tests.helm.test_sidecar import readme_block

FOLDER = ROOT / "examples" / "kubernetes"


def values(name: str) -> dict[str, object]:
    """Return one of the example's files."""
    read: dict[str, object] = yaml.safe_load(Path(FOLDER / name).read_text())
    return read


def test_the_chart_takes_both_files() -> None:
    releases = [steps("tq-exporter", values(f"{mode}-values.yaml")) for mode in ("sidecar", "standalone")]
    [sidecar], [standalone] = install(*releases)
    assert "Deployment" not in sidecar.kinds()
    assert {"ConfigMap", "PodMonitor", "PrometheusRule", "Service"} <= set(sidecar.kinds())
    assert {"ConfigMap", "Deployment", "PrometheusRule", "Service", "ServiceMonitor"} <= set(standalone.kinds())
    for stage in (sidecar, standalone):
        assert ask("validate", objects=stage.objects, version="1.31.0") == []
    config = yaml.safe_load(sidecar.find("ConfigMap", "tq-exporter")["data"]["exporter.yaml"])
    assert config["run"] == "grpo-7b"


def test_the_head_pod_gets_the_container_of_the_charts_page() -> None:
    assert values("ray-cluster-values.yaml") == readme_block("Sidecar")
