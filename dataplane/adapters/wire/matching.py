"""Finds the spans of an earlier listing in the bytes of a later one. Pure, no I/O.

The controller lists a partition in insertion order, so a later listing is the earlier one with spans gone, some
rewritten, and new rows at its end. A match is always byte for byte. Where a span may be found again is guessed from
the bytes of its first key: a bad guess only leaves more to decode.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["Match", "match_spans"]

# How far a search looks beyond the place where a span was before: rows that were rewritten may be longer.
_SLACK = 4096


class Match(NamedTuple):
    """The spans ``first`` to ``last - 1`` of the earlier listing are at the byte ``at`` of the later one."""

    first: int
    last: int
    at: int


def match_spans(old: bytes, starts: Sequence[int], new: memoryview, at: int, end: int) -> list[Match]:
    """Return what is the same, in order.

    Args:
        old: The earlier listing.
        starts: Where each of its spans starts, and where the last one ends.
        new: The later listing.
        at: Where its rows start.
        end: Where they end.
    """
    return list(_Search(old, starts, new, end).matches(at))


class _Search:
    """Bounded, so that it takes a time in proportion to the bytes: ``left`` is how many of them may still be searched.

    It gives up once more than half of the later listing matches nothing.
    """

    def __init__(self, old: bytes, starts: Sequence[int], new: memoryview, end: int) -> None:
        self.old, self.starts, self.new, self.end = old, starts, new, end
        self.spans = len(starts) - 1
        self.left = len(old) + len(new)

    def matches(self, at: int) -> Iterator[Match]:
        span, unmatched, bearable = 0, 0, (self.end - at) // 2
        while span < self.spans and at < self.end and unmatched <= bearable:
            last = self._equal_until(span, at)
            if last > span:
                yield Match(span, last, at)
                at += self.starts[last] - self.starts[span]
                span = last
                continue
            found = self._next(span, at)
            if found is None:
                return
            unmatched += found[1] - at
            span, at = found

    def _equal_until(self, span: int, at: int) -> int:
        """Return the first span from *span* on that is not at its place, if *span* is at *at*."""
        old, starts, new = self.old, self.starts, self.new
        shift = at - starts[span]
        limit = bisect_right(starts, self.end - shift) - 1
        step, grows = 1, True
        while span < limit:
            last = min(span + step, limit)
            if old.startswith(new[starts[span] + shift : starts[last] + shift], starts[span]):
                span = last
                step = 2 * step if grows else max(step // 2, 1)
            elif step == 1:
                break
            else:
                step, grows = step // 2, False
        return span

    def _next(self, span: int, at: int) -> tuple[int, int] | None:
        """Return a later span and a place where it may be, given that *span* is not at *at*; None to give up."""
        old, starts = self.old, self.starts
        key = _key(self.new, at)
        moved = key != _key(old, starts[span])
        if moved and key:
            # Are the spans before it gone?
            found = self._find(old, key, starts[span] + 1, len(old))
            if found >= 0:
                later = bisect_right(starts, found) - 1
                if starts[later] == found:
                    return later, at
                span = later
        # Rows were rewritten or inserted here: which one of the next spans comes after them, and where?
        ahead = 0 if moved else 1
        while span + ahead < self.spans:
            later = span + ahead
            sought = _key(old, starts[later])
            distance = starts[later + 1] - starts[span] + _SLACK
            found = self._find(bytes(self.new[at + 1 : min(at + distance, self.end)]), sought, 0, distance)
            if sought and found >= 0:
                return later, at + 1 + found
            if self.left <= 0:
                return None
            ahead = 2 * ahead if ahead else 1
        return None

    def _find(self, where: bytes, what: bytes, start: int, stop: int) -> int:
        stop = min(stop, start + max(self.left, 0))
        found = where.find(what, start, stop)
        self.left -= (found if found >= 0 else stop) - start
        return found


def _key(data: bytes | memoryview, at: int) -> bytes:
    """Return the bytes of the key at *at*, nothing if it is no text of fewer than 256 bytes."""
    head = data[at : at + 2]
    if len(head) < 2:
        return b""
    if head[0] & 0xE0 == 0xA0:
        return bytes(data[at : at + 1 + (head[0] & 0x1F)])
    return bytes(data[at : at + 2 + head[1]]) if head[0] == 0xD9 else b""
