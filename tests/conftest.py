"""Fixtures that several test folders use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dataplane.interfaces import DataPlaneClient
from tests.support.cluster import RAY_ENV, TQCluster

os.environ.update(RAY_ENV)  # Ray reads them when it is imported, which any import of a test may do

SHARED_CAPACITY = 20_000
"""Capacity of the shared cluster's storage in rows with fields; a put beyond it fails. Rows of tags do not count."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fault matrix")
    group.addoption("--all-loads", action="store_true", help="run each fault under every load, not under one")
    group.addoption("--fault-records", metavar="DIR", help="write down what each row of the fault matrix saw")


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[TQCluster]:
    """One Ray for the whole run. Tests use ``cluster``, which ensures that TransferQueue is healthy."""
    with TQCluster(capacity=SHARED_CAPACITY) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: TQCluster) -> TQCluster:
    """A real TransferQueue with two storage units and no data. A test may kill, freeze or replace any part of it."""
    shared_cluster.make_healthy()
    return shared_cluster


@pytest.fixture(scope="session")
def ray_connected(shared_cluster: TQCluster) -> Iterator[None]:
    """Connect this process to the shared cluster's Ray, once: a second ``ray.init`` would kill the process."""
    import ray

    ray.init(address=shared_cluster.ray_address, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def tq_client(cluster: TQCluster, ray_connected: None) -> Iterator[DataPlaneClient]:
    """A client in this process, attached to ``cluster``, with deadlines of 5 s."""
    from dataplane.factory import build_data_plane_client

    client = build_data_plane_client({"timeout_s": 5.0, "claim_meta_poll_interval_s": 0.02}, bootstrap=False)
    yield client
    client.close()
