"""The bytes of TransferQueue's request protocol: one msgpack frame each way. Pure, no I/O.

A request or reply is a map of ``request_type, sender_id, receiver_id, request_id, timestamp, body``. Tensors and
arrays inside a reply are msgpack extensions whose buffers follow as further frames; if msgpack cannot express a value,
the whole reply is a pickle behind a marker. Neither is ever loaded here: unpickling bytes from the network would be
unsafe.
Source: ``transfer_queue/utils/{zmq_utils,serial_utils}.py`` of the versions in :data:`TESTED_VERSIONS`.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar, cast

import msgspec

from dataplane import conventions
from dataplane.adapters.wire.limits import (
    DEFAULT_MAX_ROWS,
    MAX_ID,
    MAX_NAMES_BYTES,
    MAX_TAG_BYTES,
    MAX_UNCHECKED_BYTES,
    ReplyLimitExceeded,
)
from dataplane.errors import DataPlaneReadError
from dataplane.tags import NO_MAPPING, Tag, TagSchema

__all__ = [
    "TESTED_VERSIONS",
    "AcceptQueue",
    "Consumption",
    "MetricsBody",
    "OperationStats",
    "Reply",
    "decode_accept_queue",
    "decode_arrivals",
    "decode_consumption",
    "decode_metrics",
    "decode_op_stats",
    "decode_partitions",
    "decode_rows",
    "decode_runs",
    "encode_request",
]

TESTED_VERSIONS: Final = "0.1.8 to 0.1.11"

_PICKLE_MARKER: Final = b"\xc1\xfe\xed"
_DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, ValueError)

_TENSOR: Final = 3  # the code of a tensor's msgpack extension

_MAX_QUOTED: Final = 500

_Body = TypeVar("_Body")
_Row = TypeVar("_Row")


class Reply(msgspec.Struct, Generic[_Body]):
    """A reply: its sender and its body."""

    request_type: str
    sender_id: Annotated[str, msgspec.Meta(max_length=MAX_ID)]
    body: _Body


class _Partitions(msgspec.Struct):
    partition_ids: list[str]


class _OddPartitions(msgspec.Struct):
    partition_ids: list[Any]


_Count = Annotated[int, msgspec.Meta(ge=0)]
_Figure = Annotated[float, msgspec.Meta(ge=0, le=2**53)]  # finite, and exact as a whole number


class MetricsBody(msgspec.Struct):
    """A storage unit's metrics that are used. Capacity None means unlimited. The raw parts are read by themselves."""

    active_keys: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    capacity: int | None = None
    process_rss_bytes: int = 0
    ssd_offload_enabled: int = 0
    ssd_active_bytes: _Count | None = None
    ssd_active_values: _Count | None = None
    ssd_fallback_values_total: _Count | None = None
    arrivals_by_op: msgspec.Raw = msgspec.Raw()
    op_stats: msgspec.Raw = msgspec.Raw()
    accept_queue: msgspec.Raw = msgspec.Raw()


class OperationStats(msgspec.Struct):
    """What a storage unit measured of one operation: requests, and the mean of their durations in seconds."""

    request_count: _Figure
    latency_avg: _Figure


class AcceptQueue(msgspec.Struct):
    """What a storage unit's probe saw of the accept queue of its socket, since the probe started."""

    samples: int
    peak_utilization: _Figure
    sk_drops_delta: _Count


class Consumption(NamedTuple):
    """How far a task has consumed a partition: samples in all, and how many of them it has consumed."""

    samples: int
    consumed: int


class _Consumption(msgspec.Struct):
    partition_id: str
    global_index: msgspec.msgpack.Ext | None
    consumption_status: msgspec.msgpack.Ext | None


class _Error(msgspec.Struct):
    message: str = "no reason given"


class _Rows(msgspec.Struct, Generic[_Row]):
    partition_info: dict[str, dict[str, _Row]]


class _UnreadPartitions(msgspec.Struct):
    partition_info: msgspec.Raw


