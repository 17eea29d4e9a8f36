"""The discovery record: where a running data plane is, in one small JSON object.

Written by the training side or by a look-up, read by the exporter; the same schema for every way of discovery.
"""

from __future__ import annotations

import contextlib
import platform
import re
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from dataplane.errors import DataPlaneNotReady

_MOONCAKE = "MooncakeStore"
_MOONCAKE_METRICS_PORT = 9003

__all__ = [
    "Endpoint",
    "Place",
    "Starting",
    "StorageUnitEndpoint",
    "decode_endpoint",
    "decode_record",
    "encode_endpoint",
    "encode_starting",
    "endpoint_of",
    "unit_names",
]


class Place(NamedTuple):
    """Where Ray runs an actor: its Ray id, the Ray id of its node, and its process there."""

    actor_id: str
    node_id: str
    pid: int


_NOWHERE: Final = (None, None, None)


MAX_STORAGE_UNITS: Final = 4096
"""More of them are no data plane that exists: TransferQueue recommends two per node."""

# A record comes from a file that others write, or from other processes. What is read from it is kept and shown.
_Text = Annotated[str, Meta(max_length=256)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Index = Annotated[int, Meta(ge=0, le=99_999)]


class StorageUnitEndpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """One storage unit.

    Attributes:
        index: Its stable number, 0..n-1.
        id: TransferQueue's id of it.
        address: A ZMQ ``tcp://`` address. It is checked when it is used, so that a wrong one does not hide the other
            units.
        actor_id: Ray's id of its actor, None when unknown.
        node_id: Ray's id of its node, None when unknown.
        pid: Its process on that node, None when unknown.
    """

    index: _Index
    id: _Text
    address: str
    actor_id: _Text | None = None
    node_id: _Text | None = None
    pid: _Count | None = None


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the controller is, and what it says of itself.

    Attributes:
        address: The controller's request socket, ``tcp://IP:PORT``.
        controller_id: The id that its replies carry as sender, None when unknown.
        actor_id: Ray's id of the controller actor; a new one is a new generation. None when unknown.
        backend: TransferQueue's storage backend, for example ``SimpleStorage``.
        capacity: Samples that storage may hold in total; None is unlimited or unknown.
        storage_units: The storage units that can be asked for metrics.
        metrics_endpoint: ``host:port`` of TransferQueue's own metrics, None when they are off.
        store_metrics: ``host:port`` of the metrics of Mooncake's master, None for other backends.
        versions: Software name to version, for example ``{"transfer_queue": "0.1.11"}``.
        run: Identity of the training run, None when it has none.
        written_at: When the record was made, in seconds since the epoch.
        node_id: Ray's id of the controller's node, None when unknown.
        pid: The controller's process on that node, None when unknown.
    """

    address: _Text
    controller_id: _Text | None = None
    actor_id: _Text | None = None
    backend: _Text | None = None
    capacity: _Count | None = None
    storage_units: Annotated[tuple[StorageUnitEndpoint, ...], Meta(max_length=MAX_STORAGE_UNITS)] = ()
    metrics_endpoint: _Text | None = None
    versions: Annotated[dict[_Text, _Text], Meta(max_length=32)] = {}
    run: _Text | None = None
    written_at: float | None = None
    node_id: _Text | None = None
    pid: _Count | None = None
    store_metrics: _Text | None = None


class Starting(msgspec.Struct, frozen=True, omit_defaults=True):
    """A controller is there, and its address is not known yet. An exporter that does not know this record refuses it.

    Attributes:
        starting: Why it cannot be used yet.
        run: See :class:`Endpoint`, also for the next.
        written_at: Likewise.
    """

    starting: str
    run: _Text | None = None
    written_at: float | None = None


class _Kind(msgspec.Struct):
    starting: object = None


_decoder = msgspec.json.Decoder(Endpoint)
_starting_decoder = msgspec.json.Decoder(Starting)
_kind_decoder = msgspec.json.Decoder(_Kind)


def encode_endpoint(endpoint: Endpoint) -> bytes:
    """Return *endpoint* as one line of JSON."""
    return msgspec.json.encode(endpoint)


def decode_endpoint(data: bytes | str) -> Endpoint:
    """Return the endpoint in *data*; unknown keys are ignored so that newer writers stay readable.

    Raises:
        ValueError: The text is not JSON, or a field is missing, of the wrong type or longer than any real one.
    """
    return _decoder.decode(data)


def encode_starting(starting: Starting) -> bytes:
    """Return *starting* as one line of JSON."""
    return msgspec.json.encode(starting)


def decode_record(data: bytes | str) -> Endpoint | Starting:
    """Return what a discovery file holds. For unknown keys and errors see :func:`decode_endpoint`."""
    return _decoder.decode(data) if _kind_decoder.decode(data).starting is None else _starting_decoder.decode(data)


def endpoint_of(actor_id: str, server: Any, conf: Any, places: Mapping[str, Place] | None = None) -> Endpoint:
    """Return the record of a controller, made from its own answers.

    Args:
        actor_id: Ray's id of the actor.
        server: What its ``get_zmq_server_info`` returned.
        conf: What its ``get_config`` returned.
        places: Where Ray runs the actors, by their names, as far as it is known.

    Raises:
        DataPlaneNotReady: *conf* is None: TransferQueue's ``init`` has not finished.
    """
    if conf is None:
        raise DataPlaneNotReady(
            "TransferQueue's controller is starting: its actor runs and has no configuration yet. init() has not "
            "finished. It may wait for CPUs: its storage units ask for more than the cluster has free"
        )
    backend, settings = _backend(conf)
    units = settings.get("zmq_info") or {}
    known = places or {}
    own = next((place for place in known.values() if place.actor_id == actor_id), None)
    return Endpoint(
        address=server.to_addr("request_handle_socket"),
        controller_id=server.id,
        actor_id=actor_id,
        backend=backend,
        capacity=settings.get("total_storage_size"),
        storage_units=tuple(
            StorageUnitEndpoint(
                index, units[name].id, units[name].to_addr("put_get_socket"), *known.get(name, _NOWHERE)
            )
            for index, name in enumerate(sorted(units, key=_rank))
        ),
        store_metrics=_store_metrics(settings) if backend == _MOONCAKE else None,
        metrics_endpoint=(conf.get("metrics") or {}).get("endpoint"),
        # The controller does not say its own versions. Ray accepts only a driver with the same Ray and Python.
        versions={**_installed("TransferQueue", "ray"), "python": platform.python_version()},
        written_at=time.time(),
        node_id=own and own.node_id,
        pid=own and own.pid,
    )


def unit_names(conf: Any) -> frozenset[str]:
    """Return the names of the storage units' actors; none while *conf*, a controller's ``get_config``, is None."""
    return frozenset() if conf is None else frozenset(_backend(conf)[1].get("zmq_info") or {})


def _backend(conf: Any) -> tuple[str, Any]:
    name = conf.backend.storage_backend
    return name, conf.backend.get(name) or {}


def _store_metrics(settings: Any) -> str | None:
    """Return where Mooncake's master serves its metrics: on its default port, since the configuration names none."""
    host, _, port = str(settings.get("master_server_address") or "").rpartition(":")
    return f"{host}:{_MOONCAKE_METRICS_PORT}" if host and port.isdecimal() and "/" not in host else None


def _installed(*distributions: str) -> dict[str, str]:
    versions = {}
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions["transfer_queue" if name == "TransferQueue" else name] = metadata.version(name)
    return versions


def _rank(name: str) -> tuple[int, str]:
    number = re.search(r"\d+$", name)
    return (int(number[0]) if number else -1, name)
