"""The read-only half of TransferQueue's public client: the base of the full client, and a reader without Ray."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, Final

from dataplane.adapters.arguments import check_partition, check_wait
from dataplane.adapters.transfer_queue import session
from dataplane.adapters.transfer_queue.calls import TransferQueueCalls
from dataplane.conventions import Convention
from dataplane.errors import DataPlaneReadError, DataPlaneUnavailable
from dataplane.grouping import DEFAULT_TAG_RULES, Grouper, TagRules
from dataplane.groups import DataPlaneCapabilities, DataPlaneGroupMeta, count_ready
from dataplane.net.addresses import parse_address

__all__ = ["MIN_CLOSE_S", "MetadataCalls", "TransferQueueMetadataReader", "import_tq"]

# Minimum deadline of a close, which waits for TransferQueue's threads and sends nothing.
MIN_CLOSE_S: Final = 5.0


class MetadataCalls(TransferQueueCalls):
    """The read-only half, on the ``TransferQueueClient`` that ``_client()`` returns."""

    def __init__(
        self,
        tq: ModuleType,
        *,
        timeout_s: float,
        rules: Mapping[str, TagRules] | None,
        default_rules: TagRules,
        conventions: Iterable[Convention] = (),
    ) -> None:
        super().__init__(tq, timeout_s=timeout_s)
        self._grouper = Grouper(rules, default_rules, conventions)

    def _client(self) -> Any:
        raise NotImplementedError

    async def _list_rows(self, partition_id: str) -> dict[str, Any]:
        listed = await self._client().async_kv_list(partition_id=partition_id)
        rows: dict[str, Any] = listed.get(partition_id, {})
        return rows

    def ping(self, timeout_s: float | None = None) -> float:
        """See :meth:`~dataplane.interfaces.MetadataReader.ping`."""
        if timeout_s is not None:
            check_wait("ping", timeout_s)

        async def call() -> None:
            await self._client().async_get_partition_list()

        started = time.perf_counter()
        self._call_tq("ping", call, DataPlaneReadError, timeout_s=timeout_s)
        return time.perf_counter() - started

    def list_partitions(self) -> list[str]:
        """See :meth:`~dataplane.interfaces.MetadataReader.list_partitions`."""

        async def call() -> Any:
            return await self._client().async_get_partition_list()

        return list(self._call_tq("list_partitions", call, DataPlaneReadError))

    def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
        """See :meth:`~dataplane.interfaces.MetadataReader.list_metadata`."""
        return self._groups("list_metadata", partition_id)

    def depth(self, partition_id: str) -> int:
        """See :meth:`~dataplane.interfaces.MetadataReader.depth`."""
        return count_ready(self._groups("depth", partition_id))

    def get_capabilities(self) -> DataPlaneCapabilities:
        """Return no capabilities: TransferQueue supports none of them."""
        return DataPlaneCapabilities()

    def _groups(self, operation: str, partition_id: str) -> list[DataPlaneGroupMeta]:
        check_partition(operation, partition_id)

        async def call() -> Any:
            return await self._list_rows(partition_id)

        rows = self._call_tq(operation, call, DataPlaneReadError, partition_id=partition_id)
        return self._grouper.group_rows(partition_id, rows)


class TransferQueueMetadataReader(MetadataCalls):
    """A :class:`~dataplane.interfaces.MetadataReader` on TransferQueue's own client class, without Ray.

    It needs only the controller's address, but still imports torch and Ray, which takes memory. It does not check which
    controller sent a reply; the wire reader does.

    Args:
        address: The controller's request socket, ``tcp://HOST:PORT``.
        controller_id: The controller's id. It only labels requests, so any value works.
        timeout_s: Deadline of each call in seconds; for :meth:`close` at least 5 s.
        rules: How the tags of a partition are read, by partition name.
        default_rules: The same for partitions that *rules* does not name.
        conventions: Tag conventions that ``auto`` asks before those that are registered.

    Raises:
        DataPlaneUnavailable: TransferQueue is not installed.
        ValueError: *address* is not of that form, or *timeout_s* not a positive, finite number.
    """

    def __init__(
        self,
        address: str,
        controller_id: str | None = None,
        *,
        timeout_s: float = 5.0,
        rules: Mapping[str, TagRules] | None = None,
        default_rules: TagRules = DEFAULT_TAG_RULES,
        conventions: Iterable[Convention] = (),
    ) -> None:
        host, port = parse_address(address)
        super().__init__(
            import_tq(), timeout_s=timeout_s, rules=rules, default_rules=default_rules, conventions=conventions
        )
        info = session.controller_info(self._tq, controller_id or "unknown", host, port)
        self._own_client = self._tq.TransferQueueClient(client_id=session.unique_client_id(), controller_info=info)
        self._watch(self._own_client._loop, address, {})

    def _client(self) -> Any:
        return self._own_client

    def close(self) -> None:
        """Close this reader's sockets, idempotently. Calls after it raise DataPlaneUnavailable.

        Raises:
            DataPlaneTimeout: It takes longer than the deadline (at least 5 s), and continues in the background.
        """
        self._close(lambda: session.close_client(self._own_client), max(self._timeout_s, MIN_CLOSE_S))


def import_tq() -> ModuleType:
    """Import ``transfer_queue``, or raise DataPlaneUnavailable with the remedy."""
    try:
        return importlib.import_module("transfer_queue")
    except ImportError as error:
        raise DataPlaneUnavailable(
            f"TransferQueue is not installed ({error}): pip install 'tq-exporter[tq]'"
        ) from error
