"""The examples in docs/deploy run here unchanged, without Slurm and systemd."""

from __future__ import annotations

import configparser
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from tests.packaging.dockerfile import ROOT

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


def run_the_batch_script(folder: Path, train: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_NAME": "grpo",
        "SLURM_JOB_ID": "7",
        "TQ_SHARED": str(folder),
        "TQ_TRAIN": train,
        **variables,
    }
    return subprocess.run(
        ["bash", str(_EXAMPLES / "train.sbatch")], env=env, capture_output=True, text=True, check=False, timeout=240
    )


def test_the_batch_script_runs_an_exporter_as_long_as_the_training_and_ends_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(_TRAIN)
    done = run_the_batch_script(tmp_path, f"{sys.executable} {tmp_path / 'train.py'}")
    assert done.returncode == 3, done.stderr + (tmp_path / "grpo-7" / "exporter.log").read_text()
    assert list((tmp_path / "targets").iterdir()) == [], "Prometheus would go on asking"
    mine = str(tmp_path / "grpo-7" / "endpoint.json")
    assert not [one.pid for one in psutil.process_iter(["cmdline"]) if mine in (one.info["cmdline"] or [])]


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
