"""Helpers for rows whose exporter reaches the controller at an address that the test chose."""

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
    # A listing in flight at the fault is charged with its whole wait. With the default of 250 ms its partition would
    # not be listed again for five minutes. That is intended, but not the subject of these rows.
    "TQ_EXPORTER_METADATA_MAX_CONTROLLER_STALL": "60s",
}

FILE_LOOKUPS: Final = 1000
"""No limit: the discovery file is read every 2 s in any case."""


def both(error_type: str) -> dict[str, str]:
    """Return the errors that are counted when every request to the controller fails with this type."""
    return {"ping": error_type, "list_partitions": error_type}


def amid_a_round(error_type: str) -> list[tuple[str, str]]:
    """Return further errors that may be counted when the fault occurs between two requests of a round."""
    return [("list_metadata", error_type)]


def record_at(address: str, cluster: TQCluster) -> bytes:
    """Return the discovery record of *cluster*, with the controller at *address* and unchanged storage units."""
    units = tuple(StorageUnitEndpoint(unit.index, unit.id, unit.address) for unit in cluster.storage_units)
    controller = cluster.controller
    return encode_endpoint(
        Endpoint(address, controller_id=controller.id, actor_id=controller.actor_id, storage_units=units)
    )


@contextmanager
def through(
    proxy: FaultyProxy, cluster: TQCluster, folder: Path, begin: Begin, env: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """Begin a row whose exporter reads the record in *folder* and reaches the controller through *proxy*."""
    file = folder / "endpoint.json"
    file.write_bytes(record_at(proxy.address, cluster))
    with begin(cluster, "--discovery-file", str(file), env={**ENV, **(env or {})}) as row:
        yield row
