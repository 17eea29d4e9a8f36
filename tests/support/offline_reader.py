"""A wire reader that gets its replies from a test instead of a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dataplane.adapters.wire import WireMetadataReader
from dataplane.adapters.wire.protocol import Reply
from dataplane.groups import Listing
from tests.support.fake_router import reply

__all__ = ["OfflineReader"]


class _Connection:
    """Stands in for a socket: what is tested is which bytes give which groups, a hundred thousand times."""

    def __init__(self) -> None:
        self.frame = b""

    def call(
        self,
        kind: str,
        body: object,
        decode: Callable[[memoryview], Reply[Any]],
        *,
        meanwhile: Callable[[], object] | None = None,
        **where: object,
    ) -> Any:
        if meanwhile is not None:
            meanwhile()
        return decode(memoryview(self.frame)).body


class OfflineReader:
    """Reads the listings that it is given, with a reader's own arguments."""

    def __init__(self, **arguments: Any) -> None:
        self.reader = WireMetadataReader("tcp://127.0.0.1:1", **arguments)
        self._connection: Any = _Connection()
        vars(self.reader)["_connection"] = self._connection

    def read(self, frame: bytes, partition_id: str = "p") -> Listing:
        """Return the groups in a reply."""
        self._connection.frame = frame
        found = self.reader.list_metadata(partition_id)
        assert isinstance(found, Listing)
        return found

    def name(self, *partitions: str) -> None:
        """Begin a round over *partitions*."""
        self._connection.frame = reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": partitions})[0]
        self.reader.list_partitions()
