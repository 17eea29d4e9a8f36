"""The examples in docs/deploy run here unchanged, without Slurm and systemd."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

from exporter.demo.stack import free_port
from tests.packaging.dockerfile import ROOT

_EXAMPLES = ROOT / "docs" / "deploy"

_TRAIN = """
import json, os, pathlib, sys, time, urllib.request
shared = pathlib.Path(os.environ["TQ_SHARED"])
[target] = json.loads((shared / "targets" / "grpo-7.json").read_text())
assert target["labels"] == {"run": "grpo-7"}, target
port = target["targets"][0].rpartition(":")[2]
assert os.environ["TQ_DISCOVERY_FILE"] == str(shared / "grpo-7" / "endpoint.json")
text = ""
for _ in range(600):
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        break
    except OSError:
        time.sleep(0.1)
assert 'run="grpo-7"' in text, text
sys.exit(3)
"""


def test_the_batch_script_runs_an_exporter_as_long_as_the_training_and_ends_with_its_code(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "train.py").write_text(_TRAIN)
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_NAME": "grpo",
        "SLURM_JOB_ID": "7",
        "TQ_SHARED": str(tmp_path),
        "TQ_PORT": str(port),
        "TQ_TRAIN": f"{sys.executable} {tmp_path / 'train.py'}",
    }
    done = subprocess.run(
        ["bash", str(_EXAMPLES / "train.sbatch")], env=env, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 3, done.stderr + (tmp_path / "grpo-7" / "exporter.log").read_text()
    assert list((tmp_path / "targets").iterdir()) == [], "Prometheus would go on asking"
    mine = str(tmp_path / "grpo-7" / "endpoint.json")
    assert not [one.pid for one in psutil.process_iter(["cmdline"]) if mine in (one.info["cmdline"] or [])]


def test_the_unit_starts_what_there_is_and_takes_every_right_away() -> None:
    # systemd allows duplicate keys, configparser does not; the unit has none.
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(_EXAMPLES / "tq-exporter.service")
    service = dict(unit["Service"])
    program, *arguments = service["ExecStart"].split()
    assert program.endswith("/bin/tq-exporter")
    assert arguments[:2] == ["run", "--config"]
    assert service["DynamicUser"] == service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""


def test_the_targets_are_what_file_discovery_reads(tmp_path: Path) -> None:
    script = (_EXAMPLES / "train.sbatch").read_text()
    [line] = [line for line in script.splitlines() if line.startswith("printf ")]
    target = tmp_path / "target"
    text = f"run=a; port=9464; target={target}; hostname() {{ echo node1; }}; {line}"
    subprocess.run(["bash", "-euc", text], check=True)
    assert json.loads((tmp_path / "target.new").read_text()) == [{"targets": ["node1:9464"], "labels": {"run": "a"}}]
