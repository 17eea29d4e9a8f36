"""The examples for trainers' own loggers, against a real exporter: verl's real ``Tracking``, and NeMo RL's method."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.exporter_process import ExporterProcess

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
PAGES = ("docs/tracking.md", "examples/verl/README.md", "examples/nemo-rl/README.md")


@pytest.fixture(scope="module")
def exporter() -> Iterator[ExporterProcess]:
    with ExporterProcess("--controller", "tcp://127.0.0.1:1") as exporter:
        yield exporter


def _run(python: Path | str, folder: str, source: str, exporter: ExporterProcess, *arguments: str) -> str:
    environ = {"PYTHONPATH": f"{ROOT / 'examples' / folder}:{ROOT}", "TQ_EXPORTER_URL": exporter.url}
    done = subprocess.run(
        [str(python), "-c", source, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_verl_logs_the_queue_with_each_step(exporter: ExporterProcess, tmp_path: Path) -> None:
    source = """
import os, sys
os.environ["TENSORBOARD_DIR"] = sys.argv[1]
import queue_tracking
queue_tracking.install()
from verl.utils.tracking import Tracking
tracking = Tracking("project", "experiment", ["console", "tensorboard"], config={})
for step in (1, 2):
    tracking.log(data={"actor/loss": 0.5}, step=step)
tracking.finish()
"""
    said = _run(ROOT / ".venv-verl" / "bin" / "python", "verl", source, exporter, str(tmp_path))
    assert re.search(r"step:2 - actor/loss:0.5 - tq/exporter_up:1.0 - tq/up:0.0", said)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in reader.Scalars("tq/exporter_up")] == [(1, 1.0), (2, 1.0)]


def test_nemo_rls_logger_gets_the_queue_under_the_step(exporter: ExporterProcess) -> None:
    """A logger with the signature of NeMo RL's: that is no package of PyPI."""
    source = """
from nemo_rl_queue import QueueLogger
class Logger:
    def log_metrics(self, metrics, step, prefix="", step_metric=None, step_finished=False):
        print(step, metrics["tq/exporter_up"], metrics["tq/up"])
QueueLogger(Logger()).log(7)
"""
    assert _run(sys.executable, "nemo-rl", source, exporter) == "7 1.0 0.0\n"


def test_the_keys_on_the_pages_exist() -> None:
    from exporter.model.readings import histograms, readings
    from tests.support.snapshots import rich_snapshot

    found = readings(rich_snapshot())
    names = {key.rpartition("/")[2] for key in (*found.gauges, *found.counters, *histograms(rich_snapshot()))}
    names |= {f"{name}_per_s" for name in ("arrived", "completed", "departed")}
    names |= {"exporter_up", "evicted_share", "departed_lag_mean", "residence_mean_s"}
    for page in PAGES:
        keys = re.findall(r"`tq/(?:[\w<>]+/)?(\w+)`", (ROOT / page).read_text())
        assert set(keys) <= names, page
