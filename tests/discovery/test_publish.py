"""Publishing the discovery file from the training side, on a real TransferQueue."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from dataplane.discovery.publish import publish_endpoint
from dataplane.discovery.record import Endpoint, decode_record, encode_endpoint
from exporter.discovery.file import FileDiscovery
from exporter.discovery.ray_child import RayDiscovery
from exporter.model.results import Found
from tests.support import forks
from tests.support.cluster import TQCluster, kill

_START = "import dataplane\ntq.publisher = dataplane.publish_endpoint(path, interval_s=0.1, run='run-7')"
_CLOSE = "tq.publisher.close()"


@pytest.fixture
def published(cluster: TQCluster, tmp_path: Path) -> Iterator[Path]:
    """A file in which the cluster's driver publishes its data plane."""
    path = tmp_path / "new" / "folder" / "endpoint.json"
    cluster.run(_START, path=str(path))
    yield path
    cluster.run(_CLOSE)


def record(path: Path, wanted: Callable[[Endpoint], bool] = lambda _: True) -> Endpoint:
    """Return the record once it exists and meets the condition. It must never be incomplete."""
    for _ in range(300):
        if path.exists():
            endpoint = decode_record(path.read_bytes())
            if isinstance(endpoint, Endpoint) and wanted(endpoint):
                return endpoint
        time.sleep(0.1)
    raise AssertionError(f"{path} never held what was expected")


def test_the_record_is_what_a_look_up_finds(cluster: TQCluster, published: Path) -> None:
    endpoint = record(published)
    answer = RayDiscovery(cluster.ray_address).look(None)
    assert isinstance(answer, Found)
    found = msgspec.structs.replace(answer.endpoint, run="run-7", written_at=endpoint.written_at)
    assert endpoint == found
    again = FileDiscovery(published).look(None)
    assert isinstance(again, Found)
    assert msgspec.structs.replace(again.endpoint, written_at=endpoint.written_at) == endpoint


def test_the_record_follows_a_new_controller_and_stays_while_there_is_none(cluster: TQCluster, published: Path) -> None:
    first = record(published)
    kill(cluster.controller.pid)
    assert record(published).actor_id == first.actor_id
    cluster.restart_tq()
    second = record(published, lambda endpoint: endpoint.actor_id != first.actor_id)
    assert second.address == cluster.controller.address
    assert second.controller_id == cluster.controller.id


def test_the_record_is_written_again_so_that_its_time_tells_that_the_writer_lives(
    cluster: TQCluster, published: Path
) -> None:
    first = record(published)
    record(published, lambda endpoint: (endpoint.written_at or 0) > (first.written_at or 0))


def test_publishing_may_start_before_transfer_queue(ray_alone: TQCluster, tmp_path: Path) -> None:
    path = tmp_path / "endpoint.json"
    ray_alone.run(_START, path=str(path))
    try:
        time.sleep(0.3)
        assert not path.exists()
        ray_alone.start_tq()
        endpoint = record(path)
        assert endpoint.controller_id == ray_alone.controller.id
        assert None not in [
            place for unit in endpoint.storage_units for place in (unit.actor_id, unit.node_id, unit.pid)
        ]
    finally:
        ray_alone.run(_CLOSE)


def test_close_removes_the_record_and_nothing_else(cluster: TQCluster, published: Path) -> None:
    record(published)
    cluster.run(_CLOSE)
    assert list(published.parent.iterdir()) == []
    cluster.run(_CLOSE)  # idempotent


def test_close_leaves_the_record_of_another_writer(cluster: TQCluster, tmp_path: Path) -> None:
    path = tmp_path / "endpoint.json"
    cluster.run("import dataplane\ntq.publisher = dataplane.publish_endpoint(path, interval_s=60)", path=str(path))
    record(path)
    theirs = encode_endpoint(Endpoint(address="tcp://127.0.0.1:1"))
    path.write_bytes(theirs)
    cluster.run(_CLOSE)
    assert path.read_bytes() == theirs


_DRIVER = """
import os, sys, time
import ray
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
import dataplane
publisher = dataplane.publish_endpoint(sys.argv[2], interval_s=0.1)
while not publisher.path.exists():
    time.sleep(0.05)
"""


@pytest.mark.parametrize(("ending", "stays"), [("", False), ("raise RuntimeError('training failed')", True)])
def test_the_record_tells_a_clean_end_of_the_script_from_a_crash(
    cluster: TQCluster, tmp_path: Path, ending: str, stays: bool
) -> None:
    path = tmp_path / "endpoint.json"
    subprocess.run(
        [sys.executable, "-c", _DRIVER + ending, cluster.ray_address, str(path)],
        timeout=120,
        check=False,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    assert path.exists() == stays


@pytest.mark.parametrize(
    ("ending", "stays"),
    [
        ("with publisher: pass\nassert not publisher.path.exists()", False),
        ("with publisher: raise RuntimeError('training failed')", True),
    ],
)
def test_the_record_tells_a_clean_end_of_a_block_from_a_crash(
    cluster: TQCluster, tmp_path: Path, ending: str, stays: bool
) -> None:
    path = tmp_path / "endpoint.json"
    driver = forks.start("ray", ["-c", _DRIVER + ending, cluster.ray_address, str(path)])
    assert driver.wait(120) == int(stays)
    assert path.exists() == stays


def test_without_ray_nothing_is_written_and_no_ray_is_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    script = (
        "import sys, time, logging, dataplane\n"
        "logging.basicConfig(level='INFO')\n"
        "with dataplane.publish_endpoint(sys.argv[1], interval_s=0.05) as publisher:\n"
        "    time.sleep(0.5)\n"
        "    import ray\n"
        "    time.sleep(0.5)\n"
        "    assert not ray.is_initialized()\n"
    )
    path = tmp_path / "endpoint.json"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], timeout=120, check=True, capture_output=True, text=True
    )
    assert not path.exists()
    assert done.stderr.count("is not current: Ray has no TransferQueue controller yet") == 1


def test_bad_arguments_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="interval_s must be positive, not 0"):
        publish_endpoint(tmp_path / "a", interval_s=0)
    with pytest.raises(ValueError, match="interval_s must be positive, not nan"):
        publish_endpoint(tmp_path / "a", interval_s=float("nan"))
    with pytest.raises(IsADirectoryError, match="is a folder"):
        publish_endpoint(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        publish_endpoint(tmp_path / "file" / "endpoint.json")