_encode = msgspec.msgpack.Encoder().encode
_partitions: msgspec.msgpack.Decoder[Reply[Any]] = msgspec.msgpack.Decoder(Reply[_Partitions])
_odd_partitions: msgspec.msgpack.Decoder[Reply[Any]] = msgspec.msgpack.Decoder(Reply[_OddPartitions])
_metrics = msgspec.msgpack.Decoder(Reply[MetricsBody])
_arrivals = msgspec.msgpack.Decoder(dict[str, _Count])
_op_stats = msgspec.msgpack.Decoder(dict[str, OperationStats])
_accept_queue = msgspec.msgpack.Decoder(AcceptQueue)
_consumption = msgspec.msgpack.Decoder(Reply[_Consumption])
_raw_rows = msgspec.msgpack.Decoder(Reply[_Rows[msgspec.Raw]])
_unread = msgspec.msgpack.Decoder(Reply[msgspec.Raw])
_unread_partitions = msgspec.msgpack.Decoder(Reply[_UnreadPartitions])
_error = msgspec.msgpack.Decoder(_Error)
_anything = msgspec.msgpack.Decoder()


class _TagDecoders(NamedTuple):
    """The decoders of tags into the structs of a schema: for all rows of a reply at once, or for one tag."""

    schema: TagSchema
    checked_rows: msgspec.msgpack.Decoder[Reply[_Rows[Tag]]]
    loose_rows: msgspec.msgpack.Decoder[Reply[_Rows[Tag]]]
    checked: msgspec.msgpack.Decoder[Tag]
    loose: msgspec.msgpack.Decoder[Tag]


@functools.lru_cache(maxsize=4)
def _decoders_of(schema: TagSchema) -> _TagDecoders:
    reply: Any = Reply
    rows: Any = _Rows
    return _TagDecoders(
        schema,
        *(msgspec.msgpack.Decoder(reply[rows[kind]]) for kind in (schema.checked, schema.loose)),
        *(msgspec.msgpack.Decoder(kind) for kind in (schema.checked, schema.loose)),
    )


def encode_request(request_type: str, sender_id: str, body: Mapping[str, Any]) -> bytes:
    """Return the frame of a request."""
    return _encode(
        {
            "request_type": request_type,
            "sender_id": sender_id,
            "receiver_id": None,
            "request_id": uuid.uuid4().hex[:8],
            "timestamp": time.time(),
            "body": body,
        }
    )


# Each decodes the first frame of a reply. It raises DataPlaneReadError when the peer reported an error, or when the
# reply is a pickle, truncated or invalid.


def decode_partitions(frame: memoryview) -> Reply[list[str]]:
    """Decode the names in a ``LIST_PARTITIONS_RESPONSE``.

    TransferQueue accepts any value as a name. Names that are no strings are left out: they cannot be requested, and
    they must not hide the others. A long list must have strings only, whose memory its length bounds.
    """
    if frame.nbytes > MAX_NAMES_BYTES:
        raise ReplyLimitExceeded(
            f"the list of partitions takes {frame.nbytes} bytes, the limit is {MAX_NAMES_BYTES}", limit="reply_bytes"
        )
    decoder = _odd_partitions if frame.nbytes <= MAX_UNCHECKED_BYTES else _partitions
    reply = _decode(frame, "LIST_PARTITIONS_RESPONSE", decoder)
    return Reply(reply.request_type, reply.sender_id, [name for name in reply.body.partition_ids if type(name) is str])


def decode_metrics(frame: memoryview) -> Reply[MetricsBody]:
    """Decode a storage unit's ``METRICS_RESPONSE``."""
    return _decode(frame, "METRICS_RESPONSE", _metrics)


# The parts of a storage unit's metrics that other versions of TransferQueue lack or may write differently. None if such
# a part cannot be read.


def decode_arrivals(part: msgspec.Raw) -> dict[str, int] | None:
    """Decode how many requests have arrived, by operation."""
    return _decode_part(part, _arrivals)


def decode_op_stats(part: msgspec.Raw) -> dict[str, OperationStats] | None:
    """Decode what was measured of the requests, by operation."""
    return _decode_part(part, _op_stats)


def decode_accept_queue(part: msgspec.Raw) -> AcceptQueue | None:
    """Decode what the probe of the accept queue saw."""
    return _decode_part(part, _accept_queue)


