"""The rows of a listing: from the bytes of a ``KV_LIST_RESPONSE`` to keys, tags, and the bytes that each row takes."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, compress, count, islice, repeat
from operator import add, ne, sub
from typing import Any, Final, NamedTuple

import msgspec

from dataplane import conventions
from dataplane.adapters.wire.limits import DEFAULT_MAX_ROWS, MAX_TAG_BYTES, ReplyLimitExceeded
from dataplane.adapters.wire.protocol import DECODE_ERRORS, Reply, decode_reply, not_understood
from dataplane.errors import DataPlaneReadError
from dataplane.tags import NO_MAPPING, Tag, TagSchema

__all__ = ["Place", "Rows", "array_of", "decode_listing", "decode_rows", "find_rows", "read_envelope"]

_RESPONSE: Final = "KV_LIST_RESPONSE"


class Rows(NamedTuple):
    """Rows in listed order. Two of them may have the same key: the last one counts, in the place of the first.

    Attributes:
        keys: Their keys.
        tags: Their tags. Neighbours with equal bytes share one object.
        ends: Where each ends in their bytes, behind a zero for the first one's start; empty where that is not known.
    """

    keys: list[str]
    tags: list[Tag]
    ends: list[int]


class Place(NamedTuple):
    """Where the rows of a listing are: their map's header, the first row, and how many rows there are."""

    header: int
    first: int
    rows: int


class _UnreadPartitions(msgspec.Struct):
    partition_info: msgspec.Raw


class _UnreadRows(msgspec.Struct):
    partition_info: dict[str, dict[str, msgspec.Raw]]


_unread_partitions: msgspec.msgpack.Decoder[Reply[Any]] = msgspec.msgpack.Decoder(Reply[_UnreadPartitions])
_unread_rows: msgspec.msgpack.Decoder[Reply[Any]] = msgspec.msgpack.Decoder(Reply[_UnreadRows])
_raws = msgspec.msgpack.Decoder(list[msgspec.Raw])
_texts = msgspec.msgpack.Decoder(list[str])
_long_rows = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.msgpack.Decoder()
_encode = msgspec.msgpack.Encoder().encode


def decode_listing(
    frame: memoryview, partition_id: str, max_rows: int = DEFAULT_MAX_ROWS, schema: TagSchema | None = None
) -> Reply[Rows]:
    """Decode the rows of one partition; an unknown partition has none.

    The rows are counted before they take memory. Only the fields of *schema* are decoded, by default those that
    grouping reads: type-checked if the tag is well-formed, else unchecked.

    Raises:
        ReplyLimitExceeded: There are more than *max_rows*.
        DataPlaneReadError: The controller reported an error, or the reply cannot be read.
    """
    reply = decode_reply(frame, _RESPONSE, _unread_partitions)
    listed = memoryview(reply.body.partition_info)
    partitions, at = _map_header(listed, 0)
    if partitions > 1:
        raise DataPlaneReadError(f"the reply is about {partitions} partitions, one was asked for")
    rows, data = 0, array_of(0)
    if partitions:
        end = _after_string(listed, at)
        name = _text(listed[at:end])
        if name != partition_id:
            other = repr(name[:100])
            raise DataPlaneReadError(
                f"the reply is about the partition {other}, which is not the one that was asked for"
            )
        rows, at = _map_header(listed, end)
        if rows > max_rows:
            raise ReplyLimitExceeded(f"the partition has {rows} rows, the limit is {max_rows}", limit="rows")
        if rows > len(listed):
            raise not_understood("more rows than bytes")
        if len(listed) - at > _MAX_COPIED * (rows + 100):
            decoded = _decode_long(listed[end:], at - end, schema or conventions.schema())
            return Reply(reply.request_type, reply.sender_id, decoded)
        data = array_of(rows, listed[at:])
    return Reply(reply.request_type, reply.sender_id, decode_rows(data, schema or conventions.schema()))


# Rows that take more bytes than this on average are not copied: their keys may be all of it.
_MAX_COPIED: Final = 256


