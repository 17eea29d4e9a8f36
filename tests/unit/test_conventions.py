"""Adding a convention takes one object, which this file shows with one of its own; and the registry."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from dataplane import conventions
from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.adapters.wire import WireMetadataReader
from dataplane.conventions import Convention, Group, KeyRule
from dataplane.grouping import Grouper, TagRules
from dataplane.groups import DataPlaneGroupMeta, group_rows
from dataplane.tags import SCALAR, Int, LooseTagFields, Tag, TagFields
from tests.support.fake_router import FakeRouter, reply


class VoteGroup(Group, gc=False):
    """A group that remembers what the shipped conventions do not."""

    votes: int = 0


class Votes(Convention):
    """Rows ``{group}#{n}`` or with a tag ``episode``; two rows must vote for a group, a veto fails it."""

    name = "votes"
    fields: Mapping[str, Any] = {"episode": str, "policy": Int, "quorum": Int, "vote": str}
    group_tag = "episode"
    key_rule = KeyRule(lambda key, tag: key.partition("#")[0], "#")
    group_type = VoteGroup

    def recognises(self, tags: Collection[Tag]) -> bool:
        return any(tag.vote is not UNSET for tag in tags)

    def account(self, group: VoteGroup, tag: Tag, count: int, readable: bool) -> None:
        if tag.vote == "yes":
            group.votes += count
        elif tag.vote == "veto":
            group.failed = True
        else:
            readable = readable and tag.vote is UNSET
        group.add(count, readable, tag.policy, tag.quorum, UNSET, UNSET, UNSET)

    def settle(self, group: VoteGroup) -> None:
        group.committed = group.votes >= 2


ROWS: Mapping[str, Any] = {
    "a#0": {"vote": "yes", "policy": 7, "committed": False},
    "a#1": {"vote": "yes", "policy": 6, "extra": [1]},
    "b#0": {"vote": "yes"},
    "c#0": {"vote": "veto", "quorum": 2},
    "c#1": {"policy": "six"},
    "other": {"episode": "e", "vote": "yes"},
    "another": {"episode": "e", "vote": "yes"},
}
EXPECTED = [
    ("a", ["a#0", "a#1"], "ready", 6, None, 0),
    ("b", ["b#0"], "uncommitted", None, None, 0),
    ("c", ["c#0", "c#1"], "failed", None, 2, 1),
    ("e", ["another", "other"], "ready", None, None, 0),
]


def told(groups: list[DataPlaneGroupMeta]) -> list[tuple[Any, ...]]:
    return [(g.group_id, g.keys, g.state, g.weight_version, g.expected_num_keys, g.malformed_keys) for g in groups]


@pytest.fixture
def votes() -> Iterator[None]:
    conventions.register(Votes())
    yield
    conventions.unregister("votes")


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    body = {"partition_info": {"p": ROWS}, "message": "success"}
    with FakeRouter(lambda request: reply("KV_LIST_RESPONSE", body)) as fake:
        yield fake


@pytest.mark.usefixtures("votes")
@pytest.mark.parametrize("convention", ["auto", "votes"])
def test_a_convention_of_ones_own_groups(convention: str) -> None:
    assert told(group_rows("p", ROWS, convention=convention)) == EXPECTED


@pytest.mark.usefixtures("votes")
@pytest.mark.parametrize("convention", ["auto", "votes"])
def test_its_tags_are_decoded_on_the_wire(router: FakeRouter, convention: str) -> None:
    reader = WireMetadataReader(router.address, rules={"p": TagRules(convention)})
    for _ in range(2):
        groups = reader.list_metadata("p")
        assert told(groups) == EXPECTED
    assert groups[0].tags == {"committed": False, "policy": 7, "vote": "yes"}
    reader.close()


@pytest.mark.usefixtures("votes")
def test_well_formed_tags_of_its_own_are_checked_as_they_are_decoded() -> None:
    read = conventions.schema().read_all({"a": {"vote": "yes", "policy": 7}, "b": {"vote": "no"}})
    assert all(isinstance(tag, TagFields) for tag in read.values())
    read = conventions.schema().read_all({"a": {"vote": "yes", "policy": "7"}, "b": {"vote": "no"}})
    assert all(isinstance(tag, LooseTagFields) for tag in read.values())


