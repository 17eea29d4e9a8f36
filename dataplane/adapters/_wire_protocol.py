"""The bytes of TransferQueue's request protocol: one msgpack frame each way. Pure, no I/O.

A request or reply is a map of ``request_type, sender_id, receiver_id, request_id, timestamp, body``. Tensors and
arrays inside a reply are msgpack extensions whose buffers follow as further frames; what msgpack cannot express
turns the whole reply into a pickle behind a marker. Neither is ever loaded here: bytes from the network are data.
Source: ``transfer_queue/utils/{zmq_utils,serial_utils}.py`` of the versions in :data:`TESTED_VERSIONS`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from dataplane.errors import DataPlaneReadError
from dataplane.tags import LooseTagFields, TagFields

__all__ = [
    "TESTED_VERSIONS",
    "ListPartitionsBody",
    "MetricsBody",
    "Reply",
    "decode_body",
    "decode_reply",
    "decode_rows",
    "encode_request",
]

TESTED_VERSIONS: Final = "0.1.8 to 0.1.11"

_PICKLE_MARKER: Final = b"\xc1\xfe\xed"
_DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, ValueError)

_Body = TypeVar("_Body")


class Reply(msgspec.Struct):
    """A reply whose body is not decoded yet."""

    request_type: str
    sender_id: str
    body: msgspec.Raw


class ListPartitionsBody(msgspec.Struct):
    """Body of ``LIST_PARTITIONS_RESPONSE``."""

    partition_ids: list[str]


class MetricsBody(msgspec.Struct):
    """Body of a storage unit's ``METRICS_RESPONSE``, as far as it is used. Capacity None is unlimited."""

    active_keys: int
    capacity: int | None = None
    process_rss_bytes: int = 0


class _ErrorBody(msgspec.Struct):
    message: str = "no reason given"


class _Rows(msgspec.Struct):
    partition_info: dict[str, dict[str, TagFields]]


class _LooseRows(msgspec.Struct):
    partition_info: dict[str, dict[str, LooseTagFields]]


class _RawRows(msgspec.Struct):
    partition_info: dict[str, dict[str, msgspec.Raw]]


_encode = msgspec.msgpack.Encoder().encode
_reply = msgspec.msgpack.Decoder(Reply)
_rows = msgspec.msgpack.Decoder(_Rows)
_loose_rows = msgspec.msgpack.Decoder(_LooseRows)
_raw_rows = msgspec.msgpack.Decoder(_RawRows)
_loose_tag = msgspec.msgpack.Decoder(LooseTagFields)
_anything = msgspec.msgpack.Decoder()


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


def decode_reply(frame: memoryview, expected: str) -> Reply:
    """Decode the first frame of a reply as far as its body.

    Args:
        frame: The bytes.
        expected: The ``request_type`` that the reply must have.

    Raises:
        DataPlaneReadError: The peer reported an error, or the reply is a pickle, cut short or not understood.
    """
    if frame.nbytes == len(_PICKLE_MARKER) and frame.tobytes() == _PICKLE_MARKER:
        raise DataPlaneReadError(
            "unreadable partition: the reply is a pickle, which is never loaded; some tag holds a value that msgpack "
            "cannot express, for example an integer beyond 64 bits"
        )
    try:
        reply = _reply.decode(frame)
    except _DECODE_ERRORS as error:
        raise _not_understood(error) from error
    if reply.request_type != expected:
        if reply.request_type.endswith("_ERROR"):
            raise DataPlaneReadError(f"{reply.sender_id} refused: {decode_body(reply, _ErrorBody).message}")
        raise _not_understood(f"got {reply.request_type!r} in answer to a request for {expected!r}")
    return reply


def decode_body(reply: Reply, body_type: type[_Body]) -> _Body:
    """Decode the body of *reply*.

    Raises:
        DataPlaneReadError: It is not a *body_type*.
    """
    try:
        return msgspec.msgpack.decode(reply.body, type=body_type)
    except _DECODE_ERRORS as error:
        raise _not_understood(error) from error


def decode_rows(reply: Reply, partition_id: str) -> Mapping[str, object]:
    """Decode the rows of one partition from a ``KV_LIST_RESPONSE``; an unknown partition has none.

    All tags at once, straight into the fields that grouping reads: as well-formed ones if they all are, else
    unchecked. When one tag is no map with string keys, row by row: that row comes as whatever it is.

    Raises:
        DataPlaneReadError: The body is not a listing.
    """
    for decoder in (_rows, _loose_rows):
        try:
            return decoder.decode(reply.body).partition_info.get(partition_id, {})
        except _DECODE_ERRORS:
            continue
    try:
        rows = _raw_rows.decode(reply.body).partition_info.get(partition_id, {})
    except _DECODE_ERRORS as error:
        raise _not_understood(error) from error
    return {key: _decode_tag(tag) for key, tag in rows.items()}


def _decode_tag(tag: msgspec.Raw) -> object:
    for decoder in (_loose_tag, _anything):
        try:
            return decoder.decode(tag)
        except _DECODE_ERRORS:
            continue
    return None  # No mapping, so grouping counts it as malformed.


def _not_understood(reason: object) -> DataPlaneReadError:
    return DataPlaneReadError(
        f"reply not understood ({reason}); this reader is tested with TransferQueue {TESTED_VERSIONS}, "
        "another version may need the public client as reader"
    )
