"""The discovery record: where a running data plane is, in one small JSON object.

Written by the training side or by a look-up, read by the exporter; the same schema for every way of discovery.
"""

from __future__ import annotations

import contextlib
import platform
import re
import time
from importlib import metadata
from typing import Any

import msgspec

from dataplane.errors import DataPlaneNotReady

_MOONCAKE = "MooncakeStore"
_MOONCAKE_METRICS_PORT = 9003

__all__ = [
    "Endpoint",
    "Starting",
    "StorageUnitEndpoint",
    "decode_endpoint",
    "decode_record",
    "encode_endpoint",
    "encode_starting",
    "endpoint_of",
]


class StorageUnitEndpoint(msgspec.Struct, frozen=True):
    """One storage unit. ``index`` is its stable number (0..n-1), ``address`` a ZMQ ``tcp://`` address."""

    index: int
    id: str
    address: str


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
    """

    address: str
    controller_id: str | None = None
    actor_id: str | None = None
    backend: str | None = None
    capacity: int | None = None
    storage_units: tuple[StorageUnitEndpoint, ...] = ()
    metrics_endpoint: str | None = None
    store_metrics: str | None = None
    versions: dict[str, str] = {}
    run: str | None = None
    written_at: float | None = None


class Starting(msgspec.Struct, frozen=True, omit_defaults=True):
    """A controller is there, and its address is not known yet. An exporter that does not know this record refuses it.

    Attributes:
        starting: Why it cannot be used yet.
        run: See :class:`Endpoint`, also for the next.
        written_at: Likewise.
    """

    starting: str
    run: str | None = None
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
        ValueError: The text is not JSON, or a field is missing or of the wrong type.
    """
    return _decoder.decode(data)


def encode_starting(starting: Starting) -> bytes:
    """Return *starting* as one line of JSON."""
    return msgspec.json.encode(starting)


def decode_record(data: bytes | str) -> Endpoint | Starting:
    """Return what a discovery file holds. For unknown keys and errors see :func:`decode_endpoint`."""
    return _decoder.decode(data) if _kind_decoder.decode(data).starting is None else _starting_decoder.decode(data)


def endpoint_of(actor_id: str, server: Any, conf: Any) -> Endpoint:
    """Return the record of a controller, made from its own answers.

    Args:
        actor_id: Ray's id of the actor.
        server: What its ``get_zmq_server_info`` returned.
        conf: What its ``get_config`` returned.

    Raises:
        DataPlaneNotReady: *conf* is None: TransferQueue's ``init`` has not finished.
    """
    if conf is None:
        raise DataPlaneNotReady(
            "TransferQueue's controller is starting: its actor runs and has no configuration yet. init() is still at "
            "work, or waits, as for storage units that ask for more CPUs than the cluster has free"
        )
    backend = conf.backend.storage_backend
    settings = conf.backend.get(backend) or {}
    units = settings.get("zmq_info") or {}
    return Endpoint(
        address=server.to_addr("request_handle_socket"),
        controller_id=server.id,
        actor_id=actor_id,
        backend=backend,
        capacity=settings.get("total_storage_size"),
        storage_units=tuple(
            StorageUnitEndpoint(index, units[name].id, units[name].to_addr("put_get_socket"))
            for index, name in enumerate(sorted(units, key=_rank))
        ),
        store_metrics=_store_metrics(settings) if backend == _MOONCAKE else None,
        metrics_endpoint=(conf.get("metrics") or {}).get("endpoint"),
        # The controller does not say its own versions. Ray accepts only a driver with the same Ray and Python.
        versions={**_installed("TransferQueue", "ray"), "python": platform.python_version()},
        written_at=time.time(),
    )


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
