"""A real exporter with all trackers switched on; what they wrote is read back with the trackers' own readers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.situations.frameworks import nemo_rl
from tests.situations.player import Job
from tests.support.waiting import wait_until
from tests.trackers.wandb_file import history, records

pytestmark = pytest.mark.full

TRACKERS = ("mlflow", "tensorboard", "wandb")
READY = "tq/rollout_data/ready"
LEFT = "tq/rollout_data/residence_s"


@dataclass
class Written:
    """What a run of three versions has left behind."""

    folder: Path
    counted: dict[str, float]
    log: str
    exit_code: int
    processes_left: list[psutil.Process]

    @property
    def wandb_file(self) -> Path:
        (found,) = self.folder.glob("wandb/offline-run-*/run-abc.wandb")
        return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("tracked")
    config = f"""
tracking:
  interval: 1s
  tensorboard: {folder}/logs
  wandb: {{run_id: abc, project: rl, mode: offline}}
  mlflow: {{uri: "sqlite:///{folder}/mlflow.db", experiment: rl}}
"""
    with pytest.MonkeyPatch.context() as patch, _job(patch, folder, config) as job:
        for version in (1, 2, 3):
            rows = nemo_rl(f"a{version}", version) | nemo_rl(f"b{version}", version)
            job.shows({"rollout_data": rows}, rounds=2)
            _wait_for_points(job)
        counted = _points(job)
        children = job.exporter.process.children(recursive=True)
        code = job.exporter.stop()
        _, left = psutil.wait_procs(children, timeout=10)
        yield Written(folder, counted, job.exporter.log, code, left)


def _job(patch: pytest.MonkeyPatch, folder: Path, config: str) -> Job:
    patch.setenv("WANDB_DIR", str(folder))
    patch.chdir(folder)
    patch.setenv("PYTHONPATH", os.fspath(Path(__file__).parents[2]))
    return Job(config)


def _wait_for_points(job: Job) -> None:
    """Wait for a point of every tracker that was made after this call: one may be under way."""
    before = _points(job)
    wait_until(lambda: all(_points(job)[name] >= before[name] + 2 for name in TRACKERS), "two points each", 300.0)


def _points(job: Job) -> dict[str, float]:
    return job.exporter.scrape().by("tq_exporter_tracker_points_total", "tracker", outcome="ok")


def test_tensorboard_shows_the_scalars_by_version(written: Written) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "histograms": 0}  # else the reader keeps a sample
    reader = EventAccumulator(str(written.folder / "logs" / "tq-exporter"), everything).Reload()
    ready = reader.Scalars(READY)
    assert {event.step for event in ready} == {1, 2, 3}
    assert {event.value for event in ready} == {2.0}
    assert reader.Scalars("tq/training/lag_max")[-1].value == 0
    assert sum(event.histogram_value.num for event in reader.Histograms(LEFT)) == 4, "two groups of two versions left"


def test_weights_and_biases_has_the_same_run(written: Written) -> None:
    points = [point for point in history(written.wandb_file) if READY in point]  # before the first listing it has none
    assert {point["trainer/version"] for point in points} == {1, 2, 3}
    assert {point[READY] for point in points} == {2}
    left = [point for point in points if point.get(f"{LEFT}/_type") == "histogram"]
    assert sum(sum(point[f"{LEFT}/values"]) for point in left) == 4
    (run,) = [one.run for one in records(written.wandb_file) if one.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.project) == ("abc", "rl")
    metrics = [one.metric for one in records(written.wandb_file) if one.WhichOneof("record_type") == "metric"]
    assert ("tq/*", "trainer/version") in {(one.glob_name, one.step_metric) for one in metrics}


def test_mlflow_has_a_run_with_the_metrics(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    client = _mlflow(written)
    (run,) = client.search_runs([client.get_experiment_by_name("rl").experiment_id])
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, READY)
    assert {(point.step, point.value) for point in points} == {(1, 2.0), (2, 2.0), (3, 2.0)}


def _mlflow(written: Written) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{written.folder}/mlflow.db")


def test_every_tracker_says_once_that_it_works(written: Written) -> None:
    for name in TRACKERS:
        assert written.log.count(f"{name} gets the figures") == 1
    assert "gets no figures" not in written.log


def test_nothing_stays_behind(written: Written) -> None:
    assert written.exit_code == 0
    assert written.processes_left == []
