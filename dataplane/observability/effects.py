"""What a successful call tells, by its effect on keys: bytes moved, keys outstanding, links and version lag."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dataplane.interfaces import RESERVED_PARTITION
from dataplane.observability.backlog import KEY_TYPES
from dataplane.observability.lineage import Origin, linkable
from dataplane.observability.payload import count_bytes, count_keys
from dataplane.observability.tally import partition_name
from dataplane.observability.trace_context import contexts_of, versions_of
from dataplane.operations import Effect, keys_of, tags_of

if TYPE_CHECKING:
    from dataplane.observability.call import Call

__all__ = ["EFFECTS", "TrainerVersion", "trainer_version"]


class TrainerVersion:
    """The weight version that this process published last, None before the first."""

    published: int | None = None


trainer_version = TrainerVersion()


def _wrote(call: Call, result: object) -> None:
    operation, recorder, args = call.operation, call.recorder, call.args
    fields = operation.fields
    if fields is not None:
        payload = args[fields.position] if fields.position < len(args) else fields.of(args, call.kwargs)
        if payload is not None:
            try:
                call.n_bytes = count_bytes(payload)
            except Exception as error:  # a sparse tensor has no number of bytes; the rest is still worth noting
                recorder.failed(error)
    keys = call.keys
    if keys is None:  # they could be iterated once, and the call did
        keys = keys_of(result)
        if not keys:
            return
        call.n_keys = len(keys)
    if not keys or type(keys[0]) not in KEY_TYPES:
        return
    keys, name = tuple(keys), call.name or ""
    if name != RESERVED_PARTITION:
        recorder.outstanding.put(name, keys, call.n_bytes)
    if call.metered or call.span is not None:
        # The result's own copies, where there are any: a caller is less likely to change them.
        tags: Any = tags_of(result)
        if not tags and operation.tags is not None:
            tags = operation.tags.of(args, call.kwargs)
        recorder.lineage.wrote(name, keys, tags, None if call.span is None else call.span.get_span_context())


def _claimed(call: Call, result: object) -> None:
    keys = call.keys = keys_of(result)
    call.n_keys = count_keys(keys)
    if keys and _told(call):
        tags = tags_of(result)
        origins: Sequence[Origin] = _remember(call, keys, tags) if tags else ()
        untold = len(keys) if len(origins) < 2 else 1  # for how many keys each blank origin stands
        untold *= sum(origin.blank for origin in origins) if origins else 1
        if call.span is not None or untold:  # this process may know more than the tags say
            found, misses = call.recorder.lineage.find(call.name or "", keys)
            call.misses = min(misses, untold)  # a claim may be larger than the memory
            origins = (*origins, *found)
            _link(call, origins)
        _measure_lag(call, origins)


def _read(call: Call, result: object) -> None:
    try:
        call.n_bytes = count_bytes(result)
    except Exception as error:
        call.recorder.failed(error)
    keys = call.keys
    if keys and _told(call):
        operation = call.operation
        if operation.batch is not None:
            tags = tags_of(operation.batch.of(call.args, call.kwargs))
            if tags:
                _remember(call, keys, tags)
        origins, call.misses = call.recorder.lineage.find(call.name or "", keys)
        _link(call, origins)


def _cleared(call: Call, result: object) -> None:
    keys, name = call.keys, call.name or ""
    if keys is not None or call.all_keys:
        call.recorder.outstanding.clear(name, keys)
    if keys and call.operation.consumes and _told(call):
        origins, call.misses = call.recorder.lineage.find(name, keys)
        _link(call, origins)
        _measure_lag(call, origins)


def _listed(call: Call, result: object) -> None:
    lineage = call.recorder.lineage
    if isinstance(result, Mapping):  # TransferQueue's own: partition to key to tag
        for partition, rows in result.items():
            call.n_keys += len(rows)
            if rows and _told(call):
                tags = list(rows.values())
                lineage.remember(partition_name(partition) or "", list(rows), versions_of(tags), contexts_of(tags))
        return
    if not isinstance(result, list):  # a foreign client's generator is its caller's to read
        return
    call.n_keys = sum(len(group.keys) for group in result)
    if _told(call):
        lineage.remember_groups(call.name or "", result)


EFFECTS: Final[Mapping[Effect | None, Callable[[Call, object], None] | None]] = {
    "write": _wrote,
    "claim": _claimed,
    "read": _read,
    "clear": _cleared,
    "list": _listed,
    None: None,
}
"""What to do with a successful call and its result, by the operation's effect. They may raise."""


def _told(call: Call) -> bool:
    """Whether anybody may look at versions or links, and this call is the one that tells them."""
    return call.metered or call.span is not None


def _remember(call: Call, keys: Sequence[Any], tags: Sequence[Any]) -> Sequence[Origin]:
    return call.recorder.lineage.remember(call.name or "", keys, versions_of(tags), contexts_of(tags))


def _link(call: Call, origins: Iterable[Origin]) -> None:
    if call.span is not None:
        for context in linkable(origins):
            call.span.add_link(context)


def _measure_lag(call: Call, origins: Iterable[Origin]) -> None:
    reference = trainer_version.published
    if reference is None:
        reference = call.recorder.lineage.newest_version()
    if reference is None or call.cell is None:
        return
    for version in {origin.version for origin in origins if origin.version is not None}:
        call.recorder.instruments.lag.record(max(0, reference - version), call.cell.lag_attributes)
