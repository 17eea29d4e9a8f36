"""What is judged of a job, as every output shows it."""

from __future__ import annotations

import json

from tests.situations.frameworks import nemo_rl, verl
from tests.situations.player import Job
from tests.support.fake_router import reply


def test_a_storage_unit_that_does_not_answer_is_told_with_its_last_figures() -> None:
    with Job(storage_keys=(100, 40), storage_capacity=1000) as job:
        seen = job.shows({"train": nemo_rl("a", 1)})
        assert not seen.by("dataplane_condition", "condition", condition="DataPlaneStorageUnitLost")[
            "DataPlaneStorageUnitLost"
        ]
        job.stop_storage_unit(1)
        units = ("DataPlaneStorageUnitLost", "DataPlaneStorageUnitSilent")
        seen = job.exporter.wait_for(
            lambda seen: any(seen.by("dataplane_condition", "condition").get(name) for name in units), "the condition"
        )
        assert seen.value("dataplane_storage_keys", storage_unit="1") is None, "old is not now"
        unit = job.exporter.snapshot()["storage"][1]
        assert unit["keys"] is None
        assert unit["last_answer"]["keys"] == 40
        answer = json.loads(job.exporter.get("/api/v1/conditions")[1])
        assert answer["degraded"] is True
        held = [one for one in answer["conditions"] if one["holds"]]
        assert held[0]["name"] in units
        assert held[0]["since"] == unit["last_answer"]["at"]


def test_what_cannot_be_read_is_not_judged(job: Job) -> None:
    seen = job.shows({"train": verl("a", 7)})
    assert (
        seen.value("dataplane_condition", condition="DataPlaneGroupsOrphaned", stage="queue", severity="warning") == 0
    )
    refused = reply("REQUEST_ERROR", {"message": "too busy"}, "TQ_CONTROLLER_1")
    job.shows({"train": refused})
    seen = job.exporter.wait_for(
        lambda seen: bool(seen.by("dataplane_condition", "condition").get("DataPlanePartitionUnreadable")),
        "the condition",
    )
    known = seen.by("dataplane_condition", "condition")
    for name in ("DataPlaneGroupsOrphaned", "DataPlaneStalenessAboveWindow", "DataPlaneQueueStalled", "DataPlaneFlows"):
        assert name not in known, "unknown is not 0"
    assert known["DataPlaneLost"] == 0
