"""Ray itself fails, and the job starts again on a new one at the same address."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.load import FULL, IDLE
from tests.faults.matrix import Begin
from tests.faults.test_processes import GONE, GONE_AMID_A_ROUND, UNIT_GONE
from tests.support.cluster import TQCluster, kill

pytestmark = pytest.mark.timeout(600)

UNITS = ("0",)
"""One storage unit: each is a process whose start takes seconds of the CPU, and these tests start four Rays."""

OUTLIVES_GCS_S = 15
"""How long Ray's processes run on without their GCS here; a minute by default."""

LONG = 20
"""For how many listings, one a second, TransferQueue must go on without its raylet."""


class Home:
    """An address with one Ray after another, each with a TransferQueue.

    Attributes:
        cluster: The present one.
        broken: Whether a test has broken it.
    """

    def __init__(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = listener.getsockname()[1]
        self.cluster = self._start()
        self.broken = False
        self._family: set[psutil.Process] = set()

    def _start(self) -> TQCluster:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("RAY_GCS_SERVER_PORT", str(self._port))
            environment.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", str(OUTLIVES_GCS_S))
            return TQCluster(storage_units=len(UNITS))

    def kill(self, *names: str) -> None:
        """SIGKILL Ray's processes with one of these names. Without names, kill all of them and their owner."""
        self.broken = True
        owner = psutil.Process(self.cluster.pid)
        family = owner.children(recursive=True)
        self._family.update(family)  # the children of a killed process cannot be found through it later
        for process in family if not names else [process for process in family if process.name() in names]:
            kill(process.pid)
        if not names:
            kill(owner.pid)

    def move_in(self) -> TQCluster:
        """Stop the rest of the old Ray, and start the next one at its address."""
        self.close()
        self.cluster = self._start()
        self.broken = False
        return self.cluster

    def close(self) -> None:
        """Stop Ray with every process that it ever had."""
        self.cluster.close()
        for process in self._family:
            kill_process(process)
        self._family.clear()


def kill_process(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # also raised when another process has its id now
        process.kill()


@pytest.fixture(scope="module")
def only_home() -> Iterator[Home]:
    home = Home()
    yield home
    home.close()


@pytest.fixture
def home(only_home: Home) -> Home:
    """A separate Ray for this file, healthy and empty. A test breaks it and leaves a new one behind."""
    if only_home.broken:
        only_home.move_in()
    only_home.cluster.make_healthy()
    return only_home


@pytest.mark.fault("raylet killed", in_ci=FULL)
def test_without_its_raylet_transfer_queue_goes_on(home: Home, begin: Begin) -> None:
    with begin(home.cluster, "--ray-address", home.cluster.ray_address) as row:
        home.kill("raylet")
        row.expect(up=1, discovery="found", partitions=True, storage=UNITS, lasting=LONG)
        row.note(f"Controller and storage units continue without the raylet, here for at least {LONG} s.")
        cluster = home.move_in()
        errors = [*GONE.items(), GONE_AMID_A_ROUND, *UNIT_GONE.items()]
        row.recover(cluster, "a new Ray", restarts=1, errors=errors, storage=UNITS)


@pytest.mark.fault("GCS killed", in_ci=IDLE)
def test_without_its_gcs_transfer_queue_goes_on_until_ray_ends_it(home: Home, begin: Begin) -> None:
    with begin(home.cluster, "--ray-address", home.cluster.ray_address) as row:
        home.kill("gcs_server")
        row.note(f"Ray stops its processes {OUTLIVES_GCS_S} s after the GCS is gone. The default is a minute.")
        row.expect(up=1, discovery="found", partitions=True, storage=UNITS)
        errors = {**GONE, **UNIT_GONE}
        tolerated = [GONE_AMID_A_ROUND]
        row.expect(
            "Ray ends its actors",
            up=0,
            discovery="lost",
            errors=errors,
            tolerated=tolerated,
            partitions=False,
            storage=(),
            within=60,
        )
        cluster = home.move_in()
        row.recover(cluster, "a new Ray", restarts=1, storage=UNITS)


@pytest.mark.fault("whole Ray gone and back", in_ci=IDLE)
def test_a_whole_ray_that_is_gone_is_lost_until_the_next_one(home: Home, begin: Begin) -> None:
    with begin(home.cluster, "--ray-address", home.cluster.ray_address) as row:
        home.kill()
        errors = {**GONE, **UNIT_GONE}
        tolerated = [GONE_AMID_A_ROUND]
        row.expect(up=0, discovery="lost", errors=errors, tolerated=tolerated, partitions=False, storage=())
        cluster = home.move_in()
        row.recover(cluster, "a new Ray", restarts=1, storage=UNITS)