def test_a_reader_that_is_there_already_learns_of_it(router: FakeRouter) -> None:
    reader = WireMetadataReader(router.address)
    before = told(reader.list_metadata("p"))
    conventions.register(Votes())
    try:
        assert told(reader.list_metadata("p")) == EXPECTED
    finally:
        conventions.unregister("votes")
    assert told(reader.list_metadata("p")) == before != EXPECTED
    reader.close()


@pytest.mark.usefixtures("votes")
def test_partitions_of_the_shipped_conventions_are_still_recognised() -> None:
    for tag, name in (
        ({"is_prompt": True}, "verl"),
        ({"committed": True}, "recovery"),
        ({"weight_version": 1}, "nemo-rl"),
        ({}, "nemo-rl"),
        (None, "nemo-rl"),
    ):
        assert conventions.detect([conventions.schema().read(tag)]).name == name
    assert conventions.detect([]).name == "nemo-rl"


@pytest.mark.usefixtures("votes")
def test_one_tag_among_many_decides_for_its_whole_partition() -> None:
    rows = {f"u{n}#0": {"weight_version": n} for n in range(100)} | {"last#0": {"vote": "yes"}}
    assert {group.group_id for group in group_rows("p", rows)} == {*(f"u{n}" for n in range(100)), "last"}


@pytest.mark.usefixtures("votes")
def test_it_is_known_by_name_as_long_as_it_is_registered() -> None:
    assert conventions.names() == ("auto", "nemo-rl", "recovery", "verl", "votes")
    found = conventions.get("votes")
    assert found is not None
    assert found.name == "votes"
    conventions.unregister("votes")
    assert "votes" not in conventions.names()
    assert "vote" not in conventions.schema().checked.__struct_fields__
    with pytest.raises(ValueError, match="unknown convention 'votes'"):
        group_rows("p", ROWS, convention="votes")


def test_auto_names_no_convention() -> None:
    assert conventions.get("auto") is None


@pytest.mark.parametrize("name", ["verle", "x"])
def test_an_unknown_name_is_refused_with_a_remedy(name: str) -> None:
    for use in (
        conventions.get,
        lambda name: Grouper(default=TagRules(name)),
        lambda name: group_rows("p", {}, convention=name),
    ):
        with pytest.raises(ValueError, match=f"unknown convention '{name}'") as caught:
            use(name)
        assert str(caught.value).endswith("choose one of auto, nemo-rl, recovery, verl")


@pytest.mark.parametrize("name", ["auto", "verl"])
def test_a_name_is_taken_once(name: str) -> None:
    other = Votes()
    other.name = name
    with pytest.raises(ValueError, match=f"there is a convention '{name}' already"):
        conventions.register(other)
    assert "vote" not in conventions.schema().checked.__struct_fields__


@pytest.mark.parametrize("status", [1, "finished", 1.5, True, None])
def test_a_tag_that_two_conventions_type_differently_suits_both(status: object) -> None:
    other = Votes()
    other.fields = {"vote": str, "policy": Int, "quorum": Int, "episode": str, "status": int}
    rows = {"u": {"is_prompt": True, "status": status}, "u_0_0": {"min_global_steps": 3, "status": "finished"}}
    alone = group_rows("p", rows)
    conventions.register(other)
    try:
        assert all(isinstance(tag, TagFields) for tag in conventions.schema().read_all(rows).values())
        assert group_rows("p", rows) == alone
    finally:
        conventions.unregister("votes")


def test_a_field_of_several_types_takes_no_containers() -> None:
    """They take much memory, and no value is one."""
    for value in ([1], {"a": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, SCALAR)


@pytest.mark.usefixtures("votes")
def test_the_in_memory_client_groups_by_the_same_registry() -> None:
    client = NoOpDataPlaneClient()
    client.put_samples(list(ROWS), "p", tags=list(ROWS.values()))
    assert told(client.list_metadata("p")) == EXPECTED
