"""The wire reader beside a real TransferQueue: odd tags, and a controller that is stopped, killed and replaced."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from dataplane.adapters.wire import WireMetadataReader
from dataplane.errors import DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from tests.support.cluster import TQCluster, frozen, kill

_ODD_TAGS = """
import numpy as np
odd = {
    "good_g0": {"weight_version": 3},
    "np_int_g0": {"weight_version": np.int64(3)},
    "array_g0": {"weight_version": np.array([1, 2])},
    "tensor_g0": {"weight_version": torch.tensor(3)},
    "none_g0": {"weight_version": None},
    "text_g0": {"weight_version": "3"},
    "nan_g0": {"weight_version": float("nan")},
    "big_g0": {"weight_version": 2**63},
    "int_key_g0": {1: 2, "weight_version": 3},
    "other_g0": {"weight_version": 3, "note": torch.ones(1000)},
}
tq.kv_batch_put(keys=list(odd), partition_id="odd", tags=list(odd.values()))
"""


@pytest.fixture
def reader(cluster: TQCluster) -> Iterator[WireMetadataReader]:
    reader = WireMetadataReader(cluster.controller.address, timeout_s=10.0, controller_id=cluster.controller.id)
    yield reader
    reader.close()


def test_odd_tags_are_unknown_and_counted_row_by_row(cluster: TQCluster, reader: WireMetadataReader) -> None:
    cluster.run(_ODD_TAGS)
    groups = {group.group_id: group for group in reader.list_metadata("odd")}
    assert len(groups) == 10
    readable = {name for name, group in groups.items() if group.weight_version == 3 and group.malformed_keys == 0}
    assert readable == {"good", "text", "int_key", "other"}
    assert all((groups[n].weight_version, groups[n].malformed_keys) == (None, 1) for n in groups.keys() - readable)


def test_an_integer_beyond_64_bits_makes_its_partition_unreadable_and_no_other(
    cluster: TQCluster, reader: WireMetadataReader
) -> None:
    cluster.run("tq.kv_batch_put(keys=['k'], partition_id='huge', tags=[{'weight_version': 2**70}])")
    cluster.put("train", ["u_g0"], tags=[{"weight_version": 1}])
    with pytest.raises(DataPlaneReadError, match="unreadable partition"):
        reader.list_metadata("huge")
    assert reader.list_partitions() == ["huge", "train"]
    assert reader.depth("train") == 1


def test_reading_changes_nothing(cluster: TQCluster, reader: WireMetadataReader) -> None:
    cluster.put("train", ["u_g0", "u_g1"], tags=[{"weight_version": 1}] * 2)
    partitions = "result = sorted(tq.get_client().get_partition_list())"
    before = cluster.list_rows(), cluster.run(partitions)
    for _ in range(5):
        reader.list_metadata("train")
        reader.list_metadata("no such partition")
        reader.depth("nor this one")
        reader.list_partitions()
    assert (cluster.list_rows(), cluster.run(partitions)) == before


def test_a_stopped_controller_stays_a_timeout_and_its_own_clients_find_it_unharmed(
    cluster: TQCluster, reader: WireMetadataReader
) -> None:
    reader.ping()
    connections = len(psutil.Process(cluster.controller.pid).net_connections())
    with frozen(cluster.controller.pid):
        for _ in range(150):
            with pytest.raises(DataPlaneTimeout, match="is connected"):
                reader.ping(timeout_s=0.01)
    assert reader.ping() > 0
    cluster.put("train", ["u_g0"], tags=[{"weight_version": 1}])
    assert reader.depth("train") == 1
    # This reader's request socket, its probe, and what TransferQueue itself may have opened.
    assert len(psutil.Process(cluster.controller.pid).net_connections()) <= connections + 4


def test_a_reader_made_while_the_controller_is_stopped_says_timeout_too(cluster: TQCluster) -> None:
    with frozen(cluster.controller.pid):
        reader = WireMetadataReader(cluster.controller.address, timeout_s=0.05)
        for _ in range(3):
            with pytest.raises(DataPlaneTimeout, match="is connected"):
                reader.ping()
    assert reader.ping(timeout_s=10.0) > 0
    reader.close()


def test_a_killed_controller_is_unavailable_and_a_new_one_is_read(
    cluster: TQCluster, reader: WireMetadataReader
) -> None:
    cluster.put("train", ["u_g0"], tags=[{"weight_version": 1}])
    assert reader.depth("train") == 1
    kill(cluster.controller.pid)
    for _ in range(3):
        with pytest.raises(DataPlaneUnavailable, match="gone"):
            reader.list_metadata("train")
    cluster.restart_tq()
    successor = WireMetadataReader(cluster.controller.address, timeout_s=10.0, controller_id=cluster.controller.id)
    assert successor.list_partitions() == []
    successor.close()
