"""Every supported TransferQueue release: the wire reader and the release's own client give the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version as installed_version
from typing import Any

import pytest

from dataplane.adapters.wire import WireMetadataReader
from dataplane.adapters.wire.protocol import TESTED_VERSIONS
from dataplane.adapters.wire.storage import StorageUnitReader
from dataplane.errors import DataPlaneTimeout, DataPlaneUnavailable
from dataplane.groups import group_rows
from tests.support.cluster import TQCluster, frozen, kill
from tests.support.tq_versions import release

_TOTAL_CAPACITY = 100
RELEASES = ("0.1.8", "0.1.9", "0.1.10", "0.1.11")


@pytest.fixture(scope="module", params=RELEASES)
def release_cluster(request: pytest.FixtureRequest) -> Iterator[tuple[str, TQCluster]]:
    """A TransferQueue of one release, with one storage unit, on its own Ray; the installed one on the shared Ray."""
    if request.param == installed_version("TransferQueue"):
        shared: TQCluster = request.getfixturevalue("shared_cluster")
        shared.restart_tq(capacity=_TOTAL_CAPACITY)
        yield request.param, shared
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(release(request.param)))
        with TQCluster(storage_units=1, capacity=_TOTAL_CAPACITY) as cluster:
            yield request.param, cluster


def test_the_tested_versions_are_what_error_messages_say() -> None:
    assert f"{RELEASES[0]} to {RELEASES[-1]}" == TESTED_VERSIONS


def test_a_release_is_read_as_it_reads_itself(release_cluster: tuple[str, TQCluster]) -> None:
    version, cluster = release_cluster
    assert cluster.versions["transfer_queue"] == version
    cluster.put("train", [f"u{n // 4}_g{n % 4}" for n in range(8)], tags=[{"weight_version": n // 4} for n in range(8)])
    cluster.put("val", ["a", "b"], tags=[_recovery("g"), _recovery("g")])
    cluster.put("untagged", ["x_g0", "x_g1"])

    controller = cluster.controller
    reader = WireMetadataReader(controller.address, timeout_s=10.0, controller_id=controller.id)
    assert reader.ping() > 0
    assert reader.list_partitions() == ["train", "val", "untagged"]
    for partition_id, rows in cluster.list_rows().items():
        assert reader.list_metadata(partition_id) == group_rows(partition_id, rows)
    assert [reader.depth(name) for name in ("train", "val", "untagged", "unknown")] == [2, 1, 1, 0]

    units = [StorageUnitReader(unit.address, timeout_s=10.0, unit_id=unit.id) for unit in cluster.storage_units]
    numbers = [unit.read() for unit in units]
    assert [unit.capacity for unit in numbers] == [_TOTAL_CAPACITY // len(units)] * len(units)
    assert sum(unit.keys for unit in numbers) == 12
    assert all(unit.memory_bytes is not None and unit.memory_bytes > 10 * 2**20 for unit in numbers)
    for unit_reader in units:
        unit_reader.close()
    reader.close()


def test_a_release_that_is_stopped_and_then_killed(release_cluster: tuple[str, TQCluster]) -> None:
    _, cluster = release_cluster
    reader = WireMetadataReader(cluster.controller.address, timeout_s=10.0)
    unit = StorageUnitReader(cluster.storage_units[0].address, timeout_s=1.0)
    reader.ping()
    with frozen(cluster.controller.pid, cluster.storage_units[0].pid):
        with pytest.raises(DataPlaneTimeout, match="is connected"):
            reader.ping(timeout_s=0.1)
        with pytest.raises(DataPlaneTimeout, match="is connected"):
            unit.read()
    assert reader.ping() > 0
    kill(cluster.controller.pid)
    kill(cluster.storage_units[0].pid)
    with pytest.raises(DataPlaneUnavailable, match="gone"):
        reader.ping()
    with pytest.raises(DataPlaneUnavailable, match="gone"):
        unit.read()
    for each in (reader, unit):
        each.close()


def _recovery(group_id: str) -> dict[str, Any]:
    return {
        "group_id": group_id,
        "weight_version": 4,
        "committed": True,
        "expected_num_keys": 2,
        "created_at": 1.7e9,
        "size_bytes": 10,
    }
