"""What a successful call adds to telemetry, by its effect on keys: bytes, keys outstanding, links, version lag."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.metrics import Histogram

from dataplane.interfaces import RESERVED_PARTITION
from dataplane.observability.call import Call
from dataplane.observability.lineage import KEY_TYPES, Lineage, Origin, linkable
from dataplane.observability.outstanding import Outstanding
from dataplane.observability.payload import count_bytes, count_keys
from dataplane.observability.tally import partition_name
from dataplane.observability.trace_context import contexts_of, versions_of
from dataplane.operations import Effect, keys_of, tags_of

__all__ = ["EFFECTS", "Memory", "TrainerVersion", "trainer_version"]


class TrainerVersion:
    """The weight version that this process published last, None before the first."""

    published: int | None = None


trainer_version = TrainerVersion()


class Memory:
    """What one client remembers of its calls, and where lags go.

    Attributes:
        outstanding: The keys and bytes that were put and not cleared.
        lineage: Where keys came from.
        lag: The histogram of the lags of what is claimed, popped or evicted, in weight versions.
    """

    def __init__(self, lag: Histogram) -> None:
        self.outstanding = Outstanding()
        self.lineage = Lineage()
        self.lag = lag

    def reset(self) -> None:
        """Forget everything, as a forked child does."""
        self.outstanding.reset()
        self.lineage.reset()


def _wrote(call: Call, result: object, memory: Memory) -> None:
    operation, args = call.operation, call.args
    fields = operation.fields
    try:
        if fields is not None:
            payload = args[fields.position] if fields.position < len(args) else fields.of(args, call.kwargs)
            if payload is not None:
                call.n_bytes = count_bytes(payload)
    finally:  # a sparse tensor has no number of bytes; the keys are still worth noting
        keys = call.keys
        if keys is None:  # the call has iterated them; they cannot be iterated again
            keys = keys_of(result)
            if keys:
                call.n_keys = len(keys)
        if keys and type(keys[0]) in KEY_TYPES:
            keys, name = tuple(keys), call.name or ""
            if name != RESERVED_PARTITION:
                memory.outstanding.put(name, keys, call.n_bytes)
            if call.metered or call.span is not None:
                _remember_written(call, keys, result, memory)


def _remember_written(call: Call, keys: tuple[Any, ...], result: object, memory: Memory) -> None:
    # The result's own copies, where there are any: a caller is less likely to change them.
    tags: Any = tags_of(result)
    if not tags and call.operation.tags is not None:
        tags = call.operation.tags.of(call.args, call.kwargs)
    memory.lineage.wrote(call.name or "", keys, tags, None if call.span is None else call.span.get_span_context())


def _claimed(call: Call, result: object, memory: Memory) -> None:
    keys = call.keys = keys_of(result)
    call.n_keys = count_keys(keys)
    if keys and _emits(call):
        tags = tags_of(result)
        origins: Sequence[Origin] = _remember(call, keys, tags, memory) if tags else ()
        keys_per_origin = len(keys) if len(origins) < 2 else 1
        untold = keys_per_origin * (sum(origin.blank for origin in origins) if origins else 1)
        if call.span is not None or untold:  # this process may know more than the tags say
            found, misses = memory.lineage.find(call.name or "", keys)
            call.misses = min(misses, untold)  # a claim may be larger than the memory
            origins = (*origins, *found)
            _link(call, origins)
        _measure_lag(call, origins, memory)


def _read(call: Call, result: object, memory: Memory) -> None:
    try:
        call.n_bytes = count_bytes(result)
    finally:  # a sparse tensor has no number of bytes; its keys still have origins
        keys = call.keys
        if keys and _emits(call):
            batch = call.operation.batch
            tags = () if batch is None else tags_of(batch.of(call.args, call.kwargs))
            if tags:
                _remember(call, keys, tags, memory)
            origins, call.misses = memory.lineage.find(call.name or "", keys)
            _link(call, origins)


def _cleared(call: Call, result: object, memory: Memory) -> None:
    keys, name = call.keys, call.name or ""
    if keys is not None or call.all_keys:
        memory.outstanding.clear(name, keys)
    if keys and call.operation.consumes and _emits(call):
        origins, call.misses = memory.lineage.find(name, keys)
        _link(call, origins)
        _measure_lag(call, origins, memory)


def _listed(call: Call, result: object, memory: Memory) -> None:
    lineage = memory.lineage
    if isinstance(result, Mapping):  # TransferQueue's own: partition to key to tag
        for partition, rows in result.items():
            call.n_keys += len(rows)
            if rows and _emits(call):
                tags = list(rows.values())
                lineage.remember(partition_name(partition) or "", list(rows), versions_of(tags), contexts_of(tags))
        return
    if not isinstance(result, list):  # a foreign client's generator, which only the caller may read
        return
    call.n_keys = sum(len(group.keys) for group in result)
    if _emits(call):
        lineage.remember_groups(call.name or "", result)


EFFECTS: Final[Mapping[Effect | None, Callable[[Call, object, Memory], None] | None]] = {
    "write": _wrote,
    "claim": _claimed,
    "read": _read,
    "clear": _cleared,
    "list": _listed,
    None: None,
}
"""What to do with a successful call, its result and the client's memory, by the operation's effect. They may raise."""


def _emits(call: Call) -> bool:
    """Whether somebody may look at this call's versions or links."""
    return call.metered or call.span is not None


def _remember(call: Call, keys: Sequence[Any], tags: Sequence[Any], memory: Memory) -> Sequence[Origin]:
    return memory.lineage.remember(call.name or "", keys, versions_of(tags), contexts_of(tags))


def _link(call: Call, origins: Iterable[Origin]) -> None:
    if call.span is not None:
        for context in linkable(origins):
            call.span.add_link(context)


def _measure_lag(call: Call, origins: Iterable[Origin], memory: Memory) -> None:
    reference = trainer_version.published
    if reference is None:
        reference = memory.lineage.newest_version()
    if reference is None or call.cell is None:
        return
    for version in {origin.version for origin in origins if origin.version is not None}:
        memory.lag.record(max(0, reference - version), call.cell.lag_attributes)
