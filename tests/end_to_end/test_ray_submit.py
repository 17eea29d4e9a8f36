"""The exporter inside a Ray cluster, on a real Ray with a real TransferQueue."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from exporter.demo.stack import free_port
from tests.support import forks
from tests.support.cluster import TQCluster, kill
from tests.support.waiting import wait_until


def command(cluster: TQCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = ["-m", "exporter.cli", "ray-submit", "--ray-address", cluster.ray_address, *arguments]
    return forks.run("ray", program, env={**os.environ, **cluster.env}, timeout=180)


@pytest.fixture
def port(cluster: TQCluster) -> Iterator[int]:
    """A free port; no exporter is left in the cluster afterwards."""
    yield free_port()
    command(cluster, "--stop")


@pytest.mark.timeout(600)
def test_it_runs_restarts_and_stops(cluster: TQCluster, port: int, tmp_path: Path) -> None:
    cluster.put("train", ["a_g0", "a_g1"], tags=[{"weight_version": 3}] * 2)
    controller = cluster.controller
    config = tmp_path / "exporter.yaml"
    config.write_text("partitions: {train: {group_size: 4}}\n")
    arguments = ("--listen", f"127.0.0.1:{port}", "--config", str(config))

    submitted = command(cluster, *arguments)
    assert submitted.returncode == 0, submitted.stderr
    assert f":{port}/metrics" in submitted.stdout
    # The driver that submitted it is gone; the exporter still has its configuration file.
    shows(port, 'dataplane_partition_groups{partition="train",state="incomplete"} 1.0')

    again = command(cluster, *arguments)
    assert again.returncode == 1
    assert "runs in this cluster already" in again.stderr
    assert "--stop" in again.stderr

    first = pid_of(port)
    assert first is not None
    kill(first)
    wait_until(lambda: pid_of(port) not in (None, first), "another process", 120.0)
    shows(port, "dataplane_up 1.0")

    # Kill the actor's process. Ray restarts it; its exporter must have ended with it, since the port is free again.
    second = pid_of(port)
    assert second is not None
    kill(psutil.Process(second).ppid())
    wait_until(lambda: pid_of(port) not in (None, second), "another process", 120.0)
    shows(port, "dataplane_up 1.0")

    assert command(cluster, "--stop").returncode == 0
    wait_until(lambda: not answers(port), "nobody answers", 120.0)
    nothing = command(cluster, "--status")
    assert nothing.returncode == 1
    assert "no exporter was submitted" in nothing.stderr
    assert cluster.controller == controller


def test_an_exporter_that_cannot_run_is_not_started_again_and_again(cluster: TQCluster, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        assert command(cluster, "--listen", f"127.0.0.1:{port}").returncode == 0
        wait_until(lambda: "failed" in command(cluster, "--status").stdout, "it has failed", 120.0)


def test_what_cannot_work_is_said_before_anything_starts(cluster: TQCluster) -> None:
    cases = [
        (("--listen", "127.0.0.1:0"), "listen", "give a port"),
        (("--controller", "tcp://127.0.0.1:1"), "ray-submit", "--ray-address"),
        (("--ping-interval", "soon"), "--ping-interval", "duration"),
    ]
    for arguments, key, remedy in cases:
        flags = [sys.executable, "-m", "exporter.cli", "ray-submit", *arguments]
        done = subprocess.run(flags, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert key in done.stderr
        assert remedy in done.stderr


def test_a_cluster_that_is_not_there_is_said_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    flags = [sys.executable, "-m", "exporter.cli", "ray-submit", "--status", "--ray-address", address]
    done = subprocess.run(flags, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 1
    assert address in done.stderr


def test_no_ray_is_started_to_submit_to() -> None:
    flags = [sys.executable, "-m", "exporter.cli", "ray-submit", "--status"]
    env = {**os.environ, "RAY_ADDRESS": "local"}
    done = subprocess.run(flags, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "RAY_ADDRESS" in done.stderr


def pid_of(port: int) -> int | None:
    """Return the process that serves *port*, None while there is none."""
    for process in psutil.process_iter(["cmdline"]):
        if f"--listen=127.0.0.1:{port}" in (process.info["cmdline"] or ()):
            return process.pid
    return None


def answers(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            body: bytes = answer.read()
            return body.decode()
    except OSError:
        return ""


def shows(port: int, line: str) -> None:
    wait_until(lambda: line in answers(port), line, 120.0)
