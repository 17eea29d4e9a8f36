"""Fixtures that several test folders use."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

from dataplane.interfaces import DataPlaneClient
from tests.support import forks
from tests.support.cluster import RAY_ENV, TQCluster

pytest_plugins = ("tests.support.tiers", "tests.support.mooncake_run")

_FIRST: Final = (
    "tests/page/",
    "tests/packaging/",
    "tests/helm/",
    "tests/verl/",
    "tests/dashboards/test_live.py",
    "tests/mooncake/",
    "tests/demo/",
    "tests/faults/test_ray.py",
    "tests/faults/test_surroundings.py",
    "tests/soak/",
    "tests/faults/",
    "tests/end_to_end/test_recovery_chaos.py",
    "tests/discovery/",
    "tests/dashboards/test_stack.py",
    "tests/hostile/test_controllers.py",
    "tests/wire/",
    "tests/adapters/",
    "tests/end_to_end/",
    "tests/harmless/",
    "tests/situations/",
)
"""What takes long, the longest first: a long file that begins last keeps one worker busy while the others are done."""

_TOGETHER: Final = {
    "tests/packaging/": "installation",
    "tests/helm/": "installation",
    "tests/page/": "browser",
    "tests/engines/containers/": "engines",
    "tests/engines/slurm/": "slurm",
}
"""Folders whose files share a long set-up, and its name: an installation with pip, Helm and Chromium, a container
engine, Slurm."""

# A shell's background job ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.update(RAY_ENV)  # Ray reads them when it is imported, which any import of a test may do

# No verdict of a property test depends on the speed of the machine, and CI draws the same examples each time.
settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("nightly", settings.get_profile("ci"), derandomize=False, max_examples=3000, print_blob=True)
settings.load_profile("ci")  # --hypothesis-profile=nightly replaces it

SHARED_CAPACITY = 20_000
"""Capacity of the shared cluster's storage in rows with fields; a put beyond it fails. Rows of tags do not count."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fault matrix")
    group.addoption("--all-loads", action="store_true", help="run each fault under every load, not under one")
    group.addoption("--fault-records", metavar="DIR", help="write down what each row of the fault matrix saw")
    group = parser.getgroup("recovery")
    group.addoption("--all-incidents", action="store_true", help="chaos with 35 incidents, not with 6")
    group.addoption("--chaos-seed", type=int, default=1, help="what happens in the chaos, and when (default: 1)")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # else a worker, which shares what its run has
        forks.prepare()
        config.add_cleanup(forks.clean_up)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first. Within a file the order stays."""

    def place(item: pytest.Item) -> int:
        return next((place for place, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``, send all files of a folder with a shared set-up to one worker, which makes it once."""
    from xdist.scheduler import LoadFileScheduling

    class BySetUp(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            own: str = super()._split_scope(nodeid)
            return next((name for folder, name in _TOGETHER.items() if own.startswith(folder)), own)

    return BySetUp(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Restore the process's logging, which each command sets up."""
    loggers = [logging.getLogger(name) for name in ("", "exporter", "dataplane")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    raising = logging.raiseExceptions
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers
    logging.raiseExceptions = raising
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[TQCluster]:
    """One Ray for the whole run. Tests use ``cluster``, which ensures that TransferQueue is healthy."""
    mooncake = request.getfixturevalue("mooncake_job") if request.config.option.mooncake else None
    with TQCluster(capacity=SHARED_CAPACITY, mooncake=mooncake) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: TQCluster) -> TQCluster:
    """A real TransferQueue with two storage units and no data. A test may kill, freeze or replace any part of it."""
    shared_cluster.make_healthy()
    return shared_cluster


@pytest.fixture
def ray_alone(shared_cluster: TQCluster) -> TQCluster:
    """The shared cluster's Ray without TransferQueue, for a test that would begin by ending it."""
    shared_cluster.stop_tq()
    return shared_cluster


@pytest.fixture(scope="session")
def ray_connected(shared_cluster: TQCluster) -> Iterator[None]:
    """Connect this process to the shared cluster's Ray, once: a second ``ray.init`` would kill the process."""
    import ray

    ray.init(address=shared_cluster.ray_address, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def tq_client(cluster: TQCluster, ray_connected: None, mooncake_store: None) -> Iterator[DataPlaneClient]:
    """A client in this process, attached to ``cluster``, with deadlines of 5 s."""
    from dataplane.factory import build_data_plane_client

    no_memory = {"global_segment_size": 0, "local_buffer_size": 16 * 2**20}
    cfg = {"enabled": True, "timeout_s": 5.0, "claim_meta_poll_interval_s": 0.02, "mooncake_cpu": no_memory}
    client = build_data_plane_client(cfg, bootstrap=False)
    yield client
    client.close()
