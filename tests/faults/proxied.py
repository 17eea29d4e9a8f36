"""What the rows share in which the exporter finds the controller at an address that the test chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dataplane.discovery.record import Endpoint, StorageUnitEndpoint, encode_endpoint
from tests.faults.matrix import Begin, Row
from tests.support.cluster import TQCluster
from tests.support.faulty_proxy import FaultyProxy

__all__ = ["ENV", "FILE_LOOKUPS", "UNITS", "amid_a_round", "both", "record_at", "through"]

UNITS: Final = ("0", "1")

ENV: Final[Mapping[str, str]] = {
    # A listing in flight when a fault strikes is charged with its whole wait, and with the default of 250 ms its
    # partition would not be listed again for five minutes. That is as it should be, and not what is asked here.
    "TQ_EXPORTER_METADATA_MAX_CONTROLLER_STALL": "60s",
}

FILE_LOOKUPS: Final = 1000
"""No bound: the discovery file is read every 2 s, whatever happens to the controller."""


def both(error_type: str) -> dict[str, str]:
    """Return what is counted when every request to the controller fails so."""
    return {"ping": error_type, "list_partitions": error_type}


def amid_a_round(error_type: str) -> list[tuple[str, str]]:
    """Return what may be counted besides, when the fault strikes between two requests of a round."""
    return [("list_metadata", error_type)]


def record_at(address: str, cluster: TQCluster) -> bytes:
    """Return the discovery record of *cluster*, its controller at *address* and its storage units where they are."""
    units = tuple(StorageUnitEndpoint(unit.index, unit.id, unit.address) for unit in cluster.storage_units)
    controller = cluster.controller
    return encode_endpoint(
        Endpoint(address, controller_id=controller.id, actor_id=controller.actor_id, storage_units=units)
    )


@contextmanager
def through(
    proxy: FaultyProxy, cluster: TQCluster, folder: Path, begin: Begin, env: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """Begin a row whose exporter reaches the controller through *proxy*; it reads the record in *folder*."""
    file = folder / "endpoint.json"
    file.write_bytes(record_at(proxy.address, cluster))
    with begin(cluster, "--discovery-file", str(file), env={**ENV, **(env or {})}) as row:
        yield row
