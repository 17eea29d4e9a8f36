"""An upgrade changes nothing that Kubernetes forbids to change."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from tests.helm.helm import CHART, CI_VALUES, Stage, install, steps


def immutable(stage: Stage) -> dict[tuple[str, str], Any]:
    """Return, per object, the fields that an upgrade must not change."""
    fields = {
        "Deployment": ["selector"],
        "PodDisruptionBudget": ["selector"],
        "Service": ["clusterIP", "clusterIPs", "ipFamilies", "selector"],
    }
    found: dict[tuple[str, str], Any] = {}
    for item in stage.objects:
        spec = item.get("spec", {})
        found[item["kind"], item["metadata"]["name"]] = {key: spec.get(key) for key in fields.get(item["kind"], [])}
    return found


def test_the_selectors_are_those_of_the_first_release(installed: dict[str, Stage]) -> None:
    """A change of these fields breaks every installed release: the only remedy is to delete and install again."""
    first = {"app.kubernetes.io/name": "tq-exporter", "app.kubernetes.io/instance": "full"}
    assert installed["full"].find("Deployment")["spec"]["selector"] == {"matchLabels": first}
    assert installed["full"].find("PodDisruptionBudget")["spec"]["selector"] == {"matchLabels": first}
    assert installed["full"].find("Service")["spec"]["selector"] == first
    names = {item["metadata"]["name"] for item in installed["full"].objects}
    assert names == {
        "full-tq-exporter",
        "full-tq-exporter-extra",
        *(f"full-tq-exporter-tq-{name}" for name in ("clients", "health", "overview", "staleness")),
    }
    assert {item["metadata"]["name"] for item in installed["default"].objects} == {"default-tq-exporter"}


def test_another_chart_version_and_other_labels_change_no_immutable_field(tmp_path: Path) -> None:
    newer = tmp_path / "tq-exporter"
    shutil.copytree(CHART, newer)  # follows the links to the rules and dashboards
    text = re.sub(r"(?m)(ersion): [\d.]+$", r"\1: 9.9.9", (newer / "Chart.yaml").read_text())
    assert text.count("9.9.9") == 2
    (newer / "Chart.yaml").write_text(text)
    values = CI_VALUES["full"]
    more = {**values, "podLabels": {"tier": "old"}, "commonLabels": {"tier": "new"}}
    release = steps("full", values)
    release["steps"] += [{"chart": str(newer), "values": more}]
    [[before, after]] = install(release)
    assert immutable(after) == immutable(before)
    deployment = after.find("Deployment")
    assert deployment["metadata"]["labels"]["helm.sh/chart"] == "tq-exporter-9.9.9"
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_an_upgrade_that_changes_nothing_writes_no_workload() -> None:
    [[before, after]] = install(steps("same", CI_VALUES["default"], CI_VALUES["default"]))
    assert after.writes == before.writes
    assert after.objects == before.objects
