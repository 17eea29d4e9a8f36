"""A metadata reader with its own implementation of the controller's protocol: no Ray, no torch, hard deadlines.

It reads the same as TransferQueue's public ``kv_list`` and ``get_partition_list``, in a fraction of the time and
memory, and changes nothing in the controller.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import takewhile
from typing import NamedTuple

from dataplane.adapters.arguments import check_partition
from dataplane.adapters.wire.connection import KnownSender, WireConnection
from dataplane.adapters.wire.kept import Followed, Kept, keep
from dataplane.adapters.wire.limits import (
    DEFAULT_MAX_REPLY_BYTES,
    DEFAULT_MAX_ROWS,
    Allowance,
    ReplyLimitExceeded,
)
from dataplane.adapters.wire.protocol import Consumption, Reply, decode_consumption, decode_partitions
from dataplane.adapters.wire.rows import Rows, decode_listing
from dataplane.conventions import AUTO, Convention
from dataplane.grouping import DEFAULT_TAG_RULES, Grouper, TagRules
from dataplane.groups import Change, DataPlaneCapabilities, DataPlaneGroupMeta, Grouped, Listing, count_ready
from dataplane.tags import Tag

__all__ = ["DEFAULT_MAX_REPLY_BYTES", "DEFAULT_MAX_ROWS", "KnownSender", "ReplyLimitExceeded", "WireMetadataReader"]


class _Listed(NamedTuple):
    """A reply: all of its rows, or what changed in them."""

    frame: memoryview
    rows: Rows | None = None
    kept: Kept | None = None
    followed: Followed | None = None


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
        incremental: Whether to keep each partition's last reply, so that the next listing costs what changed.

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
        incremental: bool = True,
    ) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, not {timeout_s}")
        self._grouper = Grouper(rules, default_rules, conventions)
        self._timeout_s = timeout_s
        self._max_rows = max_rows
        self._allowance = Allowance(max_memory)
        self._incremental = incremental
        self._kept: dict[str, Kept] = {}
        self._full_decodes = 0
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

    @property
    def full_decodes(self) -> int:
        """How many listings were decoded as a whole although the one before was kept. Cumulative."""
        return self._full_decodes

    def ping(self, timeout_s: float | None = None) -> float:
        """See :meth:`dataplane.interfaces.MetadataReader.ping`. Asks for the list of partitions."""
        started = time.monotonic()
        self._partitions("ping", self._timeout_s if timeout_s is None else timeout_s)
        return time.monotonic() - started

    def list_partitions(self) -> list[str]:
        """See :meth:`dataplane.interfaces.MetadataReader.list_partitions`."""
        names = self._partitions("list_partitions", self._timeout_s)
        present = set(names)
        for gone in [name for name in self._kept if name not in present]:
            self._kept.pop(gone, None)
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

    def _groups(self, partition_id: str, operation: str) -> Listing:
        check_partition(operation, partition_id)  # None would request all partitions at once
        with self._named(operation, partition_id):
            self._allowance.check_rows(1)  # without room for a single row the controller need not be asked
        kept = self._kept.get(partition_id)
        listed = self._connection.call(
            "KV_LIST",
            {"partition_id": partition_id},
            lambda frame: self._decode(frame, partition_id),
            timeout_s=self._timeout_s,
            operation=operation,
            partition_id=partition_id,
            meanwhile=None if kept is None else kept.prepare,
        )
        with self._named(operation, partition_id):
            return self._group_changed(partition_id, listed) or self._group_all(partition_id, listed)

    def _decode(self, frame: memoryview, partition_id: str) -> Reply[_Listed]:
        room = self._allowance.rows(frame.nbytes)
        max_rows = min(self._max_rows, room)
        schema = self._grouper.registry.schema
        kept = self._kept.pop(partition_id, None)
        if kept is not None:
            if kept.schema is schema and kept.memory is self._grouper.memory(partition_id):
                found = kept.follow(frame, partition_id, max_rows)
                if found is not None:
                    return Reply(found.request_type, found.sender_id, _Listed(frame, None, kept, found.body))
            self._full_decodes += 1
            del kept
        try:
            reply = decode_listing(frame, partition_id, max_rows, schema)
        except ReplyLimitExceeded:
            if room < self._max_rows:
                self._allowance.check_rows(room + 1, frame.nbytes)
            raise
        return Reply(reply.request_type, reply.sender_id, _Listed(frame, reply.body))

    def _may_follow(self, partition_id: str, chosen: Convention) -> bool:
        """Whether the next listing may be read from what changed: each convention that is asked looks at each tag.

        Asked are the one that the rules name, or else the one that ``auto`` has chosen and those before it.
        """
        asked: Sequence[Convention] = (chosen,)
        if self._grouper.rules(partition_id).convention == AUTO:
            asked = [*takewhile(lambda one: one is not chosen, self._grouper.registry.conventions), chosen]
        return all(one.by_tag for one in asked)

    def _group_changed(self, partition_id: str, listed: _Listed) -> Listing | None:
        """Return the groups from those that are kept and the rows that changed, None if all rows must be grouped."""
        kept, followed = listed.kept, listed.followed
        if kept is None or followed is None:
            return None

        def admit(parts: int, groups: int) -> None:
            spans = len(kept.spans.owners)
            self._allowance.check(listed.frame.nbytes, followed.number, spans + parts, len(kept.listing) + groups)

        # The partition's own memory learns nothing from rows that may turn out not to be all that there is to know.
        memory = copy(kept.memory)

        def group(keys: Sequence[str], tags: Sequence[Tag]) -> Grouped:
            return self._grouper.group_listed(partition_id, keys, tags, admit, memory)

        try:
            taken = kept.take(followed, group)
        except ReplyLimitExceeded:
            taken = None
        if taken is None:
            self._full_decodes += 1
            return None
        now, change = taken
        kept.memory.convention, kept.memory.flagged = memory.convention, memory.flagged
        self._allowance.take(listed.frame.nbytes, now.count, len(now.spans.owners), len(now.listing))
        self._kept[partition_id] = now
        return _copy(now.listing, change)

    def _group_all(self, partition_id: str, listed: _Listed) -> Listing:
        registry = self._grouper.registry
        rows = listed.rows or decode_listing(listed.frame, partition_id, self._max_rows, registry.schema).body
        keys, tags = rows.keys, rows.tags
        repeated = len(set(keys)) < len(keys)
        if repeated:
            merged = dict(zip(keys, tags, strict=True))
            keys, tags = list(merged), list(merged.values())
        grouped = self._grouper.group_listed(
            partition_id,
            keys,
            tags,
            lambda parts, groups: self._allowance.take(listed.frame.nbytes, len(keys), parts, groups),
        )
        memory = self._grouper.memory(partition_id)
        if (
            repeated
            or not self._incremental
            or memory is None
            or not self._may_follow(partition_id, grouped.convention)
        ):
            return grouped.listing
        kept = keep(listed.frame, partition_id, rows, grouped, registry.schema, memory)
        if kept is None:
            return grouped.listing
        self._kept[partition_id] = kept
        return _copy(kept.listing, None)

    @contextmanager
    def _named(self, operation: str, partition_id: str | None = None) -> Iterator[None]:
        """Name operation and partition on an error of the allowance, as the connection does on all others."""
        try:
            yield
        except ReplyLimitExceeded as error:
            error.operation, error.partition_id = operation, partition_id
            raise


def _copy(listing: Listing, change: Change | None) -> Listing:
    """Return the groups for a caller, who may do with the list as he likes."""
    return Listing(
        listing,
        convention=listing.convention,
        rows=listing.rows,
        stated_version=listing.stated_version,
        token=listing.token,
        change=change,
    )
