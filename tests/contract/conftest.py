"""The implementations that the contract suite runs against.

One entry in ``CLIENTS`` runs the whole suite on a client, one in ``READERS`` the read half on a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.adapters.wire import WireMetadataReader
from dataplane.interfaces import DataPlaneClient, MetadataReader

if TYPE_CHECKING:
    from tests.support.cluster import TQCluster


def _public_reader(cluster: TQCluster) -> MetadataReader:
    from dataplane.adapters.transfer_queue import TransferQueueMetadataReader

    return TransferQueueMetadataReader(cluster.controller.address, cluster.controller.id)


def _wire(cluster: TQCluster) -> MetadataReader:
    return WireMetadataReader(cluster.controller.address, controller_id=cluster.controller.id)


READERS: dict[str, Callable[[TQCluster], MetadataReader]] = {"public_reader": _public_reader, "wire": _wire}
"""Name to the factory of a reader for a running TransferQueue."""


@dataclass(frozen=True)
class Adapter:
    """A client that the suite runs on.

    Attributes:
        make: Returns a client of an empty data plane. It may ask the request for fixtures.
        renew: Returns a client of the next, empty data plane, once the first one is given up.
        in_memory: Whether it needs no TransferQueue, so that the fast tier runs it.
    """

    make: Callable[[pytest.FixtureRequest], DataPlaneClient]
    renew: Callable[[pytest.FixtureRequest], DataPlaneClient]
    in_memory: bool = False


def in_memory(make: Callable[[], DataPlaneClient]) -> Adapter:
    """Return an adapter that keeps its data in this process: each client has a data plane of its own."""
    return Adapter(lambda request: make(), lambda request: make(), in_memory=True)


def _transfer_queue(request: pytest.FixtureRequest) -> DataPlaneClient:
    client: DataPlaneClient = request.getfixturevalue("tq_client")
    return client


def _transfer_queue_again(request: pytest.FixtureRequest) -> DataPlaneClient:
    from dataplane.adapters.transfer_queue import TQDataPlaneClient

    cluster: TQCluster = request.getfixturevalue("cluster")
    _transfer_queue(request).close()
    cluster.restart_tq()
    client = TQDataPlaneClient({"timeout_s": 5.0}, bootstrap=False)
    request.addfinalizer(client.close)
    return client


CLIENTS: dict[str, Adapter] = {
    "noop": in_memory(NoOpDataPlaneClient),
    "transfer_queue": Adapter(_transfer_queue, _transfer_queue_again),
}
"""Name to adapter. The whole suite runs on each."""


def tiered(*names: str) -> list[Any]:
    """Return *names* as parameters of a fixture, those that need TransferQueue not for the fast tier."""
    return [
        name if name in CLIENTS and CLIENTS[name].in_memory else pytest.param(name, marks=pytest.mark.full)
        for name in names
    ]


@dataclass(frozen=True)
class Plane:
    """One data plane: *reader* reads what *writer* writes. For a client they are the same object."""

    name: str
    writer: DataPlaneClient
    reader: MetadataReader


@pytest.fixture(params=tiered(*CLIENTS))
def client(request: pytest.FixtureRequest) -> DataPlaneClient:
    """Each implementation of the whole client, empty."""
    return CLIENTS[request.param].make(request)


@pytest.fixture(params=tiered(*CLIENTS, *READERS))
def plane(request: pytest.FixtureRequest) -> Iterator[Plane]:
    """Each implementation of the read half, with a writer to the same data plane."""
    if request.param in CLIENTS:
        client = CLIENTS[request.param].make(request)
        yield Plane(request.param, client, client)
        return
    writer = request.getfixturevalue("tq_client")
    reader = READERS[request.param](request.getfixturevalue("cluster"))
    yield Plane(request.param, writer, reader)
    reader.close()
