"""A listing that is read from what changed in it: what stays, what is kept, and replies that are made to deceive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import pytest

from dataplane import conventions
from dataplane.adapters.wire.limits import ReplyLimitExceeded
from dataplane.adapters.wire.rows import decode_listing
from dataplane.conventions.recovery import Recovery
from dataplane.errors import DataPlaneReadError
from dataplane.grouping import TagRules
from dataplane.tags import Tag
from tests.support.listings import WIDTHS, listing, raw_listing
from tests.support.offline_reader import OfflineReader
from tests.wire.test_incremental_properties import Seen

_encode = msgspec.msgpack.Encoder().encode


def rows_of_groups(*groups: int, version: int = 1) -> list[tuple[str, Any]]:
    return [(f"u{group}_g{row}", {"weight_version": version}) for group in groups for row in range(4)]


def test_groups_without_a_change_stay_the_same_objects() -> None:
    wire = OfflineReader()
    first = wire.read(listing(rows_of_groups(*range(20))))
    again = wire.read(listing(rows_of_groups(*range(20))))
    assert again.token is first.token
    assert again.change == (first.token, (), ())
    assert all(one is other for one, other in zip(first, again, strict=True))
    rows = rows_of_groups(*range(3, 20)) + rows_of_groups(30, 31)
    rows[8] = "u5_g0", {"weight_version": 9}
    rows.append(("u7_g9", {"weight_version": 1}))
    later = wire.read(listing(rows))
    assert wire.reader.full_decodes == 0
    kept = {id(group) for group in first} & {id(group) for group in later}
    assert Counter(group.group_id for group in later if id(group) not in kept) == Counter(["u5", "u7", "u30", "u31"])
    assert later.change is not None
    assert later.change.since is first.token
    assert [group.group_id for group in later.change.gone] == ["u0", "u1", "u2", "u5", "u7"]
    assert [group.group_id for group in later] == [f"u{group}" for group in (*range(3, 20), 30, 31)]
    last = wire.read(listing(rows[4:]))
    assert last.change is not None
    assert last.change.since is later.token
    assert len({first.token, later.token, last.token}) == 3


def test_a_listing_that_a_caller_changes_changes_no_later_one() -> None:
    wire = OfflineReader()
    wire.read(listing(rows_of_groups(*range(20)))).clear()
    assert len(wire.read(listing(rows_of_groups(*range(20))))) == 20


def test_a_listing_of_which_much_changed_is_decoded_as_a_whole_and_counted() -> None:
    wire = OfflineReader()
    wire.read(listing(rows_of_groups(*range(20))))
    assert wire.reader.full_decodes == 0
    found = wire.read(listing(rows_of_groups(*range(20), version=2)))
    assert {group.weight_version for group in found} == {2}
    assert wire.reader.full_decodes == 1
    wire.read(listing(rows_of_groups(*range(1, 20), version=2)))
    assert wire.reader.full_decodes == 1


def test_a_partition_that_is_gone_is_no_longer_kept() -> None:
    wire = OfflineReader()
    for name in ("p", "q"):
        wire.read(listing(rows_of_groups(1), name), name)
    assert set(wire.reader._kept) == {"p", "q"}
    wire.name("q")
    assert set(wire.reader._kept) == {"q"}


def test_nothing_is_kept_where_it_is_switched_off() -> None:
    wire = OfflineReader(incremental=False)
    listings = [wire.read(listing(rows_of_groups(*range(20)))) for _ in range(2)]
    assert not wire.reader._kept
    assert [one.token for one in listings] == [None, None]


def encoded(rows: list[tuple[str, Any]]) -> bytes:
    return b"".join(_encode(key) + _encode(tag) for key, tag in rows)


def assert_as_the_whole(first: bytes, second: bytes, **arguments: Any) -> OfflineReader:
    """Read two replies in turn; the second must give what it gives to a reader that keeps nothing."""
    wire = OfflineReader(**arguments)
    whole = OfflineReader(**arguments, incremental=False)
    for frame in (first, second):
        try:
            expected = whole.read(frame)
        except DataPlaneReadError as error:
            with pytest.raises(type(error)):
                wire.read(frame)
            continue
        found = wire.read(frame)
        assert repr(list(found)) == repr(list(expected))
        assert (found.rows, found.convention) == (expected.rows, expected.convention)
    return wire


BASE = rows_of_groups(*range(40))


def test_a_row_that_swallows_rows_which_match_is_found_out() -> None:
    """The rows between two changes are the text of a tag now, and the second change are as many rows of that length."""
    swallowed, others = rows_of_groups(20), rows_of_groups(60)
    text = encoded(swallowed)
    assert len(text) == len(encoded(others)) < 256
    before, after = encoded(rows_of_groups(*range(20))), encoded(rows_of_groups(*range(21, 40)))
    tag = b"\x81" + _encode("x") + b"\xd9" + bytes([len(text)])
    rows = before + _encode("eats") + tag + text + encoded(others) + after
    for count in (len(BASE), len(BASE) + 1, len(BASE) + 5):
        wire = assert_as_the_whole(listing(BASE), raw_listing(count, rows))
        assert wire.reader.full_decodes == 1


def test_a_tag_with_the_bytes_of_other_rows_is_no_row() -> None:
    inside = encoded(rows_of_groups(*range(10, 14)))
    for at in (0, 38, 41, 159):
        rows = list(BASE)
        rows[at] = rows[at][0], {"weight_version": 1, "x": inside}
        assert_as_the_whole(listing(BASE), listing(rows))
        assert_as_the_whole(listing(rows), listing(BASE))
        assert_as_the_whole(listing(rows), listing(rows[:40] + rows[56:]))


@pytest.mark.parametrize("place", ["among what is kept", "among what is new", "first"])
def test_a_second_row_with_the_same_key_is_found_out(place: str) -> None:
    base = [(key, {"group_id": key.split("_")[0], **tag}) for key, tag in BASE]
    tag = {"group_id": "other", "weight_version": 7}
    rows = [*base, ("u50_g0", {"group_id": "u50"})]
    if place == "among what is kept":
        rows.append(("u3_g1", tag))
    elif place == "first":
        rows.insert(0, ("u3_g1", tag))
    else:
        rows.append(("u50_g0", tag))
    wire = assert_as_the_whole(listing(base), listing(rows))
    assert wire.reader.full_decodes == 1
    assert not wire.reader._kept


_ODD: dict[str, list[tuple[str, Any]]] = {
    "ids of many lengths": [("k" * length, {"weight_version": 1}) for length in range(1, 30)],
    "ids of many lengths, and a row of no group": [
        *(("k" * length, {"weight_version": 1}) for length in range(1, 30)),
        ("__config", {}),
    ],
    "keys that do not begin with their id": [(f"r{row}", {"group_id": f"u{row // 4}"}) for row in range(40)],
    "rows that are left out": [
        (f"p{row}_0_0", {"status": "finished", "is_padding": row % 2 > 0, "global_steps": 1}) for row in range(40)
    ],
}


@pytest.mark.parametrize("base", _ODD.values(), ids=_ODD)
def test_a_second_row_is_found_out_whatever_the_keys_are(base: list[tuple[str, Any]]) -> None:
    for key in (base[3][0], base[-1][0]):
        wire = assert_as_the_whole(listing(base), listing([*base, (key, {"group_id": "other", "global_steps": 2})]))
        assert wire.reader.full_decodes == 1


def test_a_second_row_is_found_out_whose_id_is_longer_or_shorter() -> None:
    rows = [(key, {"group_id": key.split("_")[0]}) for key, _ in BASE]
    for group_id in ("u", "u3", "u3_", "u3_g1"):
        wire = assert_as_the_whole(listing(rows), listing([*rows, ("u3_g1", {"group_id": group_id})]))
        assert wire.reader.full_decodes == 1


def test_keys_that_begin_with_one_another_are_told_apart() -> None:
    rows: list[tuple[str, Any]] = [("k" * length, {"weight_version": length % 3}) for length in range(1, 120)]
    for changed in (rows[:50] + rows[51:], rows[1:], rows[:-1], [*rows[:30], ("k" * 31, {}), *rows[31:]]):
        assert assert_as_the_whole(listing(rows), listing(changed)).reader.full_decodes == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_that_are_written_in_another_way_are_the_same_rows(width: int) -> None:
    changed = [*BASE[8:60], *BASE[64:], *rows_of_groups(70)]
    for map_width in (0, 2, 4):
        wire = assert_as_the_whole(
            listing(BASE, key_width=width), listing(changed, key_width=width, map_width=map_width, message="")
        )
        assert wire.reader.full_decodes == 1  # the text after the rows has another length
        wire = assert_as_the_whole(
            listing(BASE, key_width=width), listing(changed, key_width=width, map_width=map_width)
        )
        assert wire.reader.full_decodes == (width >= 2)  # no program writes these for short keys


def test_a_number_of_rows_that_is_wrong_is_found_out() -> None:
    changed = [*BASE[8:], *rows_of_groups(70)]
    for count in (0, 1, len(changed) - 1, len(changed) + 1, 2**31):
        for rows in (changed, BASE):
            assert_as_the_whole(listing(BASE), raw_listing(count, encoded(rows)))


def test_groups_whose_rows_moved_are_listed_where_they_are() -> None:
    moved = BASE[30:33] + BASE[:30] + BASE[33:]
    assert_as_the_whole(listing(BASE), listing(moved))
    assert_as_the_whole(listing(moved), listing(BASE))
    scattered = BASE[::2] + BASE[1::2]
    wire = assert_as_the_whole(listing(scattered), listing(scattered[5:]))
    assert wire.reader.full_decodes == 0


def test_rows_of_one_group_that_changed_around_others_stay_where_they_are() -> None:
    between = [("v1_g0", {"weight_version": 1}), ("v2_g0", {"weight_version": 1})]
    rows = [*BASE[:40], *between, *BASE[40:]]
    wire, whole = OfflineReader(), OfflineReader(incremental=False)
    for version in (1, 2, 3):
        rows[38:40] = [(key, {"weight_version": version}) for key, _ in BASE[38:40]]  # the last two rows of u9
        rows[42:44] = [("u9_g8", {"weight_version": version}), ("u9_g9", {"weight_version": version})]
        frame = listing(rows)
        assert repr(list(wire.read(frame))) == repr(list(whole.read(frame)))
        spans = wire.reader._kept["p"].spans
        assert spans.counts[9:13].tolist() == [4, 1, 1, 2]
        assert sum(spans.sizes[:10]) == len(encoded(rows[:40]))
    assert wire.reader.full_decodes == 0


def test_the_rows_of_another_partition_or_reply_are_refused_also_where_rows_are_kept() -> None:
    for other in (listing(BASE, "q"), listing(BASE)[:-4], listing(BASE) + b"x", b"", listing([])):
        assert_as_the_whole(listing(BASE), other)


def padding_of(size: int) -> bytes:
    """Return an entry of a reply's map that takes *size* bytes and says nothing."""
    entry = _encode("pads") + b"\xc5" + (size - 8).to_bytes(2, "big") + bytes(size - 8)
    assert len(entry) == size
    return entry


