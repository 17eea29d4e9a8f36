"""The implementations that the contract suite runs against.

One line in ``READERS`` adds a reader to the read half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.adapters.transfer_queue import TransferQueueMetadataReader
from dataplane.adapters.wire import WireMetadataReader
from dataplane.interfaces import DataPlaneClient, MetadataReader
from tests.support.cluster import TQCluster

READERS: dict[str, Callable[[TQCluster], MetadataReader]] = {
    "public_reader": lambda cluster: TransferQueueMetadataReader(cluster.controller.address, cluster.controller.id),
    "wire": lambda cluster: WireMetadataReader(cluster.controller.address, controller_id=cluster.controller.id),
}
"""Name to the factory of a reader for a running TransferQueue."""

CLIENTS = ("noop", "transfer_queue")


@dataclass(frozen=True)
class Plane:
    """One data plane: *reader* reads what *writer* writes. For a client they are the same object."""

    name: str
    writer: DataPlaneClient
    reader: MetadataReader


def _make_client(name: str, request: pytest.FixtureRequest) -> DataPlaneClient:
    client: DataPlaneClient = NoOpDataPlaneClient() if name == "noop" else request.getfixturevalue("tq_client")
    return client


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> DataPlaneClient:
    """Each implementation of the whole client, empty."""
    return _make_client(request.param, request)


@pytest.fixture(params=(*CLIENTS, *READERS))
def plane(request: pytest.FixtureRequest) -> Iterator[Plane]:
    """Each implementation of the read half, with a writer to the same data plane."""
    if request.param in CLIENTS:
        client = _make_client(request.param, request)
        yield Plane(request.param, client, client)
        return
    writer = request.getfixturevalue("tq_client")
    reader = READERS[request.param](request.getfixturevalue("cluster"))
    yield Plane(request.param, writer, reader)
    reader.close()
