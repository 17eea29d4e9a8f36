"""TransferQueue's processes fail: the controller and the storage units are killed, stopped and replaced."""

from __future__ import annotations

import pytest

from tests.faults.load import BUSY, FULL, IDLE
from tests.faults.matrix import Begin
from tests.support.cluster import TQCluster, frozen, kill

pytestmark = pytest.mark.timeout(600)

UNITS = ("0", "1")

GONE = {"ping": "DataPlaneUnavailable", "list_partitions": "DataPlaneUnavailable"}
SILENT = {"ping": "DataPlaneTimeout", "list_partitions": "DataPlaneTimeout"}
UNIT_GONE = {"storage_metrics": "DataPlaneUnavailable"}
UNIT_SILENT = {"storage_metrics": "DataPlaneTimeout"}

# A fault in the middle of a round over the partitions ends the round there.
GONE_AMID_A_ROUND = ("list_metadata", "DataPlaneUnavailable")
SILENT_AMID_A_ROUND = ("list_metadata", "DataPlaneTimeout")
# Ray asks the controller actor itself, which does not answer either.
SILENT_ACTOR = ("discover", "DataPlaneTimeout")


@pytest.mark.fault("controller killed", in_ci=IDLE)
def test_a_killed_controller_is_lost_and_the_next_one_is_followed(cluster: TQCluster, begin: Begin) -> None:
    with begin(cluster, "--ray-address", cluster.ray_address) as row:
        kill(cluster.controller.pid)
        tolerated = [GONE_AMID_A_ROUND]
        row.expect(up=0, discovery="lost", errors=GONE, tolerated=tolerated, partitions=False, storage=UNITS)
        cluster.restart_tq()
        # The storage units of the last job are gone.
        seen = row.recover(cluster, "the job starts again", restarts=1, errors=UNIT_GONE.items())
        assert seen.value("dataplane_controller_info", controller_id=cluster.controller.id) == 1


@pytest.mark.fault("controller stopped and continued", in_ci=FULL)
def test_a_stopped_controller_is_silent_and_not_gone(cluster: TQCluster, begin: Begin) -> None:
    with begin(cluster, "--ray-address", cluster.ray_address) as row:
        tolerated = [SILENT_AMID_A_ROUND, SILENT_ACTOR]
        with frozen(cluster.controller.pid):
            row.expect(up=0, discovery="found", errors=SILENT, tolerated=tolerated, partitions=False, storage=UNITS)
        row.recover(cluster, "SIGCONT", restarts=0)


@pytest.mark.fault("controller replaced by a new one on a new port", in_ci=IDLE)
def test_a_replaced_controller_is_followed(cluster: TQCluster, begin: Begin) -> None:
    with begin(cluster, "--ray-address", cluster.ray_address) as row:
        replaced = cluster.controller
        cluster.restart_tq()
        assert cluster.controller.address != replaced.address
        errors = [*GONE.items(), GONE_AMID_A_ROUND, *UNIT_GONE.items()]
        seen = row.recover(cluster, restarts=1, errors=errors)
        assert seen.value("dataplane_controller_info", controller_id=cluster.controller.id) == 1
        assert seen.value("dataplane_controller_info", controller_id=replaced.id) is None


@pytest.mark.fault("one storage unit killed", in_ci=FULL)
def test_a_killed_storage_unit_is_left_out(cluster: TQCluster, begin: Begin) -> None:
    with begin(cluster, "--ray-address", cluster.ray_address) as row:
        kill(cluster.storage_units[0].pid)
        row.expect(up=1, discovery="found", errors=UNIT_GONE, partitions=True, storage=["1"])
        cluster.restart_tq()
        errors = [*GONE.items(), GONE_AMID_A_ROUND]
        row.recover(cluster, "the job starts again", restarts=1, errors=errors)


@pytest.mark.fault("one storage unit stopped and continued", in_ci=BUSY)
def test_a_stopped_storage_unit_is_left_out_until_it_answers(cluster: TQCluster, begin: Begin) -> None:
    with begin(cluster, "--ray-address", cluster.ray_address) as row:
        with frozen(cluster.storage_units[1].pid):
            row.expect(up=1, discovery="found", errors=UNIT_SILENT, partitions=True, storage=["0"])
        row.recover(cluster, "SIGCONT", restarts=0)


@pytest.mark.fault("all storage units killed", in_ci=IDLE)
def test_killed_storage_takes_nothing_from_the_partitions(cluster: TQCluster, begin: Begin) -> None:
    with begin(cluster, "--ray-address", cluster.ray_address) as row:
        for unit in cluster.storage_units:
            kill(unit.pid)
        row.expect(up=1, discovery="found", errors=UNIT_GONE, partitions=True, storage=())
        cluster.restart_tq()
        errors = [*GONE.items(), GONE_AMID_A_ROUND]
        row.recover(cluster, "the job starts again", restarts=1, errors=errors)