def test_a_second_body_counts_as_it_does_for_the_decoder() -> None:
    frame = listing(BASE)
    assert frame[0] == 0x86
    later = _encode("body") + _encode({"partition_info": {"p": dict(rows_of_groups(1))}, "message": "success"})
    assert_as_the_whole(frame, b"\x87" + frame[1:] + later)
    padding = padding_of(len(later))  # so that the rows end where they did
    assert_as_the_whole(b"\x87" + frame[1:] + padding, b"\x87" + frame[1:] + later)


def test_the_rows_that_are_kept_are_those_that_were_decoded() -> None:
    """Two bodies of the same size: the decoder takes the second one, and later the first one stands alone."""
    first, second = rows_of_groups(*range(10, 50)), rows_of_groups(*range(50, 90))
    frame = listing(first)
    body = _encode("body") + _encode({"partition_info": {"p": dict(second)}, "message": "success"})
    assert_as_the_whole(b"\x87" + frame[1:] + body, b"\x87" + frame[1:] + padding_of(len(body)))


def test_a_first_flag_is_valid_for_all_rows_of_a_partition() -> None:
    rows = [(key, {"group_id": key.split("_")[0], **tag}) for key, tag in BASE]
    flagged = [*rows, ("last", {"group_id": "last", "committed": True})]
    wire = assert_as_the_whole(listing(rows), listing(flagged))
    assert wire.reader.full_decodes == 1
    assert [group.committed for group in wire.read(listing(flagged))] == [False] * 40 + [True]


