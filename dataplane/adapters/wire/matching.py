"""Finds the spans of an earlier listing in the bytes of a later one. Pure, no I/O.

The controller lists a partition in insertion order, so a later listing is the earlier one with spans gone, some
rewritten, and new rows at its end. A match is always byte for byte. Where a span may be found again is guessed from
the bytes of its first key: a bad guess only leaves more to decode.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Raw

__all__ = ["Match", "match_spans"]

# How far a search looks beyond the place where a span was before: rows that were rewritten may be longer.
_SLACK = 4096

# How many spans are compared first. In a steady run more than this many follow one another without a change.
_FIRST_STEP = 32

# What is copied first to be searched. A key is shorter.
_BLOCK = 2**16


class Match(NamedTuple):
    """The spans ``first`` to ``last - 1`` of the earlier listing are at the byte ``at`` of the later one."""

    first: int
    last: int
    at: int


def match_spans(old: memoryview, starts: Sequence[int], new: memoryview, at: int, end: int) -> list[Match]:
    """Return what is the same, in order.

    Args:
        old: The rows of the earlier listing.
        starts: Where each of its spans starts in *old*, and where the last one ends.
        new: The later listing.
        at: Where its rows start.
        end: Where they end.
    """
    return list(_Search(old, starts, new, end).matches(at))


class _Search:
    """Bounded, so that it takes a time in proportion to the bytes: ``left`` is how many of them may still be searched.

    It gives up once more than half of the later listing matches nothing.
    """

    def __init__(self, old: memoryview, starts: Sequence[int], new: memoryview, end: int) -> None:
        self.old, self.starts, self.new, self.end = old, starts, new, end
        self.spans = len(starts) - 1
        self.left = starts[-1] + len(new)

    def matches(self, at: int) -> Iterator[Match]:
        span, unmatched, bearable = 0, 0, (self.end - at) // 2
        while span < self.spans and at < self.end and unmatched <= bearable:
            last = self._equal_until(span, at)
            if last > span:
                yield Match(span, last, at)
                at += self.starts[last] - self.starts[span]
                span = last
                if span == self.spans or at == self.end:
                    return
            found = self._next(span, at)
            if found is None:
                return
            unmatched += found[1] - at
            span, at = found

    def _equal_until(self, span: int, at: int) -> int:
        """Return the first span from *span* on that is not at its place, if *span* is at *at*."""
        starts, old, new = self.starts, self.old, self.new
        moved = at - starts[span]
        limit = bisect_right(starts, self.end - moved) - 1
        step, grows = _FIRST_STEP, True
        while span < limit:
            last = min(span + step, limit)
            start, stop = starts[span], starts[last]
            # Of all comparisons of two buffers only this one is fast and copies neither.
            if Raw(old[start:stop]) == Raw(new[start + moved : stop + moved]):
                span = last
                step = 2 * step if grows else max(step // 2, 1)
            elif last - span == 1:
                break
            else:
                step, grows = (last - span) // 2, False
        return span

    def _next(self, span: int, at: int) -> tuple[int, int] | None:
        """Return a later span and a place where it may be, given that *span* is not at *at*; None to give up."""
        starts = self.starts
        # Were its rows rewritten and kept their size?
        later = span + 1
        after = at + starts[later] - starts[span]
        if later < self.spans and (sought := self._key_of(later)) and self.new[after : after + len(sought)] == sought:
            return later, after
        key = _key(self.new, at)
        moved = key != self._key_of(span)
        if moved and key:
            # Are the spans before it gone?
            found = self._find(key, span)
            if found >= 0:
                later = bisect_right(starts, found) - 1
                if starts[later] == found:
                    return later, at
                span = later
        # Rows were rewritten or inserted here: which one of the next spans comes after them, and where?
        ahead = 0 if moved else 1
        while span + ahead < self.spans and self.left > 0:
            later = span + ahead
            sought = self._key_of(later)
            distance = starts[later + 1] - starts[span] + _SLACK
            found = bytes(self.new[at + 1 : min(at + distance, self.end)]).find(sought)
            self.left -= distance if found < 0 else found
            if sought and found >= 0:
                return later, at + 1 + found
            ahead = 2 * ahead if ahead else 1
        return None

    def _find(self, what: bytes, span: int) -> int:
        """Return where in the earlier listing *what* is, after the start of *span*; -1 if it is not there."""
        start = self.starts[span] + 1
        stop = min(self.starts[-1], start + self.left)
        size = _BLOCK
        while start < stop:
            block = bytes(self.old[start : min(start + size, stop)])
            found = block.find(what)
            self.left -= len(block) if found < 0 else found
            if found >= 0:
                return start + found
            start += max(len(block) - len(what) + 1, 1)
            size *= 2
        return -1

    def _key_of(self, span: int) -> bytes:
        return _key(self.old, self.starts[span])


def _key(data: memoryview, at: int) -> bytes:
    """Return the bytes of the key at *at*, nothing if it is no text of fewer than 256 bytes."""
    head = data[at : at + 2]
    if len(head) < 2:
        return b""
    if head[0] & 0xE0 == 0xA0:
        return bytes(data[at : at + 1 + (head[0] & 0x1F)])
    return bytes(data[at : at + 2 + head[1]]) if head[0] == 0xD9 else b""
