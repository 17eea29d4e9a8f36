"""``tq-exporter once --watch`` beside a job: what happened meanwhile, and what is wrong."""

from __future__ import annotations

import subprocess
import sys

from tests.situations.frameworks import verl
from tests.situations.player import Job


def once(job: Job, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``once`` beside *job* for some seconds."""
    command = [sys.executable, "-m", "exporter.cli", "once", "--watch", "12s", "--metadata-interval", "500ms"]
    return subprocess.run(
        [*command, "--discovery-file", str(job.record), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_once_names_the_culprit_after_a_while(job: Job) -> None:
    job.shows({"train": {**verl("a", 7), **verl("b", 7)}})
    ended = once(job)
    assert ended.returncode == 0, ended.stderr
    assert "TransferQueue up" in ended.stdout
    assert "! 2 groups are ready and none has left for " in ended.stdout
    assert "(training, DataPlaneTrainingQuiet)" in ended.stdout
    assert "Groups in the last 12 s, at least" in ended.stdout
    assert once(job, "--strict").returncode == 3


def test_a_full_storage_unit_is_a_fault_and_ends_once_with_3() -> None:
    with Job(storage_keys=(100, 40), storage_capacity=100) as job:
        seen = job.shows({"train": {**verl("a", 7), **verl("b", 7)}})
        full = {"condition": "DataPlaneStorageFull", "stage": "queue", "severity": "critical"}
        assert seen.value("dataplane_condition", **full) == 1
        assert seen.value("dataplane_condition", **full | {"condition": "DataPlaneStorageUnitLost"}) == 0
        ended = once(job)
        assert ended.returncode == 3, ended.stderr
        assert "TransferQueue degraded" in ended.stdout
        assert "!! storage unit 0 is 100 % full (100 of 100 keys): puts fail" in ended.stdout
