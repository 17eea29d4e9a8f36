"""Cuts the rows of a listing into parts and spans. Pure, and where a first listing spends most of its time.

A *part* is a run of neighbouring rows of one group with equal tags. A *span* is a run of neighbouring rows of one
group, with whatever tags. Every row is in one span, those that belong to no group included.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from msgspec import UNSET

from dataplane.conventions import Convention, KeyRule
from dataplane.tags import NO_MAPPING, Tag, is_bare, is_reserved_key, to_text

__all__ = ["Parts", "Spans", "cut", "spans_of"]


class Parts(NamedTuple):
    """Consecutive rows of one group with equal tags: each part's group id, tag, keys, first row and the row after it.

    A part is not readable when its tag is no mapping or has an unreadable group id. It is bare when it has neither tag
    nor id. A group may have several parts. No part is empty, and none has reserved keys. ``seen`` has the tags of all
    rows without a reserved key, those included that are ignored, one for each run.
    """

    ids: list[str]
    tags: list[Tag]
    keys: list[list[str]]
    readable: list[bool]
    bare: list[bool]
    starts: list[int]
    stops: list[int]
    seen: list[Tag]


class Spans(NamedTuple):
    """Each span's first row, and its group's id; None for rows of no group."""

    starts: list[int]
    ids: list[str | None]


def cut(keys: Sequence[str], values: Sequence[Tag], convention: Convention) -> Parts:
    """Cut rows into parts.

    The rows of a group are usually written together with equal tags, and usually resemble the group before. So each
    part is first assumed to have the same number of rows and the same key endings as the part before. Two list
    comparisons confirm that.
    """
    rule, group_tag = convention.key_rule, attrgetter(convention.group_tag)
    ignores = None if type(convention).ignores is Convention.ignores else convention.ignores
    keys, values = list(keys), list(values)
    ids, tags, members, readable, bare, starts, stops, seen = parts = Parts([], [], [], [], [], [], [], [])
    count = 1  # of the last part whose tag has its group id
    endings: list[str] = []  # of the last part without one
    start = 0
    while start < len(keys):
        key, tag = keys[start], values[start]
        raw = group_tag(tag)
        stated = None if raw is UNSET else to_text(raw)
        if stated is not None:
            group_id = stated
            alike = count > 1 and values[start : start + count].count(tag) == count
            stop = start + (count if alike else 1)
            while stop < len(keys) and (values[stop] is tag or values[stop] == tag):
                stop += 1
            count = stop - start
        elif is_reserved_key(key):
            start += 1
            continue
        elif rule is None:
            stop, group_id = start + 1, key
        else:
            group_id = rule.group_id(key, tag)
            stop, endings = _end_of_group(keys, values, start, group_id, rule, endings)
        part = keys[start:stop]
        # Only rows with a stated id can have a reserved key here. The join is faster than checking each key.
        pieces = _without_reserved(part, start) if stated is not None and "__" in "".join(part) else [(start, part)]
        if pieces:
            seen.append(tag)
        if not (ignores and ignores(key, tag)):
            for first, part in pieces:
                ids.append(group_id)
                tags.append(tag)
                members.append(part)
                readable.append(tag is not NO_MAPPING and (stated is not None or raw is UNSET))
                bare.append(stated is None and group_id == key and is_bare(tag))
                starts.append(first)
                stops.append(first + len(part))
        start = stop
    return parts


def spans_of(parts: Parts, rows: int, breaks: Sequence[int] = ()) -> Spans:
    """Return the spans of a listing of that many *rows*. A span ends at each row of *breaks*, ascending."""
    spans = Spans([], [])
    starts, ids = spans
    end = 0
    last: str | None = None
    for group_id, start, stop in zip(parts.ids, parts.starts, parts.stops, strict=True):
        if start != end:
            starts.append(end)
            ids.append(None)
            last = None
        if group_id != last:
            starts.append(start)
            ids.append(group_id)
            last = group_id
        end = stop
    if end < rows:
        starts.append(end)
        ids.append(None)
    for row in breaks:
        at = bisect_right(starts, row)
        if 0 < row < rows and starts[at - 1] != row:
            starts.insert(at, row)
            ids.insert(at, ids[at - 1])
    return spans


def _end_of_group(
    keys: list[str], values: list[Tag], start: int, group_id: str, rule: KeyRule, endings: list[str]
) -> tuple[int, list[str]]:
    """Return the end of the part at *start*, and its key endings, which may be those of the part before."""
    key, tag = keys[start], values[start]
    if group_id == key:
        return start + 1, endings
    read_group_id, separator = rule
    if separator is None:
        stop = start + 1
        while (
            stop < len(keys)
            and (values[stop] is tag or values[stop] == tag)
            and not is_reserved_key(keys[stop])
            and read_group_id(keys[stop], tag) == group_id
        ):
            stop += 1
        return stop, endings
    prefix = group_id + separator
    if len(endings) < 2 and (start + 1 == len(keys) or values[start + 1] != tag):
        return start + 1, [key[len(prefix) :]]
    stop = start + len(endings)
    alike = (
        bool(endings)
        and keys[start:stop] == [prefix + ending for ending in endings]
        and values[start:stop].count(tag) == len(endings)
    )
    guessed = stop = stop if alike else start + 1
    while (
        stop < len(keys)
        and (values[stop] is tag or values[stop] == tag)
        and keys[stop].startswith(prefix)
        and read_group_id(keys[stop], tag) == group_id
    ):
        stop += 1
    if not alike or stop > guessed:
        endings = [member[len(prefix) :] for member in keys[start:stop]]
    return stop, endings


def _without_reserved(keys: list[str], start: int) -> list[tuple[int, list[str]]]:
    """Return the runs of *keys*, the first of which is row *start*, that are not reserved, each with its first row."""
    runs: list[tuple[int, list[str]]] = []
    for reserved, run in groupby(enumerate(keys, start), lambda row: is_reserved_key(row[1])):
        if not reserved:
            rows = list(run)
            runs.append((rows[0][0], [key for _, key in rows]))
    return runs
