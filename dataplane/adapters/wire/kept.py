"""What is kept of a partition's listing, so that the next one costs what changed.

Kept are the reply, and for each span (a run of neighbouring rows of one group) its size, its number of rows
and its group. The next reply is compared with them. Only rows that are not the same byte for byte are decoded, and with
them the other rows of their groups; all other groups stay the same objects.

That is right because a group depends on its own rows alone, once the convention, and what the partition's memory says,
are what they were. Whatever is not certain, a second row with the same key for example, ends in decoding all rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, compress
from operator import attrgetter
from typing import Final, NamedTuple

from dataplane.adapters.wire.matching import Match, match_spans
from dataplane.adapters.wire.protocol import Reply
from dataplane.adapters.wire.rows import Rows, array_of, decode_rows, find_rows, read_envelope
from dataplane.adapters.wire.spans import Gap, Keys, Owner, Spans, distinct, listed, make_spans
from dataplane.conventions import Account, Convention, Memory
from dataplane.errors import DataPlaneReadError
from dataplane.groups import Change, Grouped, Listing
from dataplane.parts import Parts
from dataplane.tags import Tag, TagSchema

__all__ = ["Followed", "Kept", "keep"]

_MAX_BYTES: Final = 2**32 - 1  # sizes have 32 bits

# A frame up to this size may be a part of ZeroMQ's receive buffer, which would be kept with it.
_RECEIVE_BUFFER: Final = 8192

_Group = Callable[[Sequence[str], Sequence[Tag]], Grouped]


class Followed(NamedTuple):
    """A later reply, compared with what is kept.

    Attributes:
        frame: The reply.
        first: Its first row.
        end: The end of its last row.
        number: How many rows.
        matches: What is the same: spans of the kept listing, and where they are in *frame*.
        rows: All other rows.
        gaps: Where those are in *frame*.
    """

    frame: memoryview
    first: int
    end: int
    number: int
    matches: list[Match]
    rows: Rows
    gaps: list[Gap]


@dataclass(slots=True, eq=False)
class Kept:
    """What is kept of one listing.

    Attributes:
        encoded: The bytes of its rows.
        count: How many rows.
        trailer: How many bytes followed them in the reply.
        spans: Its spans.
        keys: Its keys.
        listing: The listing.
        convention: The convention by which its rows were read.
        account: The function that accounted for them.
        schema: The fields that were decoded.
        memory: What the partition's listings have shown.
    """

    encoded: memoryview
    count: int
    trailer: int
    spans: Spans
    keys: Keys
    listing: Listing
    convention: Convention
    account: Account
    schema: TagSchema
    memory: Memory
    _starts: list[int] = field(default_factory=list, init=False)

    def prepare(self) -> None:
        """Do what the next comparison can do before the reply is there, so while the controller works on it."""
        self._starts = list(accumulate(self.spans.sizes, initial=0))

    def follow(self, frame: memoryview, partition_id: str, max_rows: int) -> Reply[Followed] | None:
        """Compare a later reply with this listing; None if it must be decoded as a whole."""
        place = find_rows(frame, partition_id)
        if place is None or place.rows > max_rows:
            return None
        end = frame.nbytes - self.trailer
        if end < place.first or (envelope := read_envelope(frame, place, end, partition_id)) is None:
            return None
        found = self._compare(frame, place.first, end, place.rows)
        return None if found is None else Reply(envelope.request_type, envelope.sender_id, found)

    def _compare(self, frame: memoryview, first: int, end: int, number: int) -> Followed | None:
        if not self._starts:
            self.prepare()
        starts, self._starts = self._starts, []
        matches = match_spans(self.encoded, starts, frame, first, end)
        gaps = list(_between([(one.at, one.at + starts[one.last] - starts[one.first]) for one in matches], first, end))
        if 2 * sum(stop - start for start, stop in gaps) > end - first:
            return None
        left = number - self.count + sum(sum(self.spans.counts[first:last]) for first, last in self._unmatched(matches))
        if left < 0 or (left == 0) != (not gaps):
            return None
        try:
            rows = decode_rows(array_of(left, *(frame[start:stop] for start, stop in gaps)), self.schema)
        except DataPlaneReadError:
            return None
        # What matches is whole rows. If each gap is too, and their number is right, so is the whole.
        counted = _rows_in(gaps, rows.ends)
        if counted is None or len(rows.keys) != left:
            return None
        where = [Gap(start, stop, rows) for (start, stop), rows in zip(gaps, counted, strict=True)]
        return Followed(frame, first, end, number, matches, rows, where)

    def take(self, followed: Followed, group: _Group) -> tuple[Kept, Change] | None:
        """Return what is kept of a later listing, and what changed; None to group all of its rows.

        This one must not be used any more. *group* groups rows.
        """
        if not followed.gaps and sum(last - first for first, last, _ in followed.matches) == len(self.spans.owners):
            return self, Change(self.listing.token, (), ())
        rows, gaps, matches = followed.rows, followed.gaps, followed.matches
        grouped = group(rows.keys, rows.tags)
        gone = self._gone(matches)
        touched = self._touched(matches, gone, grouped.parts)
        if touched:
            # Groups that changed have other rows elsewhere: those are grouped again, together with the changed ones.
            matches, gaps = self._widen(followed, touched)
            left = sum(gap.rows for gap in gaps)
            rows = decode_rows(array_of(left, *(followed.frame[gap.at : gap.stop] for gap in gaps)), self.schema)
            grouped = group(rows.keys, rows.tags)
            gone = self._gone(matches)
        if grouped.convention is not self.convention or grouped.account != self.account:
            return None
        spans = make_spans(grouped, rows, gaps)
        self.keys.remove(gone)
        if len(set(rows.keys)) < len(rows.keys) or not self.keys.add(distinct(spans.owners)):
            return None
        change = Change(self.listing.token, list(listed(gone)), list(grouped.listing))
        return self._with(followed, matches, gaps, spans), change

    def _gone(self, matches: Sequence[Match]) -> list[Owner]:
        """Return the groups of the spans that do not match."""
        return distinct([owner for first, last in self._unmatched(matches) for owner in self.spans.owners[first:last]])

    def _unmatched(self, matches: Sequence[Match]) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the spans that do not match."""
        return _between([(first, last) for first, last, _ in matches], 0, len(self.spans.owners))

    def _touched(self, matches: Sequence[Match], gone: Sequence[Owner], parts: Parts) -> set[int]:
        """Return the groups, by identity, of which some rows changed and others did not."""
        changed = set(map(id, gone))
        touched = set(map(id, self.keys.of_ids(parts.ids)))
        if not self.spans.several:
            return touched - changed
        owners = chain.from_iterable(self.spans.owners[first:last] for first, last, _ in matches)
        return (touched | changed).intersection(map(id, owners))

    def _widen(self, followed: Followed, touched: set[int]) -> tuple[list[Match], list[Gap]]:
        """Return what still matches, and what else is decoded, once all rows of the groups *touched* are."""
        sizes, counts, owners = self.spans[:3]
        matches: list[Match] = []
        gaps: list[Gap] = []

        def widen(gap: Gap) -> None:
            if gaps and gaps[-1].stop == gap.at:
                gap = Gap(gaps[-1].at, gap.stop, gaps.pop().rows + gap.rows)
            gaps.append(gap)

        for piece in _in_order(followed.matches, followed.gaps):
            if isinstance(piece, Gap):
                widen(piece)
                continue
            first, last, at = piece
            for span in compress(range(first, last), map(touched.__contains__, map(id, owners[first:last]))):
                if span > first:
                    matches.append(Match(first, span, at))
                    at += sum(sizes[first:span])
                widen(Gap(at, at + sizes[span], counts[span]))
                at += sizes[span]
                first = span + 1
            if last > first:
                matches.append(Match(first, last, at))
        return matches, gaps

    def _with(self, followed: Followed, matches: Sequence[Match], gaps: Sequence[Gap], changed: Spans) -> Kept:
        """Return what is kept of the later listing. *changed* are the spans of *gaps*."""
        several, left_out = self.spans.several or changed.several, self.spans.left_out or changed.left_out
        spans = self.spans._replace(several=several, left_out=left_out)
        # The spans between two matches give way to those of the gap between them.
        ends = list(accumulate(changed.counts, initial=0))
        edits: list[tuple[int, int, int, int]] = []
        row = span = at = number = 0
        for first, last, place in (*matches, Match(len(spans.owners), 0, followed.end)):
            start = at
            if number < len(gaps) and gaps[number].at < place:
                row += gaps[number].rows
                at = bisect_left(ends, row)
                number += 1
            edits.append((span, first, start, at))
            span = last
        for edit in reversed(edits):
            spans.replace(changed, *edit)
        listing = Listing(
            spans.groups(),
            convention=self.convention.name,
            rows=followed.number,
            stated_version=spans.stated_version(),
            token=object(),
        )
        encoded = _to_keep(followed.frame, followed.first, followed.end)
        return replace(self, encoded=encoded, count=followed.number, spans=spans, listing=listing)


