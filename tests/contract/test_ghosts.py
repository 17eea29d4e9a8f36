"""A put that fails in storage leaves ghosts behind: keys without data. On a real TransferQueue."""

from __future__ import annotations

import pytest

from dataplane.adapters.wire import WireMetadataReader
from dataplane.errors import DataPlaneNotReady, DataPlaneWriteError
from dataplane.interfaces import DataPlaneClient
from tests.conftest import SHARED_CAPACITY
from tests.contract.rows import rows, values
from tests.support.cluster import TQCluster

_TOO_MANY = SHARED_CAPACITY + 2


@pytest.mark.simple_storage
def test_a_failed_put_leaves_uncommitted_groups_that_are_never_ready(
    cluster: TQCluster, tq_client: DataPlaneClient
) -> None:
    tq_client.put_samples(["good_g0"], "p", rows(1), [{"weight_version": 1}])
    ghosts = [f"ghost_g{index}" for index in range(_TOO_MANY)]
    with pytest.raises(DataPlaneWriteError, match="capacity"):
        tq_client.put_samples(ghosts, "p", rows(_TOO_MANY), [{"weight_version": 2}] * _TOO_MANY)

    reader = WireMetadataReader(cluster.controller.address)
    for groups in (tq_client.list_metadata("p"), reader.list_metadata("p")):
        assert [(group.group_id, group.state, len(group.keys)) for group in groups] == [
            ("good", "ready", 1),
            ("ghost", "uncommitted", _TOO_MANY),
        ]
    reader.close()
    assert tq_client.depth("p") == 1
    with pytest.raises(DataPlaneNotReady):
        tq_client.get_samples(["ghost_g0"], "p", ["tokens"])
    with pytest.raises(DataPlaneNotReady):
        tq_client.get_samples(["good_g0", "ghost_g0"], "p", ["tokens"])
    assert tq_client.claim_meta("p", "train", ["tokens"], 2, blocking=False).size == 0

    tq_client.evict(ghosts, "p")

    assert [group.group_id for group in tq_client.list_metadata("p")] == ["good"]
    assert values(tq_client.get_samples(["good_g0"], "p", ["tokens"])) == [[0, 0, 0]]


def test_a_ghost_with_tags_of_its_own_counts_as_ready_and_reads_as_not_ready(tq_client: DataPlaneClient) -> None:
    tag = {"group_id": "g", "committed": True, "expected_num_keys": 1, "weight_version": 1}
    tq_client.put_samples(["ghost"], "p", tags=[tag])
    assert tq_client.depth("p") == 1
    with pytest.raises(DataPlaneNotReady):
        tq_client.get_samples(["ghost"], "p", ["tokens"])
