"""The look-up on a real Ray with a real TransferQueue: what it finds, how it explains a death; it creates nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataplane.discovery.record import Endpoint
from dataplane.errors import DataPlaneBadRequest, DataPlaneNotReady, DataPlaneTimeout, DataPlaneUnavailable
from exporter.discovery.ray_child import RayDiscovery
from exporter.model.results import Absent, Found
from tests.support import forks
from tests.support.cluster import TQCluster, frozen, kill

# The look-up must not get this test process's variables of any Ray.
_RAY_VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")


@pytest.fixture(autouse=True)
def _environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _RAY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if "shared_cluster" in request.fixturenames:
        for name, value in request.getfixturevalue("shared_cluster").env.items():
            monkeypatch.setenv(name, value)


def look(address: str, previous: Endpoint | None = None, timeout_s: float = 60.0) -> Found | Absent:
    discovery = RayDiscovery(address, timeout_s=timeout_s)
    try:
        return discovery.look(previous)
    finally:
        discovery.close()


def find(cluster: TQCluster) -> Endpoint:
    found = look(cluster.ray_address)
    assert isinstance(found, Found)
    return found.endpoint


def look_until_recorded(cluster: TQCluster, previous: Endpoint) -> Absent:
    """Look until Ray has recorded the death, which takes moments."""
    for _ in range(5):
        answer = look(cluster.ray_address, previous)
        assert isinstance(answer, Absent)
        if "no record" not in answer.detail:
            return answer
    raise AssertionError(f"Ray has no record of the death: {answer}")


def test_the_running_controller_is_found_with_all_it_says(cluster: TQCluster) -> None:
    before = time.time()
    endpoint = find(cluster)
    assert endpoint.address == cluster.controller.address
    assert endpoint.controller_id == cluster.controller.id
    assert endpoint.actor_id == cluster.controller.actor_id
    assert endpoint.backend == "SimpleStorage"
    conf = "ray.get(tq.interface._TQ_CONTROLLER.get_config.remote())"
    assert endpoint.capacity == cluster.run(f"result = {conf}.backend.SimpleStorage.total_storage_size")
    units = [(unit.index, unit.id, unit.address) for unit in cluster.storage_units]
    assert [(unit.index, unit.id, unit.address) for unit in endpoint.storage_units] == units
    assert endpoint.metrics_endpoint is None
    assert endpoint.versions == cluster.versions
    assert endpoint.written_at is not None
    assert before <= endpoint.written_at <= time.time()


def test_it_imports_neither_torch_nor_transfer_queue(
    cluster: TQCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("torch", "transfer_queue"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert find(cluster).controller_id == cluster.controller.id


def test_no_limit_has_no_capacity_and_metrics_are_found(cluster: TQCluster) -> None:
    cluster.restart_tq(capacity=None, metrics=True)
    endpoint = find(cluster)
    assert endpoint.capacity is None
    assert endpoint.metrics_endpoint == cluster.metrics_endpoint


def test_a_look_up_creates_nothing(ray_alone: TQCluster) -> None:
    actors = "from ray._private import state\nresult = sorted(state.actors())"
    before = ray_alone.run(actors)
    answer = look(ray_alone.ray_address)
    assert answer == Absent(ended=False, detail="Ray has no TransferQueue controller")
    assert ray_alone.run(actors) == before


def test_a_controller_without_configuration_is_starting(ray_alone: TQCluster) -> None:
    ray_alone.run(
        "from transfer_queue.controller import TransferQueueController\n"
        "named = TransferQueueController.options(name='TransferQueueController', namespace='transfer_queue')\n"
        "tq.early = named.remote()\n"
        "ray.get(tq.early.get_config.remote())"
    )
    try:
        with pytest.raises(DataPlaneNotReady, match="starting: its actor runs and has no configuration yet"):
            look(ray_alone.ray_address)
    finally:
        ray_alone.run("ray.kill(tq.early); del tq.early")


def test_a_controller_that_waits_for_a_cpu_is_starting(ray_alone: TQCluster) -> None:
    ray_alone.run(
        "from transfer_queue.controller import TransferQueueController\n"
        "name = {'name': 'TransferQueueController', 'namespace': 'transfer_queue'}\n"
        "tq.early = TransferQueueController.options(**name, num_cpus=1000).remote()"
    )
    try:
        with pytest.raises(DataPlaneNotReady, match="starting: Ray has not started its actor"):
            look(ray_alone.ray_address, timeout_s=100.0)
    finally:
        ray_alone.run("ray.kill(tq.early); del tq.early")


_DRIVER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
import transfer_queue as tq
tq.init()
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_driver_that_returns_is_an_end(ray_alone: TQCluster) -> None:
    pipe = subprocess.PIPE
    driver = forks.start("ray", ["-c", _DRIVER, ray_alone.ray_address], stdin=pipe, stdout=pipe)
    assert driver.stdin is not None
    assert driver.stdout is not None
    with driver.stdin, driver.stdout:
        assert any(line == b"ready\n" for line in driver.stdout)
        endpoint = find(ray_alone)
        driver.stdin.close()
        assert driver.wait(60) == 0
    assert look_until_gone(ray_alone, endpoint).ended


def look_until_gone(cluster: TQCluster, previous: Endpoint) -> Absent:
    """Look until Ray has ended what the driver owned."""
    for _ in range(10):
        try:
            answer = look(cluster.ray_address, previous)
        except (DataPlaneTimeout, DataPlaneUnavailable):
            continue
        if isinstance(answer, Absent) and "no record" not in answer.detail:
            return answer
        time.sleep(0.2)
    raise AssertionError("the controller outlived its driver")


def test_a_stopped_controller_is_a_timeout_within_the_deadline(cluster: TQCluster) -> None:
    with frozen(cluster.controller.pid):
        started = time.monotonic()
        with pytest.raises(DataPlaneTimeout):
            look(cluster.ray_address, timeout_s=12.0)
        # The deadline is hard; the rest is a margin for a machine under load.
        assert time.monotonic() - started < 12.0 + 10.0


def test_a_crash_is_no_end(cluster: TQCluster) -> None:
    endpoint = find(cluster)
    kill(cluster.controller.pid)
    answer = look_until_recorded(cluster, endpoint)
    assert not answer.ended
    assert "worker process has died" in answer.detail


def test_closing_transfer_queue_is_an_end(cluster: TQCluster) -> None:
    endpoint = find(cluster)
    cluster.run("tq.close()")
    answer = look_until_recorded(cluster, endpoint)
    # Ray records the kill or the end of the last handle, whichever it saw first. Only the text differs.
    assert answer.ended


def test_a_wrong_token_is_named_with_its_remedy(shared_cluster: TQCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 32)
    with pytest.raises(DataPlaneUnavailable, match=r"Ray refused the token: .*RAY_AUTH_TOKEN_PATH"):
        look(shared_cluster.ray_address)


def test_another_version_of_ray_is_named_with_its_remedy(
    shared_cluster: TQCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.0.0'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        DataPlaneBadRequest, match=r"Version mismatch: .*; run the exporter with the cluster's versions"
    ):
        look(shared_cluster.ray_address)


def test_where_nothing_listens_there_is_no_ray() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            assert look(given) == Absent(ended=False, detail=f"nothing listens at {given}: no Ray there")


def test_an_unknown_host_is_no_ray() -> None:
    assert look("no-such-host.invalid:6379") == Absent(
        ended=False, detail="nothing listens at no-such-host.invalid:6379: no Ray there"
    )


def test_ray_address_local_never_starts_a_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(DataPlaneBadRequest, match="RAY_ADDRESS: 'local' would start a new Ray"):
        look("auto")


def test_ray_address_stands_in_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no-such-host.invalid:6379")
    answer = look("auto")
    assert isinstance(answer, Absent)
    assert "no-such-host.invalid:6379" in answer.detail


def test_an_orphan_ends_itself() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"ray://127.0.0.1:{mute.getsockname()[1]}"
        command = [sys.executable, "-m", "exporter.discovery.ray_lookup", address, "--deadline", "1"]
        orphan = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert orphan.returncode == -signal.SIGALRM
    assert orphan.stdout == b""
