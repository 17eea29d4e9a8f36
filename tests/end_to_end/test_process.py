"""The exporter as a process: where it finds the controller, which modules it loads, how it ends."""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dataplane.discovery.record import Endpoint, StorageUnitEndpoint, encode_endpoint
from tests.support.cluster import TQCluster
from tests.support.exporter_process import AS_INSTALLED, ExporterProcess

FAST = ("--ping-interval", "500ms", "--metadata-interval", "500ms")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter.cli", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def endpoint(cluster: TQCluster) -> Endpoint:
    units = tuple(StorageUnitEndpoint(unit.index, unit.id, unit.address) for unit in cluster.storage_units)
    controller = cluster.controller
    return Endpoint(
        controller.address, controller_id=controller.id, actor_id=controller.actor_id, storage_units=units, run="r1"
    )


def test_importing_it_loads_no_ray_torch_or_transfer_queue() -> None:
    source = (
        "import dataplane, exporter.app, sys;"
        "print([m for m in ('torch','ray','transfer_queue','tensordict') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_discovery_file_is_followed_and_its_removal_is_the_end(cluster: TQCluster, tmp_path: Path) -> None:
    cluster.put("train", ["a_g0"], tags=[{"weight_version": 1}])
    file = tmp_path / "endpoint.json"
    with ExporterProcess("--discovery-file", str(file), *FAST) as exporter:
        assert exporter.scrape().value("dataplane_up") == 0
        file.write_bytes(encode_endpoint(endpoint(cluster)))
        seen = exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), "groups")
        assert seen.value("dataplane_up") == 1
        assert len(exporter.wait_for(lambda seen: bool(seen.samples("dataplane_storage_keys")), "storage").text) > 0
        file.unlink()
        exporter.wait_for(lambda seen: seen.value("dataplane_discovery_state", state="ended") == 1, "the end")


def test_the_public_client_sees_what_the_wire_sees(cluster: TQCluster, tmp_path: Path) -> None:
    cluster.put("train", ["a_g0", "a_g1", "b_g0"], tags=[{"weight_version": 1}] * 3)
    file = tmp_path / "endpoint.json"
    file.write_bytes(encode_endpoint(endpoint(cluster)))
    seen = {}
    for reader in ("wire", "client"):
        with ExporterProcess("--discovery-file", str(file), "--reader", reader, *FAST) as exporter:
            exposition = exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), reader)
            seen[reader] = [
                (name, sorted((tuple(sorted(labels.items())), value) for labels, value in exposition.samples(name)))
                for name in (
                    "dataplane_up",
                    "dataplane_partition_groups",
                    "dataplane_partition_keys",
                    "dataplane_partition_staleness_groups",
                    "dataplane_partition_weight_version_groups",
                )
            ]
            assert exporter.stop() == 0
    assert seen["wire"] == seen["client"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_also_when_the_otlp_endpoint_hangs(cluster: TQCluster, number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with ExporterProcess("--controller", cluster.controller.address, "--otlp", url, *FAST) as exporter:
            exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "up")
            children = exporter.process.children(recursive=True)
            assert exporter.stop(number, timeout_s=10.0) == 0
            assert not any(psutil.pid_exists(child.pid) for child in children)
            assert "Traceback" not in exporter.log


def test_a_signal_that_another_thread_catches_ends_it_too(cluster: TQCluster) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with ExporterProcess("--controller", cluster.controller.address, *FAST) as exporter:
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "up")
        process = exporter.process
        other = next(thread.id for thread in process.threads() if thread.id != process.pid)
        assert libc.tgkill(process.pid, other, signal.SIGTERM) == 0
        assert exporter.stop(0, timeout_s=10.0) == 0  # 0 is no signal
        assert "stopping" in exporter.log


def test_a_port_in_use_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("run", "--listen", f"127.0.0.1:{port}", "--controller", "tcp://127.0.0.1:1")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(port) in done.stderr
    assert "listen" in done.stderr


def test_once_prints_what_it_sees(cluster: TQCluster) -> None:
    cluster.put("train", ["a_g0", "a_g1"], tags=[{"weight_version": 7}] * 2)
    done = command("once", "--json", "--controller", cluster.controller.address)
    assert done.returncode == 0, done.stderr
    snapshot = json.loads(done.stdout)
    assert snapshot["up"] is True
    assert [(one["partition"], one["keys"], one["newest_version"]) for one in snapshot["partitions"]] == [
        ("train", 2, 7)
    ]
    table = command("once", "--controller", cluster.controller.address)
    assert table.returncode == 0
    assert "train" in table.stdout


def test_once_fails_when_nothing_answers() -> None:
    done = command("once", "--json", "--controller", "tcp://127.0.0.1:1")
    assert done.returncode == 1
    assert json.loads(done.stdout)["up"] is False
    assert "tcp://127.0.0.1:1" in done.stderr


def test_it_stays_small_and_loads_nothing_heavy(cluster: TQCluster) -> None:
    keys = [f"{number // 8}_g{number % 8}" for number in range(10_000)]
    cluster.put("train", keys, tags=[{"weight_version": 1}] * len(keys), fields=None)
    with ExporterProcess("--controller", cluster.controller.address, *FAST, env=AS_INSTALLED, forks=False) as exporter:
        exporter.wait_for(lambda seen: seen.value("dataplane_partition_keys", partition="train") == 10_000, "keys")
        exporter.wait_for(
            lambda seen: (seen.value("tq_exporter_polls_total", source="metadata", outcome="ok") or 0) > 5, "polls"
        )
        maps = "\n".join(mapped.path for mapped in exporter.process.memory_maps())
        assert "libtorch" not in maps
        assert "_raylet" not in maps
        assert exporter.process.memory_info().rss <= 60e6
