"""What the measuring program of the table in docs/dashboards.md makes of what it sees."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.demo.scenarios import HEALTHY, SCENARIOS
from tests.dashboards import detection
from tests.dashboards.detection import BEGINS, Incident, rows


def snapshot(*conditions: str, departed: int = 0, version: int = 0) -> dict[str, Any]:
    held = [{"name": name, "holds": True, "severity": "warning"} for name in conditions]
    clear = {"name": "DataPlaneLost", "holds": False, "severity": "critical"}
    flows = {"name": "DataPlaneFlows", "holds": True, "severity": "ok"}
    flow = {"arrived": 5, "departed": departed}
    return {"conditions": [*held, clear, flows], "total_flow": flow, "reference_version": version}


def alert(name: str, state: str, since: str) -> dict[str, Any]:
    return {"labels": {"alertname": name}, "state": state, "activeAt": since}


def test_every_incident_of_the_demo_has_a_beginning() -> None:
    assert BEGINS.keys() == SCENARIOS.keys() - {HEALTHY}


def test_a_row_has_seconds_since_the_fault_and_says_what_is_reckoned() -> None:
    incident = Incident("failing-rollouts")
    incident.see(1000.0, snapshot(), [])
    incident.see(1062.0, snapshot("DataPlaneNoGroupCompleted"), [])
    pending = alert("DataPlaneNoGroupCompleted", "pending", "1970-01-01T00:17:30.5Z")
    incident.see(1070.0, snapshot("DataPlaneNoGroupCompleted"), [pending])
    incident.see(1100.0, snapshot("DataPlaneNoGroupCompleted"), [pending])
    lost = "1970-01-01T00:18:00.123456789Z"
    incident.see(1120.0, snapshot(), [alert("DataPlaneLost", "firing", lost)])
    incident.see(1150.0, snapshot(), [alert("DataPlaneLost", "firing", lost)])
    assert list(rows(incident)) == [
        "| failing-rollouts | `DataPlaneNoGroupCompleted` | 62 | 650 (reckoned) |",  # pending at 50 s, for 10 min
        "| failing-rollouts | `DataPlaneLost` | \u2013 | 120 |",
    ]


def test_the_trainer_has_stopped_with_the_last_departure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_seen", {})
    incident = Incident("stalled-trainer")
    for now, departed in ((10.0, 0), (20.0, 4), (30.0, 8), (40.0, 8)):
        incident.see(now, snapshot(departed=departed), [])
    assert incident.began == 30.0


def test_new_weights_have_stopped_after_the_healthy_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_seen", {})
    incident = Incident("dead-weight-sync")
    for now, version in ((10.0, 4), (20.0, 6), (30.0, 7), (40.0, 8)):
        incident.see(now, snapshot(version=version), [])
    assert incident.began == 30.0