def _decode_long(rows: memoryview, first: int, schema: TagSchema) -> Rows:
    """Decode the map of some long rows, the first of which is at *first*, without a copy of them."""
    try:
        encoded = _long_rows.decode(rows)
    except DECODE_ERRORS as error:
        raise not_understood(error) from error
    decoders = _decoders_of(schema)
    sizes = map(add, map(len, map(_encode, encoded)), map(len, encoded.values()))
    ends = list(accumulate(sizes, initial=0))
    # More bytes than these have a key that is there twice, and one that is not written in the shortest way.
    exact = ends[-1] == rows.nbytes - first
    return Rows(list(encoded), [_tag(tag, schema, decoders) for tag in encoded.values()], ends if exact else [])


def array_of(rows: int, *parts: memoryview | bytes) -> bytes:
    """Return the bytes of that many *rows*, behind the header of a list of their keys and tags in turn."""
    return b"".join((b"\xdd", (2 * rows).to_bytes(4, "big"), *parts))


def decode_rows(data: bytes, schema: TagSchema) -> Rows:
    """Decode what :func:`array_of` returned.

    Tags with the same bytes as the one before are decoded once.

    Raises:
        DataPlaneReadError: It does not have exactly that many rows, or a key is no text.
    """
    try:
        raws = _raws.decode(data)
        lengths = list(map(len, raws))
        keys = _texts.decode(_array(raws[::2]))
    except (*DECODE_ERRORS, OverflowError) as error:
        raise not_understood(error) from error
    ends = list(accumulate(map(add, lengths[::2], lengths[1::2]), initial=0))
    encoded = raws[1::2]
    del raws, lengths
    heads = [0, *compress(count(1), map(ne, encoded, islice(encoded, 1, None)))] if encoded else []
    tags = _tags(encoded if len(heads) == len(encoded) else [encoded[at] for at in heads], schema)
    if len(heads) < len(encoded):
        runs = map(sub, chain(islice(heads, 1, None), (len(encoded),)), heads)
        tags = list(chain.from_iterable(map(repeat, tags, runs)))
    return Rows(keys, tags, ends)


def find_rows(frame: memoryview, partition_id: str) -> Place | None:
    """Return where the rows are, without a look at them; None if the reply is not as TransferQueue writes it."""
    try:
        at = _value_of(frame, _value_of(frame, 0, "body"), "partition_info")
        partitions, at = _map_header(frame, at)
        header = _after_string(frame, at)
        if partitions != 1 or frame[at:header] != _encode(partition_id):
            return None
        rows, first = _map_header(frame, header)
    except DataPlaneReadError:
        return None
    return Place(header, first, rows)


def read_envelope(frame: memoryview, place: Place, end: int, partition_id: str) -> Reply[None] | None:
    """Return the reply around the rows, if they end at *end*; None if no listing of that partition remains.

    A row that nobody can foresee takes the place of the rows: what remains must be a listing of this row alone.
    """
    marker = os.urandom(8).hex()
    rest = b"".join((frame[: place.header], b"\x81", _encode(marker), b"\xc0", frame[end:]))
    try:
        reply = _unread_rows.decode(rest)
    except DECODE_ERRORS:
        return None
    found = {name: list(rows) for name, rows in reply.body.partition_info.items()}
    if reply.request_type != _RESPONSE or found != {partition_id: [marker]}:
        return None
    return Reply(reply.request_type, reply.sender_id, None)


# Tags


class _TagDecoders(NamedTuple):
    """The decoders of tags into the structs of a schema."""

    all_checked: msgspec.msgpack.Decoder[list[Any]]
    checked: msgspec.msgpack.Decoder[Any]
    loose: msgspec.msgpack.Decoder[Any]


@functools.lru_cache(maxsize=4)
def _decoders_of(schema: TagSchema) -> _TagDecoders:
    many: Any = list[schema.checked]  # type: ignore[name-defined]
    return _TagDecoders(
        msgspec.msgpack.Decoder(many), msgspec.msgpack.Decoder(schema.checked), msgspec.msgpack.Decoder(schema.loose)
    )


