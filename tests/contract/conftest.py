"""The implementations that the contract suite runs against.

One line in ``READERS`` adds a reader to the read half.
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

CLIENTS = ("noop", "transfer_queue")


def tiered(*names: str) -> list[Any]:
    """Return *names* as parameters of a fixture, those of TransferQueue not for the fast tier."""
    return [name if name == "noop" else pytest.param(name, marks=pytest.mark.full) for name in names]


@dataclass(frozen=True)
class Plane:
    """One data plane: *reader* reads what *writer* writes. For a client they are the same object."""

    name: str
    writer: DataPlaneClient
    reader: MetadataReader


def _make_client(name: str, request: pytest.FixtureRequest) -> DataPlaneClient:
    client: DataPlaneClient = NoOpDataPlaneClient() if name == "noop" else request.getfixturevalue("tq_client")
    return client


@pytest.fixture(params=tiered(*CLIENTS))
def client(request: pytest.FixtureRequest) -> DataPlaneClient:
    """Each implementation of the whole client, empty."""
    return _make_client(request.param, request)


@pytest.fixture(params=tiered(*CLIENTS, *READERS))
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