def test_more_rows_than_allowed_are_refused_also_where_rows_are_kept() -> None:
    wire = OfflineReader(max_rows=len(BASE))
    wire.read(listing(BASE))
    with pytest.raises(ReplyLimitExceeded, match="164 rows, the limit is 160"):
        wire.read(listing([*BASE, *rows_of_groups(70)]))


LONG = [(key, {**tag, "note": "x" * 1000}) for key, tag in BASE]


def test_long_rows_are_kept_as_well() -> None:
    changed = [*LONG[8:20], (LONG[20][0], {"weight_version": 2}), *LONG[21:], *rows_of_groups(70)]
    for later in (changed, LONG[4:], LONG):
        assert assert_as_the_whole(listing(LONG), listing(later)).reader.full_decodes == 0


def test_long_rows_whose_bytes_are_not_known_are_not_kept() -> None:
    twice = [*LONG, (LONG[5][0], {"weight_version": 7, "note": "x" * 1000})]
    for frame in (listing(LONG, key_width=2), raw_listing(len(twice), encoded(twice))):
        assert decode_listing(memoryview(frame), "p").body.ends == []
        wire = assert_as_the_whole(frame, frame)
        assert not wire.reader._kept
        assert wire.reader.full_decodes == 0


@pytest.mark.parametrize("groups", [20, 2_000], ids=["short", "long"])
def test_what_is_kept_is_the_last_reply_and_no_more(groups: int) -> None:
    wire = OfflineReader()
    rows = rows_of_groups(*range(groups))
    for poll in range(30):
        rows = [*rows[4:], *rows_of_groups(10_000 + poll)]
        frame = listing(rows)
        wire.read(frame)
        kept = wire.reader._kept["p"].encoded
        assert kept == encoded(rows)
        # A short reply is copied: ZeroMQ may have left it in its receive buffer.
        assert memoryview(kept.obj).nbytes == (len(kept) if groups == 20 else len(frame))
    assert wire.reader.full_decodes == 0


