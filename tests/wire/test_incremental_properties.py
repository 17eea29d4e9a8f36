"""What is read from what changed is what is read from all: the groups, the flow and the occupancy, at each step."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from hypothesis import given, note
from hypothesis import strategies as st

from dataplane.conventions import ConfiguredConvention, ConventionTags, GroupFrom, TagNamed, TagWith
from dataplane.grouping import TagRules
from dataplane.groups import Listing
from dataplane.partitions import ByName
from exporter.model.partitions import Partitions
from exporter.model.results import MetadataPoll, PartitionListing
from tests.support.clock import StoppedClock
from tests.support.listings import WIDTHS, listing
from tests.support.offline_reader import OfflineReader

OWN = (
    ConfiguredConvention(
        "own",
        ConventionTags(
            group=GroupFrom(tag="episode", key=r"(?P<group>.+)_g\d+"),
            weight_version=TagNamed("policy"),
            committed=TagWith("status", ("finished", 1, True)),
            failed=TagWith("status", ("failure",)),
            taken=TagWith("committed", (False,)),
            ignore=TagWith("is_padding", (True,)),
        ),
    ),
)
CONVENTIONS = ("auto", "recovery", "nemo-rl", "verl", "own")

_fields: dict[str, st.SearchStrategy[Any]] = {
    "group_id": st.sampled_from(["a", "b", "u1", 0, ""]),
    "weight_version": st.sampled_from([1, 2, "3", -1, "x"]),
    "committed": st.sampled_from([True, False, 1, "no"]),
    "expected_num_keys": st.sampled_from([1, 2, 3]),
    "created_at": st.sampled_from([5, 6.5, 7.0]),
    "size_bytes": st.sampled_from([10, -1]),
    "is_prompt": st.booleans(),
    "is_padding": st.booleans(),
    "is_session": st.booleans(),
    "status": st.sampled_from(["pending", "running", "finished", "failure"]),
    "global_steps": st.sampled_from([3, 4, True, None]),
    "max_global_steps": st.sampled_from([2, 5, None]),
    "min_global_steps": st.sampled_from([1, 2, None]),
    "episode": st.sampled_from(["a", "e"]),
    "policy": st.sampled_from([6, 7]),
    "unread": st.text(max_size=30),
}
_odd: st.SearchStrategy[Any] = st.sampled_from([None, 3, [1], {1: 2}, {"weight_version": [1]}, {"group_id": {}}])
_tags = st.dictionaries(st.sampled_from(sorted(_fields)), st.none(), max_size=4).flatmap(
    lambda names: st.fixed_dictionaries({name: _fields[name] for name in names})
)
_keys = st.one_of(
    st.builds("u{}_g{}".format, st.integers(0, 9), st.integers(0, 3)),
    st.builds("u{}_{}_0".format, st.integers(0, 9), st.integers(0, 3)),
    st.sampled_from(["u1", "u2", "a", "__schema__:x", "u1_sess0", "", "k" * 300]),
)


class Queue:
    """The rows of a partition, in listed order."""

    def __init__(self, base: dict[str, Any]) -> None:
        self.rows: list[tuple[str, Any]] = list(base.items())
        self.form: dict[str, Any] = {}

    def put(self, data: st.DataObject) -> None:
        rows = dict(self.rows)
        for key in data.draw(st.lists(_keys, min_size=1, max_size=3)):
            rows[key] = data.draw(_tags | _odd)
        self.rows = list(rows.items())

    def tag(self, data: st.DataObject) -> None:
        if self.rows:
            at = data.draw(st.integers(0, len(self.rows) - 1))
            key, tag = self.rows[at]
            more = data.draw(_tags)
            self.rows[at] = key, {**tag, **more} if isinstance(tag, dict) else more

    def clear(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(self.rows)))
        del self.rows[start : start + data.draw(st.integers(1, 6))]

    def move(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(self.rows)))
        moved = self.rows[start : start + data.draw(st.integers(1, 3))]
        del self.rows[start : start + len(moved)]
        to = data.draw(st.integers(0, len(self.rows)) | st.just(len(self.rows)))
        self.rows[to:to] = moved

    def repeat(self, data: st.DataObject) -> None:
        """Name a key twice, as TransferQueue never does."""
        if self.rows:
            key, _ = data.draw(st.sampled_from(self.rows))
            self.rows.insert(data.draw(st.integers(0, len(self.rows))), (key, data.draw(_tags)))

    def fool(self, data: st.DataObject) -> None:
        """Put the bytes of some rows into a tag of another."""
        if self.rows:
            start = data.draw(st.integers(0, len(self.rows) - 1))
            inside = b"".join(
                msgspec.msgpack.encode(key) + msgspec.msgpack.encode(tag) for key, tag in self.rows[start : start + 3]
            )
            at = data.draw(st.integers(0, len(self.rows) - 1))
            self.rows[at] = self.rows[at][0], {"unread": inside}

    def write_otherwise(self, data: st.DataObject) -> None:
        self.form = {
            "key_width": data.draw(st.sampled_from(WIDTHS)),
            "map_width": data.draw(st.sampled_from([0, 2, 4])),
            "message": data.draw(st.text(max_size=4)),
        }


STEPS = ("put", "put", "tag", "tag", "clear", "move", "repeat", "fool", "write_otherwise")


def base(convention: str) -> dict[str, Any]:
    """Return rows of ten groups, so that a few changes are a small part of them."""
    rows: dict[str, Any] = {}
    for group in range(10):
        if convention == "verl":
            rows[f"u{group}"] = {"is_prompt": True, "status": "running", "global_steps": 3}
        for row in range(4):
            if convention == "verl":
                rows[f"u{group}_{row}_0"] = {"status": "finished", "min_global_steps": 2, "max_global_steps": row}
            else:
                rows[f"u{group}_g{row}"] = {"weight_version": group // 3} | (
                    {} if convention == "nemo-rl" else {"group_id": f"id{group}"}
                )
    return rows


class Seen:
    """The partitions as the exporter adds them up."""

    def __init__(self, incremental: bool, convention: str) -> None:
        rule = TagRules(convention, group_size=4)
        self.wire = OfflineReader(default_rules=rule, conventions=OWN, incremental=incremental)
        self.clock = StoppedClock()
        self.partitions = Partitions(self.clock, settings=ByName({}), max_partitions=9, max_versions=3)
        self.listing = Listing(convention="", rows=0, stated_version=None)

    def poll(self, frame: bytes) -> None:
        self.listing = self.wire.read(frame)
        found = PartitionListing("p", self.listing, 0.0, "", self.listing.rows, self.listing.stated_version)
        self.clock.advance(10.0)
        self.partitions.take_in(MetadataPoll(("p",), (found,), (), None, 0.0, None), keep_s=60.0)

    def told(self) -> Any:
        """Return all that an output can show. Sums of seconds depend on the order of their terms."""
        flows = [asdict(flow) for flow in self.partitions.flows()]
        for flow in flows:
            flow["residence"]["sum"] = round(flow["residence"]["sum"], 6)
        return (
            repr(list(self.listing)),
            (self.listing.convention, self.listing.rows, self.listing.stated_version),
            self.partitions.states(),
            flows,
            self.partitions.role_flows(),
            self.partitions.versions.reference,
            self.partitions._flow.newest(),
        )


@given(st.sampled_from(CONVENTIONS), st.sampled_from(CONVENTIONS), st.data())
def test_what_changed_tells_as_much_as_the_whole(convention: str, written: str, data: st.DataObject) -> None:
    queue = Queue(base(written))
    whole, changed = Seen(False, convention), Seen(True, convention)
    for _ in range(data.draw(st.integers(2, 6))):
        for step in data.draw(st.lists(st.sampled_from(STEPS), max_size=3)):
            getattr(queue, step)(data)
        frame = listing(queue.rows, **queue.form)
        note(f"{queue.rows} {queue.form}")
        whole.poll(frame)
        changed.poll(frame)
        assert changed.told() == whole.told()
