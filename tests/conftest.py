"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import TQCluster


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[TQCluster]:
    """One Ray for the whole run. Tests take ``cluster``, which makes sure that TransferQueue is well."""
    with TQCluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: TQCluster) -> TQCluster:
    """A real TransferQueue with two storage units and no data. A test may kill, freeze or replace any part of it."""
    shared_cluster.make_healthy()
    return shared_cluster