def decode_consumption(
    frames: Sequence[memoryview], partition_id: str, max_rows: int = DEFAULT_MAX_ROWS
) -> Reply[Consumption | None]:
    """Decode a ``CONSUMPTION_RESPONSE``; None if there is no such partition.

    It holds two tensors: the samples' indexes (64 bits each), then per sample a byte that is 1 once the task has
    consumed it. Their buffers are frames of their own. Their types and shapes are pickles, which are not read: the
    frames must have exactly the sizes and values that those tensors have.
    """
    reply = _decode(frames[0], "CONSUMPTION_RESPONSE", _consumption)
    body = reply.body
    if body.partition_id != partition_id:
        raise DataPlaneReadError("the reply is about another partition than the one that was asked for")
    if body.global_index is None and body.consumption_status is None:
        return Reply(reply.request_type, reply.sender_id, None)
    tensors = [part is not None and part.code == _TENSOR for part in (body.global_index, body.consumption_status)]
    if not all(tensors) or len(frames) != 3 or frames[1].nbytes != 8 * frames[2].nbytes:
        raise _needs_pickle()
    samples = frames[2].nbytes
    if samples > max_rows:
        raise ReplyLimitExceeded(f"the partition has {samples} samples, the limit is {max_rows}", limit="rows")
    status = frames[2].tobytes()
    consumed = status.count(1)
    if consumed + status.count(0) != samples:
        raise _needs_pickle()
    return Reply(reply.request_type, reply.sender_id, Consumption(samples, consumed))


def _needs_pickle() -> DataPlaneReadError:
    return DataPlaneReadError(
        "unreadable consumption: without loading a pickle, which is never done, only the tensors that TransferQueue "
        f"{TESTED_VERSIONS} sends can be read"
    )


def decode_runs(
    frame: memoryview, partition_id: str, max_rows: int = DEFAULT_MAX_ROWS, schema: TagSchema | None = None
) -> tuple[Reply[Mapping[str, Tag]], int]:
    """Decode rows like :func:`decode_rows`, but faster when most tags equal the previous one byte for byte.

    Such tags are decoded once and shared.

    Returns:
        The reply, and how many tags were decoded. If nearly every row needed it, :func:`decode_rows` is faster.
    """
    _check_size(frame, max_rows)
    raw = _decode(frame, "KV_LIST_RESPONSE", _raw_rows)
    rows = _rows_of(raw.body.partition_info, partition_id, max_rows)
    decoders = _decoders_of(schema or conventions.schema())
    tags = cast("dict[str, Tag]", rows)  # Decoded tags replace the encoded ones.
    tag: Tag = NO_MAPPING
    last: msgspec.Raw | None = None
    decoded = 0
    for key, encoded in rows.items():
        if encoded != last:
            last = encoded
            tag = _decode_tag(encoded, decoders)
            decoded += 1
        tags[key] = tag
    return Reply(raw.request_type, raw.sender_id, tags), decoded


def decode_rows(
    frame: memoryview, partition_id: str, max_rows: int = DEFAULT_MAX_ROWS, schema: TagSchema | None = None
) -> Reply[Mapping[str, Tag]]:
    """Decode the rows of one partition in a ``KV_LIST_RESPONSE``; an unknown partition has none.

    All rows are decoded at once into the fields of *schema*, by default those that grouping reads: type-checked if all
    tags are well-formed, else unchecked. If a tag is no map with string keys, they are decoded one by one.
    """
    _check_size(frame, max_rows)
    decoders = _decoders_of(schema or conventions.schema())
    whole = (decoders.checked_rows, decoders.loose_rows)
    for decoder in whole if frame.nbytes <= MAX_UNCHECKED_BYTES else whole[:1]:
        try:
            reply = decoder.decode(frame)
        except _DECODE_ERRORS:
            continue
        if reply.request_type == "KV_LIST_RESPONSE":
            return Reply(
                reply.request_type, reply.sender_id, _rows_of(reply.body.partition_info, partition_id, max_rows)
            )
    raw = _decode(frame, "KV_LIST_RESPONSE", _raw_rows)
    rows = _rows_of(raw.body.partition_info, partition_id, max_rows)
    return Reply(raw.request_type, raw.sender_id, {key: _decode_tag(tag, decoders) for key, tag in rows.items()})


def _check_size(frame: memoryview, max_rows: int) -> None:
    """Refuse a listing of more rows than *max_rows*, or of more than one partition, before it takes memory.

    Skipped for a short frame, where it saves nothing; the decoded rows are counted again.
    """
    if frame.nbytes <= _BYTES_PER_ROW * max_rows:
        return
    listed = _decode(frame, "KV_LIST_RESPONSE", _unread_partitions).body.partition_info
    partitions, at = _map_header(listed, 0)
    if partitions == 0:
        return
    if partitions > 1:
        raise DataPlaneReadError(f"the reply is about {partitions} partitions, one was asked for")
    rows, _ = _map_header(listed, _after_string(listed, at))
    _check_rows(rows, max_rows)


# A row is at least a key of one character, in two bytes, and one byte for its tag.
_BYTES_PER_ROW: Final = 3