def keep(
    frame: memoryview, partition_id: str, rows: Rows, grouped: Grouped, schema: TagSchema, memory: Memory
) -> Kept | None:
    """Return what is kept of a listing that was decoded as a whole.

    None if it is too long, or if the reply is not as TransferQueue writes it.

    Args:
        frame: The reply.
        partition_id: The partition that it lists.
        rows: All of its rows, no two of which have the same key.
        grouped: Their groups.
        schema: The fields that were decoded.
        memory: What the partition's listings have shown.
    """
    place = find_rows(frame, partition_id)
    if place is None or len(rows.ends) != place.rows + 1:
        return None
    end = place.first + rows.ends[-1]
    if end - place.first > _MAX_BYTES or read_envelope(frame, place, end, partition_id) is None:
        return None
    spans = make_spans(grouped, rows)
    listing = grouped.listing
    listing.token = object()
    return Kept(
        _to_keep(frame, place.first, end),
        place.rows,
        frame.nbytes - end,
        spans,
        Keys(distinct(spans.owners)),
        listing,
        grouped.convention,
        grouped.account,
        schema,
        memory,
    )


def _in_order(matches: Sequence[Match], gaps: Sequence[Gap]) -> list[Match | Gap]:
    """Return the pieces of the later listing in the order in which they are there."""
    return sorted([*matches, *gaps], key=attrgetter("at"))


def _to_keep(frame: memoryview, first: int, end: int) -> memoryview:
    rows = frame[first:end]
    return rows if frame.nbytes > _RECEIVE_BUFFER else memoryview(bytes(rows))


def _between(taken: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield what is left of a range besides the ranges *taken*, which are in order."""
    for first, last in taken:
        if first > start:
            yield start, first
        start = last
    if end > start:
        yield start, end


def _rows_in(gaps: Sequence[tuple[int, int]], ends: Sequence[int]) -> list[int] | None:
    """Return how many rows each gap has, given where all of them end in turn; None if a row goes beyond its gap."""
    counted: list[int] = []
    at = row = 0
    for start, stop in gaps:
        at += stop - start
        last = bisect_left(ends, at)
        if last == len(ends) or ends[last] != at:
            return None
        counted.append(last - row)
        row = last
    return counted if row == len(ends) - 1 else None
