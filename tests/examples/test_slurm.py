"""What the Slurm example adds to the batch script, which `make engines` runs on a real Slurm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[2] / "examples" / "slurm"


def run(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the task with a Python that prints its arguments."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    command = ["bash", str(FOLDER / "train.sh")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)


def test_the_first_task_trains_and_the_others_do_not(tmp_path: Path) -> None:
    assert run(tmp_path, SLURM_PROCID="0", TQ_EXAMPLES="/e", STEPS="3").stdout == "/e/plain/loop.py --steps 3\n"
    assert run(tmp_path, SLURM_PROCID="1", TQ_EXAMPLES="/e").stdout == ""


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode != 0
    assert "TQ_EXAMPLES" in done.stderr


def test_prometheus_reads_the_targets_where_the_batch_script_writes_them() -> None:
    [job] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == ["/shared/tq-exporter/targets/*.json"]
    assert "target=$shared/targets/$run.json" in (FOLDER.parents[1] / "docs/deploy/train.sbatch").read_text()
