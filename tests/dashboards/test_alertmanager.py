"""The example route in a real Alertmanager: one fault of a run pages once."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.demo.stack import alertmanager_command, free_port
from exporter.shipped import rules
from tests.support.waiting import wait_until

ROUTE = Path(rules.__file__).parent / "alertmanager" / "alertmanager.yaml"
SEVERITY = {name: alert["labels"]["severity"] for name, alert in rules.alerts().items()}


class Alertmanager:
    """A running Alertmanager.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            urllib.request.urlopen(f"{self._url}/-/ready", timeout=2).close()
        except OSError:
            return False
        return True

    def raise_alerts(self, names: list[str], **labels: str) -> None:
        """Send firing alerts as Prometheus does."""
        alerts = [{"labels": {"alertname": name, "severity": SEVERITY[name], **labels}} for name in names]
        body = json.dumps(alerts).encode()
        request = urllib.request.Request(
            f"{self._url}/api/v2/alerts", body, {"Content-Type": "application/json"}, method="POST"
        )
        urllib.request.urlopen(request, timeout=10).close()

    def told(self, run: str) -> set[str]:
        """Return the alerts of *run* that are not inhibited."""
        with urllib.request.urlopen(f"{self._url}/api/v2/alerts?inhibited=false", timeout=10) as answer:
            alerts: list[dict[str, Any]] = json.load(answer)
        return {alert["labels"]["alertname"] for alert in alerts if alert["labels"].get("run") == run}


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder, port = tmp_path_factory.mktemp("alertmanager"), free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(alertmanager_command(ROUTE, folder / "data", port), stdout=log, stderr=log)
        try:
            running = Alertmanager(port)
            wait_until(running.ready, "Alertmanager answers", 60.0)
            yield running
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize(
    ("fault", "told", "consequences"),
    [
        ("dead controller", "DataPlaneLost", sorted(name for name in SEVERITY if name.startswith("DataPlane"))),
        (
            "frozen controller",
            "DataPlaneTimeouts",
            ["DataPlaneClientTimeouts", "DataPlanePingSlow", "DataPlaneTrainerStarved", "DataPlaneTaskStalled"],
        ),
        ("controller that comes and goes", "DataPlaneUnavailable", ["DataPlaneTimeouts", "DataPlaneClientUnavailable"]),
        ("dead storage unit", "DataPlaneStorageUnitLost", ["DataPlaneClientTimeouts", "DataPlaneStorageUnitFlapping"]),
        ("full storage", "DataPlaneStorageFull", ["DataPlaneNearCapacity", "DataPlaneFullRepeatedly"]),
        ("puts that fail", "DataPlaneStorageFull", ["DataPlaneClientWritesFailing", "DataPlaneTrainerStarved"]),
        ("stalled trainer", "DataPlaneQueueStalled", ["DataPlaneStorageFull", "DataPlaneFullSoon"]),
        ("failing rollouts", "DataPlaneNoGroupCompleted", ["DataPlaneTrainerStarved", "DataPlaneTrainerWaiting"]),
        ("starved trainer", "DataPlaneTrainerStarved", ["DataPlaneTrainerWaiting"]),
    ],
)
def test_one_fault_is_told_once(alertmanager: Alertmanager, fault: str, told: str, consequences: list[str]) -> None:
    alertmanager.raise_alerts(consequences, instance="rollout:9000", cluster="b", run=f"{fault}, another cluster")
    alertmanager.raise_alerts([told, "TQExporterOTLPFailing"], instance="exporter:9464", cluster="a", run=fault)
    alertmanager.raise_alerts(consequences, instance="rollout:9000", cluster="a", run=fault)
    wait_until(lambda: told in alertmanager.told(fault), "the alerts are there", 10.0)
    assert alertmanager.told(fault) == {told, "TQExporterOTLPFailing"}


def test_nothing_is_inhibited_without_a_run_or_in_another_cluster(alertmanager: Alertmanager) -> None:
    alertmanager.raise_alerts(["DataPlaneLost"], instance="exporter:9464", cluster="a", run="blue")
    alertmanager.raise_alerts(["DataPlaneClientUnavailable"], instance="rollout:9000", cluster="b", run="blue")
    assert alertmanager.told("blue") == {"DataPlaneLost", "DataPlaneClientUnavailable"}


def test_every_alert_that_the_route_names_exists() -> None:
    for rule in yaml.safe_load(ROUTE.read_text(encoding="utf-8"))["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            for name in matcher.partition('"')[2].rstrip('"').split("|"):
                start = name.removesuffix(".*").removesuffix(".+")
                assert not start or any(alert.startswith(start) for alert in SEVERITY), matcher
