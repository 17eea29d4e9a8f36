"""``make stack``: the demo with Prometheus and Alertmanager beside it, and no process left at the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import yaml

from exporter.demo.stack import prometheus_config
from exporter.shipped import rules
from tests.support.demo_process import forking_env
from tests.support.waiting import wait_until

pytestmark = pytest.mark.full  # it is the demo, on Ray

START_S = 300.0
MARK = "STACK_TEST_MARK"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tqt"))  # short: Ray puts Unix sockets into it
    yield made
    shutil.rmtree(made, ignore_errors=True)


def start(folder: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    with (folder / "out").open("w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "exporter.demo.stack", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder), **env},
            start_new_session=True,
            text=True,
        )


def processes_of(mark: str) -> list[str]:
    return [
        f"{process.pid}: {process.info['cmdline']}"
        for process in psutil.process_iter(["cmdline", "environ", "status"])
        if (process.info["environ"] or {}).get(MARK) == mark and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.timeout(600)
def test_it_runs_says_where_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    mark = uuid4().hex
    stack = start(folder, "--duration", "10", **{MARK: mark}, **forking_env(tmp_path))
    out = folder / "out"
    try:
        wait_until(lambda: "runs for" in out.read_text() or stack.poll() is not None, "the stack is up", START_S)
        assert stack.poll() is None, out.read_text()
        addresses = dict(re.findall(r"^(\S+) +(http://\S+)$", out.read_text(), re.MULTILINE))
        assert {"exporter", "trainer", "rollout-0", "rollout-1", "prometheus", "alertmanager"} <= set(addresses)
        server = addresses["prometheus"].removesuffix("/alerts")
        with urllib.request.urlopen(f"{server}/api/v1/rules", timeout=30) as answer:
            groups = json.load(answer)["data"]["groups"]
        assert {rule["name"] for group in groups for rule in group["rules"]} == {*rules.recorded(), *rules.alerts()}
        with urllib.request.urlopen(f"{server}/api/v1/targets", timeout=30) as answer:
            found = {target["scrapePool"] for target in json.load(answer)["data"]["activeTargets"]}
        assert found == {"tq-exporter", "trainer", "rollout"}
        assert stack.wait(120) == 0, out.read_text()
    finally:
        if stack.poll() is None:
            stack.terminate()
            stack.wait(120)
    wait_until(lambda: not processes_of(mark), "nothing runs", 30.0)
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_a_demo_that_cannot_start_is_told_and_leaves_nothing(folder: Path) -> None:
    mark = uuid4().hex
    stack = start(folder, "--listen", "127.0.0.1:nonsense", **{MARK: mark})
    assert stack.wait(120) == 1
    assert "demo exited unexpectedly" in (folder / "out").read_text()
    assert processes_of(mark) == []
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    rules.write(tmp_path / "rules")
    text = prometheus_config({"tq-exporter": ["127.0.0.1:1"]}, tmp_path / "rules", "127.0.0.1:2", run="demo")
    (tmp_path / "prometheus.yaml").write_text(text)
    checked = subprocess.run(["promtool", "check", "config", "prometheus.yaml"], check=False, cwd=tmp_path)
    assert checked.returncode == 0
    assert yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["labels"] == {"run": "demo"}


def test_the_configurations_that_ship_are_valid() -> None:
    package = Path(__file__).parents[2] / "dashboards"
    for command in (
        ["amtool", "check-config", "alertmanager/alertmanager.yaml"],
        ["promtool", "check", "config", "--syntax-only", "docker/prometheus.yaml"],
    ):
        assert subprocess.run(command, check=False, cwd=package).returncode == 0
    composed = yaml.safe_load((package.parent / "docker-compose.yaml").read_text())
    mounted = [volume.split(":")[0] for service in composed["services"].values() for volume in service["volumes"]]
    assert all((package.parent / path).exists() for path in mounted)