class Together(Recovery):
    """Recognises a partition by its number of rows, which no tag tells by itself."""

    name = "together"
    rank = 15  # asked after verl, before recovery and nemo-rl

    def recognises(self, tags: Collection[Tag]) -> bool:
        return len(tags) < 30

    by_tag = False


@pytest.fixture
def together() -> Iterator[None]:
    conventions.register(Together())
    yield
    conventions.unregister("together")


CHANGED = [*BASE[:20], *rows_of_groups(5, version=3), *BASE[24:], *rows_of_groups(60)]


@pytest.mark.usefixtures("together")
def test_a_convention_that_may_look_at_all_tags_together_gets_them_all() -> None:
    for later in (CHANGED, BASE[:20]):
        wire = assert_as_the_whole(listing(BASE), listing(later))
        assert not wire.reader._kept
    wire = assert_as_the_whole(listing(BASE[:24]), listing(BASE))  # it is remembered, and all rows are its own
    assert not wire.reader._kept
    wire = assert_as_the_whole(listing(BASE), listing(CHANGED), default_rules=TagRules("together"))
    assert not wire.reader._kept


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("name", ["nemo-rl", "recovery"])
def test_a_convention_that_a_partition_cannot_have_costs_it_nothing(name: str) -> None:
    rules = {"default_rules": TagRules(name)}, {"rules": {"p": TagRules(name)}}
    for arguments in rules:
        for later in (CHANGED, BASE[:144]):
            wire = assert_as_the_whole(listing(BASE), listing(later), **arguments)
            assert wire.reader._kept
            assert wire.reader.full_decodes == 0


@pytest.mark.usefixtures("together")
def test_a_convention_that_is_asked_after_the_partitions_own_costs_it_nothing() -> None:
    verl = [
        (key, {"status": "finished", "min_global_steps": 2, "max_global_steps": 3})
        for key in (f"u{group}_{session}_0" for group in range(40) for session in range(4))
    ]
    wire = assert_as_the_whole(listing(verl), listing(verl[8:]))
    assert wire.reader._kept
    assert wire.reader.full_decodes == 0
    # Rows without tags fall to the convention that is asked last.
    bare: list[tuple[str, Any]] = [(key, {}) for key, _ in verl]
    assert not assert_as_the_whole(listing(bare), listing(bare[8:])).reader._kept
    assert assert_as_the_whole(listing(bare), listing(verl)).reader._kept


def test_a_group_that_is_bare_for_a_while_departs_with_its_rows_and_takes_its_version_along() -> None:
    rows = [(key, {"group_id": key.split("_")[0], **tag}) for key, tag in BASE]
    rows[8:12] = [(key, {**tag, "weight_version": 9}) for key, tag in rows[8:12]]
    bare = [*rows[:8], *((key, {}) for key, _ in rows[8:12]), *rows[12:]]
    whole, changed = Seen(False, "auto"), Seen(True, "auto")
    for step, departed, newest in ((rows, 0, 9), (bare, 0, 9), ([*rows[:8], *rows[12:]], 1, 1), (rows, 1, 9)):
        whole.poll(listing(step))
        changed.poll(listing(step))
        assert changed.told() == whole.told()
        assert changed.partitions.total_flow().departed == departed
        assert changed.partitions._flow.newest() == newest
    assert changed.wire.reader.full_decodes == 0