_CHUNK: Final = 64


def _tags(encoded: Sequence[msgspec.Raw], schema: TagSchema) -> list[Tag]:
    """Decode tags: all at once, or by chunks and one by one where some are not well-formed."""
    decoders = _decoders_of(schema)
    try:
        return decoders.all_checked.decode(_array(encoded))
    except DECODE_ERRORS:
        if len(encoded) <= _CHUNK:
            return [_tag(tag, schema, decoders) for tag in encoded]
    chunks = (encoded[at : at + _CHUNK] for at in range(0, len(encoded), _CHUNK))
    return list(chain.from_iterable(_tags(chunk, schema) for chunk in chunks))


def _tag(encoded: msgspec.Raw, schema: TagSchema, decoders: _TagDecoders) -> Tag:
    try:
        tag: Tag = decoders.checked.decode(encoded)
        return tag
    except DECODE_ERRORS:
        pass
    if len(encoded) > MAX_TAG_BYTES:
        return NO_MAPPING
    for decoder in (decoders.loose, _anything):
        try:
            return _without_containers(schema.read(decoder.decode(encoded)))
        except DECODE_ERRORS:
            continue
    return NO_MAPPING


_CONTAINER: Final = msgspec.msgpack.Ext(0, b"")


def _without_containers(tag: Tag) -> Tag:
    """Return *tag* with lists and maps replaced: no field has such a type, and they take much memory."""
    values = msgspec.structs.asdict(tag)
    found = {name: _CONTAINER for name, value in values.items() if type(value) in (list, dict)}
    return msgspec.structs.replace(tag, **found) if found else tag


# Only the part of the msgpack format that is needed to find the rows and their number:
# https://github.com/msgpack/msgpack/blob/master/spec.md


def _array(values: Sequence[Any] | Iterable[Any]) -> bytes:
    values = list(values)
    return b"".join((b"\xdd", len(values).to_bytes(4, "big"), *values))


def _map_header(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number of entries of the map at *at*, and where they begin."""
    view = data[at : at + 5]
    kind = view[0] if view else 0
    if kind & 0xF0 == 0x80:
        return kind & 0x0F, at + 1
    width = {0xDE: 2, 0xDF: 4}.get(kind)
    if width is None:
        raise not_understood("the rows are not a map")
    return int.from_bytes(view[1 : 1 + width], "big"), at + 1 + width


def _after_string(data: memoryview, at: int) -> int:
    """Return where the string at *at* ends."""
    view = data[at : at + 5]
    kind = view[0] if view else 0
    if kind & 0xE0 == 0xA0:
        return at + 1 + (kind & 0x1F)
    width = {0xD9: 1, 0xDA: 2, 0xDB: 4}.get(kind)
    if width is None:
        raise not_understood("a name is not a string")
    return at + 1 + width + int.from_bytes(view[1 : 1 + width], "big")


def _text(data: memoryview) -> str:
    try:
        text: str = msgspec.msgpack.decode(data, type=str)
        return text
    except DECODE_ERRORS as error:
        raise not_understood(error) from error


# The bytes of a plain value by its first byte: nil, booleans, numbers.
_WIDTHS: Final = {
    **dict.fromkeys((*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3), 1),
    **dict.fromkeys((0xCC, 0xD0), 2),
    **dict.fromkeys((0xCD, 0xD1), 3),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 5),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 9),
}


def _value_of(data: memoryview, at: int, name: str) -> int:
    """Return where the value of *name* begins in the map at *at*, before which there are only plain values."""
    wanted = _encode(name)
    entries, at = _map_header(data, at)
    for _ in range(min(entries, 100)):
        end = _after_string(data, at)
        if data[at:end] == wanted:
            return end
        width = _WIDTHS.get(data[end]) if end < len(data) else None
        at = _after_string(data, end) if width is None else end + width
    raise not_understood(f"there is no {name}")
