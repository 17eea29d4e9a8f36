"""The spans of a listing that is kept, the groups that they belong to, and the keys of those. Pure, no I/O."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import attrgetter
from typing import Final, NamedTuple, cast

from dataplane.adapters.wire.rows import Rows
from dataplane.conventions import Convention
from dataplane.groups import DataPlaneGroupMeta, Grouped
from dataplane.parts import spans_of

__all__ = ["Gap", "Keys", "LeftOut", "Owner", "Spans", "distinct", "listed", "make_spans"]


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """Rows that are in no listed group: a group that is left out, or rows that belong to none (id None)."""

    group_id: str | None
    keys: list[str]


Owner = DataPlaneGroupMeta | LeftOut


class Gap(NamedTuple):
    """A number of rows of the later listing, from the byte ``at`` to the byte ``stop``."""

    at: int
    stop: int
    rows: int


_NONE: Final = float("-inf")


class Spans(NamedTuple):
    """The spans of a listing.

    Attributes:
        sizes: The bytes of each.
        counts: The rows of each.
        owners: The group of each.
        stated: The version that the rows of each state, -inf for none; empty if their convention states none.
        several: Whether a group may have several spans.
        left_out: Whether some may be in no listed group.
    """

    sizes: array[int]
    counts: array[int]
    owners: list[Owner]
    stated: list[float]
    several: bool
    left_out: bool

    def replace(self, other: Spans, first: int, last: int, start: int, stop: int) -> None:
        """Put the *other* spans *start* to *stop - 1* in the place of the spans *first* to *last - 1*."""
        self.sizes[first:last] = other.sizes[start:stop]
        self.counts[first:last] = other.counts[start:stop]
        self.owners[first:last] = other.owners[start:stop]
        self.stated[first:last] = other.stated[start:stop]

    def stated_version(self) -> int | None:
        """Return the newest version that is stated."""
        newest = max(self.stated, default=_NONE)
        return None if newest == _NONE else cast("int", newest)

    def groups(self) -> Iterable[DataPlaneGroupMeta]:
        """Return the listed groups in the order of their first spans."""
        owners: Iterable[Owner] = distinct(self.owners) if self.several else self.owners
        return listed(owners) if self.left_out else cast("Iterable[DataPlaneGroupMeta]", owners)


def make_spans(grouped: Grouped, rows: Rows, gaps: Sequence[Gap] = ()) -> Spans:
    """Return the spans of *rows*. None goes beyond its gap."""
    count, parts, convention = len(rows.keys), grouped.parts, grouped.convention
    starts, ids = spans_of(parts, count, list(accumulate(gap.rows for gap in gaps)))
    stops = [*starts[1:], count]
    by_id: dict[str, Owner] = {group.group_id: group for group in grouped.listing}
    by_id.update((group_id, LeftOut(group_id, keys)) for group_id, keys in grouped.left_out.items())
    places = list(zip(ids, starts, stops, strict=False))
    stated: list[float] = []
    if type(convention).stated_version is not Convention.stated_version:
        at = parts.starts
        for group_id, start, stop in places:
            tags = parts.tags[bisect_right(at, start) - 1 : bisect_left(at, stop)]
            version = None if group_id is None else convention.stated_version(tags)
            stated.append(_NONE if version is None else version)
    return Spans(
        array("I", [rows.ends[stop] - rows.ends[start] for _, start, stop in places]),
        array("I", [stop - start for _, start, stop in places]),
        [
            LeftOut(None, rows.keys[start:stop]) if group_id is None else by_id[group_id]
            for group_id, start, stop in places
        ],
        stated,
        several=len(by_id) < len(ids) - ids.count(None),
        left_out=bool(grouped.left_out) or None in ids,
    )


# Ids of more lengths than this are no real ones. A look at every key then takes less time.
_MAX_LENGTHS: Final = 8


class Keys:
    """The keys of a listing, so that a row with a key that is there already is found without a look at each.

    The keys of nearly all groups begin with the group's id, and so lead to the group. All others are looked at.

    Args:
        owners: The groups, each once.
    """

    def __init__(self, owners: Iterable[Owner]) -> None:
        self._by_id: dict[str, Owner] = {}
        self._lengths: set[int] = set()  # of the ids with which the keys of their groups begin
        self._others: dict[int, Owner] = {}  # those with other keys, by identity
        for owner in owners:
            self._add(owner)

    def add(self, owners: Sequence[Owner]) -> bool:
        """Add groups, each once, and return whether all of their keys are new. No two of them have the same key."""
        there: list[Owner] = list(self._others.values())
        many = len(self._lengths) > _MAX_LENGTHS
        if many:
            there += self._by_id.values()
        if there:
            keys = set(chain.from_iterable(map(_KEYS, owners)))
            if not keys.isdisjoint(chain.from_iterable(map(_KEYS, there))):
                return False
        for owner in owners:
            prefix = self._add(owner)
            if not many and any(self._leads_to_another(owner, prefix, length) for length in self._lengths):
                return False
        return True

    def _add(self, owner: Owner) -> str | None:
        """Add a group, and return its id if its keys begin with it."""
        group_id, keys = owner.group_id, owner.keys
        if group_id is not None:
            self._by_id[group_id] = owner
            # The keys of a listed group are sorted, so those between begin with it, too.
            if keys[0].startswith(group_id) and keys[-1].startswith(group_id) and type(owner) is not LeftOut:
                self._lengths.add(len(group_id))
                return group_id
        self._others[id(owner)] = owner
        return None

    def _leads_to_another(self, owner: Owner, prefix: str | None, length: int) -> bool:
        """Return whether the first *length* characters of a key of *owner* are the id of a group with that key."""
        if prefix is None or length > len(prefix):
            heads = {key[:length] for key in owner.keys}
        elif length < len(prefix):
            heads = {prefix[:length]}
        else:
            return False  # that is the group itself
        return any(not set(owner.keys).isdisjoint(other.keys) for other in self.of_ids(heads) if other is not owner)

    def remove(self, owners: Iterable[Owner]) -> None:
        """Remove groups that were added."""
        for owner in owners:
            if owner.group_id is not None:
                del self._by_id[owner.group_id]
            self._others.pop(id(owner), None)

    def of_ids(self, ids: Iterable[str]) -> list[Owner]:
        """Return the groups that have one of the *ids*."""
        return [owner for owner in map(self._by_id.get, ids) if owner is not None]


_KEYS: Final = attrgetter("keys")


def distinct(owners: Sequence[Owner]) -> list[Owner]:
    """Return each group once, in the order in which they come first."""
    return list(dict(zip(map(id, owners), owners, strict=True)).values())


def listed(owners: Iterable[Owner]) -> Iterator[DataPlaneGroupMeta]:
    """Yield those that are in the listing."""
    return (owner for owner in owners if isinstance(owner, DataPlaneGroupMeta))
