"""What a successful call adds to telemetry, by its effect on keys: bytes, keys outstanding, links, version lags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dataplane.interfaces import RESERVED_PARTITION
from dataplane.observability.call import Call
from dataplane.observability.lineage import KEY_TYPES, Lineage
from dataplane.observability.origins import linkable
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
    """What one client remembers of its calls.

    Attributes:
        outstanding: The keys and bytes that were put and not cleared.
        lineage: Where keys came from.
    """

    def __init__(self) -> None:
        self.outstanding = Outstanding()
        self.lineage = Lineage()

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
                copies, where = tags_of(result), operation.tags
                memory.lineage.wrote(
                    name,
                    keys,
                    copies if where is None else call.given_tags or where.of(args, call.kwargs),
                    None if call.span is None else call.span.get_span_context(),
                    copies,
                )


def _claimed(call: Call, result: object, memory: Memory) -> None:
    keys = call.keys = keys_of(result)
    call.n_keys = count_keys(keys)
    _note_consumed(call, keys, tags_of(result), memory)


def _read(call: Call, result: object, memory: Memory) -> None:
    try:
        call.n_bytes = count_bytes(result)
    finally:  # a sparse tensor has no number of bytes; its keys still have origins
        if call.metered or call.span is not None:
            batch = call.operation.batch
            _note_consumed(call, call.keys, () if batch is None else tags_of(batch.of(call.args, call.kwargs)), memory)


def _cleared(call: Call, result: object, memory: Memory) -> None:
    keys, name = call.keys, call.name or ""
    if keys is not None or call.all_keys:
        memory.outstanding.clear(name, keys)
    _note_consumed(call, keys, (), memory)


def _listed(call: Call, result: object, memory: Memory) -> None:
    emits = call.metered or call.span is not None
    lineage, reference = memory.lineage, trainer_version.published
    if isinstance(result, Mapping):  # TransferQueue's own: partition to key to tag
        for partition, rows in result.items():
            call.n_keys += len(rows)
            if emits:
                lineage.list_rows(partition_name(partition) or "", rows, reference)
    elif isinstance(result, list):  # not a foreign client's generator, which only the caller may read
        call.n_keys = sum(len(group.keys) for group in result)
        if emits:
            lineage.list_groups(call.name or "", result, reference)
    elif call.keys and emits:  # TransferQueue's metadata of some keys
        tags = tags_of(result)
        if len(tags) == len(call.keys):
            lineage.listed(call.name or "", call.keys, versions_of(tags), contexts_of(tags), reference)


def _named(call: Call, result: object, memory: Memory) -> None:
    call.n_keys = count_keys(result)


EFFECTS: Final[Mapping[Effect | None, Callable[[Call, object, Memory], None] | None]] = {
    "write": _wrote,
    "claim": _claimed,
    "read": _read,
    "clear": _cleared,
    "list": _listed,
    "name": _named,
    None: None,
}
"""What to do with a successful call, its result and the client's memory, by the operation's effect. They may raise."""


def _note_consumed(call: Call, keys: Sequence[Any] | None, tags: Sequence[Any], memory: Memory) -> None:
    """Note the lag of *keys*, and link the call's span to their producers."""
    if not keys or call.cell is None or not (call.metered or call.span is not None):
        return
    partition, lineage = call.name or "", memory.lineage
    lineage.consumed(
        partition,
        keys,
        tags or call.row_tags,
        call.cell,
        trainer_version.published,
        departs=call.operation.effect == "clear",
    )
    if call.span is not None:
        for context in linkable(lineage.find(partition, keys)):
            call.span.add_link(context)
