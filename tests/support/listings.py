"""Listings as bytes, also in ways of writing them that TransferQueue does not use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from tests.support.fake_router import reply

__all__ = ["WIDTHS", "listing", "raw_listing"]

_encode = msgspec.msgpack.Encoder().encode

WIDTHS: Final = (0, 1, 2, 4)
"""Bytes of a string's length; 0 for as few as possible."""


def listing(
    rows: Iterable[tuple[str, Any]],
    partition_id: str = "p",
    *,
    message: str = "success",
    key_width: int = 0,
    map_width: int = 0,
) -> bytes:
    """Return the reply with *rows*, which may have a key twice. A tag may be ``msgspec.Raw``.

    Args:
        rows: Keys and tags.
        partition_id: The partition.
        message: A text after the rows.
        key_width: How the lengths of keys are written, one of :data:`WIDTHS`.
        map_width: How the number of rows is written: 2 or 4 bytes, 0 for as few as possible.
    """
    encoded = [_key(key, key_width) + _encode(tag) for key, tag in rows]
    return raw_listing(len(encoded), b"".join(encoded), partition_id, message=message, map_width=map_width)


def raw_listing(
    count: int, rows: bytes, partition_id: str = "p", *, message: str = "success", map_width: int = 0
) -> bytes:
    """Return a reply that says that its *rows*, which are bytes already, are *count* rows. See :func:`listing`."""
    if map_width == 4 or count >= 2**16:
        header = b"\xdf" + count.to_bytes(4, "big")
    elif map_width == 2 or count >= 16:
        header = b"\xde" + count.to_bytes(2, "big")
    else:
        header = bytes([0x80 | count])
    found = msgspec.Raw(header + rows)
    return reply("KV_LIST_RESPONSE", {"partition_info": {partition_id: found}, "message": message})[0]


def _key(key: str, width: int) -> bytes:
    text = key.encode()
    if width == 0 or len(text) >= 256**width:
        return _encode(key)
    return bytes([{1: 0xD9, 2: 0xDA, 4: 0xDB}[width]]) + len(text).to_bytes(width, "big") + text