def _check_rows(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise ReplyLimitExceeded(f"the partition has {rows} rows, the limit is {max_rows}", limit="rows")


# Only the part of the msgpack format that is needed to find the number of rows:
# https://github.com/msgpack/msgpack/blob/master/spec.md


def _map_header(data: msgspec.Raw, at: int) -> tuple[int, int]:
    """Return the number of entries of the map at *at*, and where they begin."""
    view = memoryview(data)[at : at + 5]
    kind = view[0] if view else 0
    if kind & 0xF0 == 0x80:
        return kind & 0x0F, at + 1
    width = {0xDE: 2, 0xDF: 4}.get(kind)
    if width is None:
        raise _not_understood("rows are no map")
    return int.from_bytes(view[1 : 1 + width], "big"), at + 1 + width


def _after_string(data: msgspec.Raw, at: int) -> int:
    """Return where the string at *at* ends."""
    view = memoryview(data)[at : at + 5]
    kind = view[0] if view else 0
    if kind & 0xE0 == 0xA0:
        return at + 1 + (kind & 0x1F)
    width = {0xD9: 1, 0xDA: 2, 0xDB: 4}.get(kind)
    if width is None:
        raise _not_understood("a partition's name is no string")
    return at + 1 + width + int.from_bytes(view[1 : 1 + width], "big")


def _rows_of(partitions: Mapping[str, Mapping[str, _Row]], partition_id: str, max_rows: int) -> Mapping[str, _Row]:
    """Return the rows of the requested partition, none when the reply names no partition."""
    rows = partitions.get(partition_id)
    if rows is None and partitions:
        other = repr(min(partitions)[:100])
        raise DataPlaneReadError(f"the reply is about the partition {other}, which is not the one that was asked for")
    _check_rows(len(rows or {}), max_rows)
    return rows or {}


def _decode_tag(tag: msgspec.Raw, decoders: _TagDecoders) -> Tag:
    try:
        return decoders.checked.decode(tag)
    except _DECODE_ERRORS:
        pass
    if len(memoryview(tag)) > MAX_TAG_BYTES:
        return NO_MAPPING
    for decoder in (decoders.loose, _anything):
        try:
            return _without_containers(decoders.schema.read(decoder.decode(tag)))
        except _DECODE_ERRORS:
            continue
    return NO_MAPPING


_CONTAINER: Final = msgspec.msgpack.Ext(0, b"")


def _without_containers(tag: Tag) -> Tag:
    """Return *tag* with lists and maps replaced: no field has such a type, and they take much memory."""
    values = msgspec.structs.asdict(tag)
    found = {name: _CONTAINER for name, value in values.items() if type(value) in (list, dict)}
    return msgspec.structs.replace(tag, **found) if found else tag


def _decode_part(part: msgspec.Raw, decoder: msgspec.msgpack.Decoder[_Body]) -> _Body | None:
    try:
        return decoder.decode(part)
    except _DECODE_ERRORS:
        return None


def _decode(frame: memoryview, expected: str, decoder: msgspec.msgpack.Decoder[Reply[_Body]]) -> Reply[_Body]:
    try:
        reply = decoder.decode(frame)
    except _DECODE_ERRORS as error:
        raise _refusal(frame, expected, error) from error
    if reply.request_type != expected:
        raise _refusal(frame, expected, None)
    return reply


def _refusal(frame: memoryview, expected: str, error: Exception | None) -> DataPlaneReadError:
    """Return the error for a reply that is not the expected one."""
    if frame.nbytes == len(_PICKLE_MARKER) and frame.tobytes() == _PICKLE_MARKER:
        return DataPlaneReadError(
            "unreadable partition: the reply is a pickle, which is never loaded; some tag holds a value that msgpack "
            "cannot express, for example an integer beyond 64 bits"
        )
    reason: object = error
    try:
        reply = _unread.decode(frame)
        if reply.request_type.endswith("_ERROR"):
            return DataPlaneReadError(f"{_short(reply.sender_id)} refused: {_short(_error.decode(reply.body).message)}")
        if reply.request_type != expected:
            reason = f"got {_short(reply.request_type)!r} in answer to a request for {expected!r}"
    except _DECODE_ERRORS as unreadable:
        reason = unreadable
    return _not_understood(reason)


def _short(text: str) -> str:
    """Return a peer's text, shortened for an error message, which is logged and kept."""
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…"


def _not_understood(reason: object) -> DataPlaneReadError:
    return DataPlaneReadError(
        f"reply not understood ({reason}); this reader is tested with TransferQueue {TESTED_VERSIONS}, "
        "another version may need the public client as reader"
    )
