"""The examples in docs/deploy run here unchanged, without Slurm and systemd."""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.packaging.dockerfile import ROOT
from tests.support.waiting import wait_until

_EXAMPLES = ROOT / "docs" / "deploy"

_TRAIN = """
import json, os, pathlib, socket, sys, time, urllib.request
shared = pathlib.Path(os.environ["TQ_SHARED"])
file = shared / "targets" / "grpo-7.json"
for _ in range(600):
    if file.exists():
        break
    time.sleep(0.1)
[target] = json.loads(file.read_text())
assert target["labels"] == {"run": "grpo-7"}, target
host, _, port = target["targets"][0].rpartition(":")
assert host == socket.getfqdn() or host == socket.gethostname(), target
assert os.environ["TQ_DISCOVERY_FILE"] == str(shared / "grpo-7" / "endpoint.json")
request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Host": f"{host}:{port}"})
text = urllib.request.urlopen(request, timeout=20).read().decode()
assert 'run="grpo-7"' in text, text
sys.exit(3)
"""


_COMMAND = ("bash", str(_EXAMPLES / "train.sbatch"))


def job_env(folder: Path, train: str, **variables: str) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_NAME": "grpo",
        "SLURM_JOB_ID": "7",
        "TQ_SHARED": str(folder),
        "TQ_TRAIN": train,
        **variables,
    }


def run_the_batch_script(folder: Path, train: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = job_env(folder, train, **variables)
    return subprocess.run(_COMMAND, env=env, capture_output=True, text=True, check=False, timeout=240)


def test_the_batch_script_runs_an_exporter_as_long_as_the_training_and_ends_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(_TRAIN)
    done = run_the_batch_script(tmp_path, f"{sys.executable} {tmp_path / 'train.py'}")
    assert done.returncode == 3, done.stderr + (tmp_path / "grpo-7" / "exporter.log").read_text()
    assert list((tmp_path / "targets").iterdir()) == [], "Prometheus would go on asking"
    mine = str(tmp_path / "grpo-7" / "endpoint.json")
    assert not [one.pid for one in psutil.process_iter(["cmdline"]) if mine in (one.info["cmdline"] or [])]


def test_a_job_that_is_signalled_over_and_over_leaves_no_target(tmp_path: Path) -> None:
    """As by ``scancel``, on a node so busy that removing a file takes a second."""
    slow = tmp_path / "bin" / "rm"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\nsleep 1\nexec {shutil.which("rm")} "$@"\n')
    slow.chmod(0o755)
    env = job_env(tmp_path, "sleep 300")
    job = subprocess.Popen(_COMMAND, env={**env, "PATH": f"{slow.parent}:{env['PATH']}"}, start_new_session=True)
    try:
        wait_until((tmp_path / "targets" / "grpo-7.json").exists, "the target", 60.0)
        for _ in range(40):
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGTERM)
            time.sleep(0.05)
        job.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    assert list((tmp_path / "targets").iterdir()) == []


def test_an_exporter_that_cannot_listen_has_no_target_and_ends_no_training(tmp_path: Path) -> None:
    """Prometheus would store what listens on that port, another job's exporter, under this run."""
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = f'until grep -q "Address already in use" {tmp_path}/grpo-7/exporter.log; do sleep 0.1; done'
        (tmp_path / "train.sh").write_text(f"{refused}\nsleep 1\nls {tmp_path}/targets\n")
        done = run_the_batch_script(tmp_path, f"bash {tmp_path / 'train.sh'}", TQ_PORT=port)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_unit_starts_what_there_is_and_takes_every_right_away() -> None:
    # systemd adds up what duplicate keys say; none of those below is there twice.
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(_EXAMPLES / "tq-exporter.service")
    service = dict(unit["Service"])
    program, *arguments = service["ExecStart"].split()
    assert program.endswith("/bin/tq-exporter")
    assert arguments[:2] == ["run", "--config"]
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
