"""A metadata reader with its own implementation of the controller's protocol: no Ray, no torch, hard deadlines.

It reads the same as TransferQueue's public ``kv_list`` and ``get_partition_list``, in a fraction of the time and
memory, and changes nothing in the controller.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from dataplane.adapters.arguments import check_partition
from dataplane.adapters.wire.connection import KnownSender, WireConnection
from dataplane.adapters.wire.limits import (
    DEFAULT_MAX_REPLY_BYTES,
    DEFAULT_MAX_ROWS,
    Allowance,
    ReplyLimitExceeded,
)
from dataplane.adapters.wire.protocol import (
    Consumption,
    Reply,
    decode_consumption,
    decode_partitions,
    decode_rows,
    decode_runs,
)
from dataplane.conventions import Convention
from dataplane.grouping import DEFAULT_TAG_RULES, Grouper, TagRules
from dataplane.groups import (
    DataPlaneCapabilities,
    DataPlaneGroupMeta,
    count_ready,
)
from dataplane.tags import Tag

__all__ = ["DEFAULT_MAX_REPLY_BYTES", "DEFAULT_MAX_ROWS", "KnownSender", "ReplyLimitExceeded", "WireMetadataReader"]

_MANY_ROWS = 1000  # Below this, both ways to decode a listing are fast enough.
_MAX_REMEMBERED = 1000


class WireMetadataReader:
    """Reads partitions and groups from a controller's request socket. A ``MetadataReader``.

    Every call ends within its deadline, plus at most 0.2 s to find out whether a silent controller still exists. Calls
    are thread-safe; they share one connection and take turns.

    Args:
        address: The controller's request socket, ``tcp://HOST:PORT``.
        timeout_s: Deadline of a call in seconds.
        controller_id: The id that replies must have. A reply from another controller at the same address raises
            ``DataPlaneUnavailable``. None accepts any; see :attr:`last_sender_id`. Readers of one controller share a
            :class:`KnownSender`, so that all of them accept its new id when it changes.
        rules: How the tags of a partition are read, by partition.
        default_rules: The same for all other partitions.
        conventions: Tag conventions that ``auto`` asks before those that are registered.
        max_reply_bytes: A larger reply raises :class:`ReplyLimitExceeded`, a ``DataPlaneReadError``. A row takes about
            60 bytes; a list of partitions may take at most 4 MiB.
        max_rows: A listing with more rows raises it too.
        max_memory: What all listings since the last :meth:`list_partitions` may take in memory, in bytes, by estimate.
            A listing that would take more raises it too. None for any amount.

    Raises:
        ValueError: The address or the timeout is not valid.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 5.0,
        controller_id: str | KnownSender | None = None,
        rules: Mapping[str, TagRules] | None = None,
        default_rules: TagRules = DEFAULT_TAG_RULES,
        conventions: Iterable[Convention] = (),
        max_reply_bytes: int = DEFAULT_MAX_REPLY_BYTES,
        max_rows: int = DEFAULT_MAX_ROWS,
        max_memory: int | None = None,
    ) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, not {timeout_s}")
        self._grouper = Grouper(rules, default_rules, conventions)
        self._timeout_s = timeout_s
        self._max_rows = max_rows
        self._allowance = Allowance(max_memory)
        self._rowwise: set[str] = set()  # partitions whose tags differ from row to row
        self._connection = WireConnection(
            address,
            peer="controller",
            identity_prefix="tq_exporter_",
            sender=controller_id if isinstance(controller_id, KnownSender) else KnownSender(controller_id),
            max_reply_bytes=max_reply_bytes,
        )

    @property
    def address(self) -> str:
        """The controller's address."""
        return self._connection.address

    @property
    def controller_seconds(self) -> float:
        """Upper bound of the time that the controller has spent on this reader's requests, in seconds.

        Cumulative, from sending a request to receiving its reply, decoding not included. A request that was not
        answered in time is not counted: the controller may have worked on it or hung.
        """
        return self._connection.seconds

    @property
    def last_sender_id(self) -> str | None:
        """The id of the controller that answered last, None before the first answer."""
        return self._connection.last_sender_id

    def ping(self, timeout_s: float | None = None) -> float:
        """See :meth:`dataplane.interfaces.MetadataReader.ping`. Asks for the list of partitions."""
        started = time.monotonic()
        self._partitions("ping", self._timeout_s if timeout_s is None else timeout_s)
        return time.monotonic() - started

    def list_partitions(self) -> list[str]:
        """See :meth:`dataplane.interfaces.MetadataReader.list_partitions`."""
        names = self._partitions("list_partitions", self._timeout_s)
        with self._named("list_partitions"):
            self._allowance.begin(len(names))
        return names

    def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
        """See :meth:`dataplane.interfaces.MetadataReader.list_metadata`.

        Raises:
            DataPlaneUnavailable: The controller is gone or replaced, or this reader is closed.
            DataPlaneTimeout: The controller exists but does not answer.
            DataPlaneReadError: The controller reported an error, or its reply cannot be read.
        """
        return self._groups(partition_id, "list_metadata")

    def depth(self, partition_id: str) -> int:
        """See :meth:`dataplane.interfaces.MetadataReader.depth`."""
        return count_ready(self._groups(partition_id, "depth"))

    def consumption(self, partition_id: str, task: str) -> Consumption | None:
        """Return how far *task* has consumed a partition, None if there is no such partition.

        The controller creates a task that it does not know: ask only for tasks that are known to exist. It costs the
        controller several times as much as a listing.

        Raises:
            DataPlaneUnavailable: The controller is gone or replaced, or this reader is closed.
            DataPlaneTimeout: The controller exists but does not answer.
            DataPlaneReadError: The controller reported an error, or its reply cannot be read.
        """
        return self._connection.call_frames(
            "GET_CONSUMPTION",
            {"partition_id": partition_id, "task_name": task},
            lambda frames: decode_consumption(frames, partition_id, self._max_rows),
            timeout_s=self._timeout_s,
            operation="get_consumption",
            partition_id=partition_id,
        )

    def get_capabilities(self) -> DataPlaneCapabilities:
        """Return none: a reader writes nothing, and the controller lists whole partitions."""
        return DataPlaneCapabilities()

    def close(self) -> None:
        """See :meth:`dataplane.interfaces.MetadataReader.close`. Also aborts a call that waits in another thread."""
        self._connection.close()

    def _partitions(self, operation: str, timeout_s: float) -> list[str]:
        return self._connection.call(
            "GET_LIST_PARTITIONS", {}, decode_partitions, timeout_s=timeout_s, operation=operation
        )

    def _decode(self, frame: memoryview, partition_id: str) -> Reply[Mapping[str, Tag]]:
        """Decode a listing in the faster of two ways, chosen by the partition's earlier listings."""
        schema = self._grouper.registry.schema
        room = self._allowance.rows(frame.nbytes)
        max_rows = min(self._max_rows, room)
        try:
            if partition_id in self._rowwise:
                return decode_rows(frame, partition_id, max_rows, schema)
            reply, decoded = decode_runs(frame, partition_id, max_rows, schema)
        except ReplyLimitExceeded:
            if room < self._max_rows:
                self._allowance.check_rows(room + 1, frame.nbytes)
            raise
        rows = len(reply.body)
        if rows > _MANY_ROWS and 2 * decoded > rows:
            if len(self._rowwise) >= _MAX_REMEMBERED:
                self._rowwise.clear()
            self._rowwise.add(partition_id)
        return reply

    def _groups(self, partition_id: str, operation: str) -> list[DataPlaneGroupMeta]:
        check_partition(operation, partition_id)  # None would request all partitions at once
        size = 0

        def decode(frame: memoryview) -> Reply[Mapping[str, Tag]]:
            nonlocal size
            size = frame.nbytes
            return self._decode(frame, partition_id)

        with self._named(operation, partition_id):
            self._allowance.check_rows(1)  # without room for a single row the controller need not be asked
        tags = self._connection.call(
            "KV_LIST",
            {"partition_id": partition_id},
            decode,
            timeout_s=self._timeout_s,
            operation=operation,
            partition_id=partition_id,
        )
        with self._named(operation, partition_id):
            return self._grouper.group_tags(
                partition_id, tags, lambda parts, groups: self._allowance.take(size, len(tags), parts, groups)
            )

    @contextmanager
    def _named(self, operation: str, partition_id: str | None = None) -> Iterator[None]:
        """Name operation and partition on an error of the allowance, as the connection does on all others."""
        try:
            yield
        except ReplyLimitExceeded as error:
            error.operation, error.partition_id = operation, partition_id
            raise
