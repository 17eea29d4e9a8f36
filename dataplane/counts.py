"""What a client publishes of its own calls: how many keys it has put into each partition and cleared from it.

One row per client in the reserved partition, ``counts:<client>``, with one tag: a line of JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["COUNTS_PREFIX", "COUNTS_TAG", "MAX_COUNTED", "Moved", "decode_counts", "encode_counts"]

COUNTS_PREFIX: Final = "counts:"
COUNTS_TAG: Final = "client_counts"
MAX_COUNTED: Final = 16
"""How many partitions a client tells about: those with most keys moved."""

_MAX_TEXT: Final = 8192

Moved = tuple[int, int]
"""Keys put and keys cleared, since the client was made."""


class _Line(msgspec.Struct, array_like=True):
    at: float
    counts: dict[str, Moved]


def encode_counts(at: float, counts: Mapping[str, Moved]) -> str:
    """Return the tag's text. *at*: now, in seconds since the epoch; it differs from that of the write before."""
    most = sorted(counts, key=lambda name: -sum(counts[name]))[:MAX_COUNTED]
    return msgspec.json.encode(_Line(at, {name: counts[name] for name in most})).decode()


def decode_counts(text: object) -> tuple[float, dict[str, Moved]] | None:
    """Return what :func:`encode_counts` was given, None when *text* is not of it."""
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        return None
    try:
        line = msgspec.json.decode(text, type=_Line)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
    if len(line.counts) > MAX_COUNTED or any(min(moved) < 0 or max(moved) >= 2**53 for moved in line.counts.values()):
        return None
    return line.at, line.counts
