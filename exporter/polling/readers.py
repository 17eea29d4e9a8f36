"""The readers of one controller and its storage units. They share no connection, so no poll waits for another."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.adapters.wire import KnownSender, WireMetadataReader
from dataplane.adapters.wire.storage import StorageUnitMetrics, StorageUnitReader
from dataplane.discovery.record import Endpoint, StorageUnitEndpoint
from dataplane.errors import DataPlaneBadRequest
from dataplane.interfaces import MetadataReader
from exporter.config import Config
from exporter.config.rules import Rules, tag_rules

if TYPE_CHECKING:  # they load an HTTP client and a parser, 2 MB that most jobs do not need
    from exporter.polling.mooncake import MooncakeReader
    from exporter.polling.tq_endpoint import TqMetricsReader

__all__ = ["MAX_UNITS", "Readers", "StorageReader", "connect"]

MAX_UNITS: Final = 256
"""How many storage units are polled. Each has up to 30 series and a connection."""


class StorageReader(Protocol):
    """Asks one storage unit for its figures."""

    def read(self) -> StorageUnitMetrics:
        """Ask, within the reader's deadline; raises a DataPlaneError."""
        ...

    def close(self) -> None:
        """Release the reader's own resources."""
        ...


class _Unusable:
    """The reader of a storage unit whose address is none: it fails alone, as a unit that is gone does."""

    def __init__(self, why: str) -> None:
        self._why = why

    def read(self) -> StorageUnitMetrics:
        raise DataPlaneBadRequest(self._why, operation="storage_metrics")

    def close(self) -> None:
        pass


@dataclass(frozen=True, eq=False)
class Readers:
    """The readers that poll one data plane.

    Attributes:
        ping_reader: Reader for pings.
        metadata_reader: Reader for listings.
        storage: The storage units that can be asked, each with its reader.
        tq_metrics: Reader of TransferQueue's own metrics, None when they are off.
        units_left_out: Storage units beyond :data:`MAX_UNITS`, which are not asked.
        mooncake: Reader of the metrics of Mooncake's master, None where the storage is another.
        sender: The id that every reply must carry. Its id is None for readers that do not check it.
    """

    ping_reader: MetadataReader
    metadata_reader: MetadataReader
    storage: tuple[tuple[StorageUnitEndpoint, StorageReader], ...] = ()
    sender: KnownSender = field(default_factory=lambda: KnownSender(None))
    tq_metrics: TqMetricsReader | None = None
    units_left_out: int = 0
    mooncake: MooncakeReader | None = None

    def confirm(self) -> None:
        """Accept the present sender id: a look-up found the same controller at the same address again.

        A controller that has loaded a checkpoint answers under the checkpoint's id. Ray and the discovery record still
        name its first id.
        """
        answered = getattr(self.ping_reader, "last_sender_id", None)
        if self.sender.id is not None and answered is not None:
            self.sender.id = answered

    def close(self) -> None:
        """Close every reader. Waits for a call in flight, at most for its deadline."""
        self.ping_reader.close()
        self.metadata_reader.close()
        for _, reader in self.storage:
            reader.close()
        for page in (self.tq_metrics, self.mooncake):
            if page is not None:
                page.close()


def connect(config: Config, endpoint: Endpoint) -> Readers:
    """Return readers for *endpoint*. With ``reader: client`` this imports TransferQueue, Ray and torch.

    Raises:
        DataPlaneUnavailable: The public client cannot be built, for example because it is not installed.
        ValueError: The controller's address is invalid. Readers that were made before it are closed.
    """
    rules = tag_rules(config)
    # An actor that named its address just now is there, under its own first id or a checkpoint's.
    sender = KnownSender(endpoint.controller_id, met=endpoint.actor_id is None)
    with ExitStack() as made:
        ping = _reader(config, endpoint, sender, rules, config.ping.timeout)
        made.callback(ping.close)
        metadata = _reader(config, endpoint, sender, rules, config.metadata.timeout)
        made.callback(metadata.close)
        storage: list[tuple[StorageUnitEndpoint, StorageReader]] = []
        units = endpoint.storage_units if config.storage.enabled else ()
        for unit in units[:MAX_UNITS]:
            try:
                reader = StorageUnitReader(unit.address, timeout_s=config.storage.timeout, unit_id=unit.id)
            except ValueError as error:
                storage.append((unit, _Unusable(str(error))))
                continue
            made.callback(reader.close)
            storage.append((unit, reader))
        made.pop_all()  # all readers were made: they stay open
    tq_metrics = mooncake = None
    if config.tq_metrics.enabled and endpoint.metrics_endpoint:
        from exporter.polling.tq_endpoint import TqMetricsReader

        tq_metrics = TqMetricsReader(endpoint.metrics_endpoint, timeout_s=config.tq_metrics.timeout)
    if config.storage.enabled and endpoint.store_metrics:
        from exporter.polling.mooncake import MooncakeReader

        mooncake = MooncakeReader(endpoint.store_metrics, timeout_s=config.storage.timeout)
    return Readers(ping, metadata, tuple(storage), sender, tq_metrics, len(units) - len(storage), mooncake)


def _reader(config: Config, endpoint: Endpoint, sender: KnownSender, rules: Rules, timeout_s: float) -> MetadataReader:
    if config.reader == "wire":
        return WireMetadataReader(
            endpoint.address,
            timeout_s=timeout_s,
            controller_id=sender,
            **rules._asdict(),
            max_reply_bytes=config.metadata.max_reply_bytes,
            max_rows=config.metadata.max_rows,
            max_memory=config.metadata.max_memory,
            incremental=config.metadata.incremental,
        )
    from dataplane.adapters.transfer_queue import TransferQueueMetadataReader

    reader: MetadataReader = TransferQueueMetadataReader(
        endpoint.address, endpoint.controller_id, timeout_s=timeout_s, **rules._asdict()
    )
    return reader
