"""The bytes of TransferQueue's request protocol: one msgpack frame each way. Pure, no I/O.

A request or reply is a map of ``request_type, sender_id, receiver_id, request_id, timestamp, body``. Tensors and
arrays inside a reply are msgpack extensions whose buffers follow as further frames; if msgpack cannot express a value,
the whole reply is a pickle behind a marker. Neither is ever loaded here: unpickling bytes from the network would be
unsafe.
Source: ``transfer_queue/utils/{zmq_utils,serial_utils}.py`` of the versions in :data:`TESTED_VERSIONS`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from dataplane.adapters.wire.limits import (
    DEFAULT_MAX_ROWS,
    MAX_ID,
    MAX_NAMES_BYTES,
    MAX_UNCHECKED_BYTES,
    ReplyLimitExceeded,
)
from dataplane.errors import DataPlaneReadError

__all__ = [
    "DECODE_ERRORS",
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
    "decode_reply",
    "encode_request",
    "not_understood",
]

TESTED_VERSIONS: Final = "0.1.8 to 0.1.11"

_PICKLE_MARKER: Final = b"\xc1\xfe\xed"
DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, ValueError)

_TENSOR: Final = 3  # the code of a tensor's msgpack extension

_MAX_QUOTED: Final = 500

_Body = TypeVar("_Body")


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


_encode = msgspec.msgpack.Encoder().encode
_partitions: msgspec.msgpack.Decoder[Reply[Any]] = msgspec.msgpack.Decoder(Reply[_Partitions])
_odd_partitions: msgspec.msgpack.Decoder[Reply[Any]] = msgspec.msgpack.Decoder(Reply[_OddPartitions])
_metrics = msgspec.msgpack.Decoder(Reply[MetricsBody])
_arrivals = msgspec.msgpack.Decoder(dict[str, _Count])
_op_stats = msgspec.msgpack.Decoder(dict[str, OperationStats])
_accept_queue = msgspec.msgpack.Decoder(AcceptQueue)
_consumption = msgspec.msgpack.Decoder(Reply[_Consumption])
_unread = msgspec.msgpack.Decoder(Reply[msgspec.Raw])
_error = msgspec.msgpack.Decoder(_Error)


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
    reply = decode_reply(frame, "LIST_PARTITIONS_RESPONSE", decoder)
    return Reply(reply.request_type, reply.sender_id, [name for name in reply.body.partition_ids if type(name) is str])


def decode_metrics(frame: memoryview) -> Reply[MetricsBody]:
    """Decode a storage unit's ``METRICS_RESPONSE``."""
    return decode_reply(frame, "METRICS_RESPONSE", _metrics)


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
    reply = decode_reply(frames[0], "CONSUMPTION_RESPONSE", _consumption)
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
        f"unreadable consumption: the reply is not a tensor as TransferQueue {TESTED_VERSIONS} sends it, and this "
        "reader never loads pickles"
    )


def _decode_part(part: msgspec.Raw, decoder: msgspec.msgpack.Decoder[_Body]) -> _Body | None:
    try:
        return decoder.decode(part)
    except DECODE_ERRORS:
        return None


def decode_reply(frame: memoryview, expected: str, decoder: msgspec.msgpack.Decoder[Reply[_Body]]) -> Reply[_Body]:
    """Decode the first frame of a reply of the *expected* type.

    Raises:
        DataPlaneReadError: The peer reported an error, or the reply is another one, a pickle, truncated or invalid.
    """
    try:
        reply = decoder.decode(frame)
    except DECODE_ERRORS as error:
        raise _refusal(frame, expected, error) from error
    if reply.request_type != expected:
        raise _refusal(frame, expected, None)
    return reply


def _refusal(frame: memoryview, expected: str, error: Exception | None) -> DataPlaneReadError:
    """Return the error for a reply that is not the expected one."""
    if frame.nbytes == len(_PICKLE_MARKER) and frame.tobytes() == _PICKLE_MARKER:
        return DataPlaneReadError(
            "unreadable partition: the reply is a pickle, and this reader never loads pickles. Some tag has a value "
            "that msgpack cannot express, for example an integer beyond 64 bits"
        )
    reason: object = error
    try:
        reply = _unread.decode(frame)
        if reply.request_type.endswith("_ERROR"):
            return DataPlaneReadError(f"{_short(reply.sender_id)} refused: {_short(_error.decode(reply.body).message)}")
        if reply.request_type != expected:
            reason = f"got {_short(reply.request_type)!r} in answer to a request for {expected!r}"
    except DECODE_ERRORS as unreadable:
        reason = unreadable
    return not_understood(reason)


def _short(text: str) -> str:
    """Return a peer's text, shortened for an error message, which is logged and kept."""
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…"


def not_understood(reason: object) -> DataPlaneReadError:
    """Return the error for bytes that are not as TransferQueue writes them."""
    return DataPlaneReadError(
        f"reply not understood ({reason}); this reader is tested with TransferQueue {TESTED_VERSIONS}, "
        "another version may need the public client as reader"
    )
