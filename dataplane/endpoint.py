"""The discovery record: where a running data plane is, in one small JSON object.

Written by the training side or by a look-up, read by the exporter; the same schema for every way of discovery.
"""

from __future__ import annotations

import msgspec

__all__ = ["Endpoint", "StorageUnitEndpoint", "decode_endpoint", "encode_endpoint"]


class StorageUnitEndpoint(msgspec.Struct, frozen=True):
    """One storage unit. ``index`` is its stable number (0..n-1), ``address`` a ZMQ ``tcp://`` address."""

    index: int
    id: str
    address: str


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the controller is and what it said of itself.

    Attributes:
        address: The controller's request socket, ``tcp://IP:PORT``.
        controller_id: The id that its replies carry as sender, None when unknown.
        actor_id: Ray's id of the controller actor; a new one is a new generation. None when unknown.
        backend: TransferQueue's storage backend, for example ``SimpleStorage``.
        capacity: Samples that storage may hold in total; None is unlimited or unknown.
        storage_units: The storage units that can be asked for metrics.
        metrics_endpoint: ``host:port`` of TransferQueue's own metrics, None when they are off.
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
    versions: dict[str, str] = {}
    run: str | None = None
    written_at: float | None = None


_decoder = msgspec.json.Decoder(Endpoint)


def encode_endpoint(endpoint: Endpoint) -> bytes:
    """Return *endpoint* as one line of JSON."""
    return msgspec.json.encode(endpoint)


def decode_endpoint(data: bytes | str) -> Endpoint:
    """Return the endpoint in *data*; unknown keys are ignored so that newer writers stay readable.

    Raises:
        ValueError: The text is not JSON, or a field is missing or of the wrong type.
    """
    return _decoder.decode(data)
