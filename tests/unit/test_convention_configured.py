"""A convention from the names of its tags: how it groups, when ``auto`` chooses it, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from dataplane import conventions
from dataplane.adapters.wire import WireMetadataReader
from dataplane.conventions import (
    BadConvention,
    ConfiguredConvention,
    ConventionTags,
    GroupFrom,
    Memory,
    TagNamed,
    TagWith,
)
from dataplane.discovery.record import Endpoint
from dataplane.grouping import Grouper, TagRules
from dataplane.groups import DataPlaneGroupMeta, GroupState, Listing, group_rows
from dataplane.patterns import MAX_NAME
from dataplane.tags import LooseTagFields, TagFields, to_sorted_dict
from exporter.config import Config
from exporter.polling.readers import connect
from tests.support.fake_router import FakeRouter, reply

STATUS = ConventionTags(
    group=GroupFrom(tag="uid"),
    weight_version=TagNamed("policy-version"),
    committed=TagWith("status", ("done",)),
    failed=TagWith("status", ("error",)),
    taken=TagWith("status", ("training",)),
    created_at=TagNamed("produced_at"),
    expected_num_keys=TagNamed("n"),
    size_bytes=TagNamed("bytes"),
    ignore=TagWith("is_padding", (True,)),
)
KEYS = ConventionTags(group=GroupFrom(key=r"^(?P<group>.+)_s\d+$"), weight_version=TagNamed("v"))


def rows_of(tags: ConventionTags, rows: Mapping[str, Any], memory: Memory | None = None, name: str = "mine") -> Listing:
    registry = conventions.registry((ConfiguredConvention("mine", tags),))
    return group_rows("p", rows, convention=name, memory=memory, registry=registry)


def told(groups: list[DataPlaneGroupMeta]) -> list[tuple[str, list[str], GroupState, int | None]]:
    return [(group.group_id, group.keys, group.state, group.weight_version) for group in groups]


ROWS: Mapping[str, Any] = {
    "k0": {"uid": "a", "policy-version": 4, "status": "done", "produced_at": 9.0, "n": 2, "bytes": 3},
    "k1": {"uid": "a", "policy-version": "3", "status": "done", "produced_at": 8.0, "n": 2, "bytes": 4},
    "k2": {"uid": 7, "policy-version": 5, "status": "done", "n": 2},
    "k3": {"uid": "c", "status": "error"},
    "k4": {"uid": "c", "status": "writing"},
    "k5": {"uid": "d", "status": "training"},
    "k5b": {"uid": "d", "status": "done"},
    "k6": {"uid": "a", "is_padding": True, "policy-version": 1},
    "k7": {"uid": "e"},
    "k8": {"uid": "f", "status": ["done"]},
    "k9": {},
}
EXPECTED = [
    ("a", ["k0", "k1"], "ready", 3),
    ("7", ["k2"], "incomplete", 5),
    ("c", ["k3", "k4"], "failed", None),
    ("d", ["k5", "k5b"], "taken", None),
    ("e", ["k7"], "uncommitted", None),
    ("f", ["k8"], "uncommitted", None),
    ("k9", ["k9"], "uncommitted", None),
]


@pytest.mark.parametrize("name", ["mine", "auto"])
def test_every_part_is_read_from_the_tag_that_is_named(name: str) -> None:
    found = rows_of(STATUS, ROWS, name=name)
    assert told(found) == EXPECTED
    assert found.convention == "mine"
    assert found.rows == len(ROWS)
    first = found[0]
    assert (first.created_at, first.expected_num_keys, first.size_bytes) == (8.0, 2, 7)
    assert [group.malformed_keys for group in found] == [0, 0, 0, 0, 0, 1, 0]
    assert [group.bare for group in found] == [False] * 6 + [True]


def test_its_tags_are_decoded_on_the_wire() -> None:
    body = {"partition_info": {"p": ROWS}, "message": "success"}
    with FakeRouter(lambda request: reply("KV_LIST_RESPONSE", body)) as fake:
        mine = (ConfiguredConvention("mine", STATUS),)
        reader = WireMetadataReader(fake.address, default_rules=TagRules("mine"), conventions=mine)
        other = WireMetadataReader(fake.address)
        for _ in range(2):
            assert told(reader.list_metadata("p")) == EXPECTED
        assert {group.group_id for group in other.list_metadata("p")} == set(ROWS)  # it knows nothing of mine
        reader.close()
        other.close()
    assert "mine" not in conventions.names()


def test_the_readers_of_an_exporter_have_those_of_its_configuration_only() -> None:
    body = {"partition_info": {"p": ROWS}, "message": "success"}
    with FakeRouter(lambda request: reply("KV_LIST_RESPONSE", body)) as fake:
        endpoint = Endpoint(address=fake.address)
        for tags, first in ((STATUS, ["k0", "k1"]), (KEYS, ["k0"])):
            readers = connect(Config(conventions={"mine": tags}, default_convention="mine"), endpoint)
            for reader in (readers.metadata_reader, readers.ping_reader):
                assert reader.list_metadata("p")[0].keys == first
            readers.close()


def test_its_tags_need_not_be_names_that_python_allows() -> None:
    for name in ("a-b", "a b", "class", "__dict__", "é", "_x", "1", "it's", "self"):
        tags = ConventionTags(group=GroupFrom(tag=name))
        (group,) = rows_of(tags, {"k": {name: "g"}, "l": {name: "g"}})
        assert (group.group_id, group.tags) == ("g", {name: "g"})
    schema = conventions.registry((ConfiguredConvention("mine", STATUS),)).schema
    read = schema.read_all({"k": {"policy-version": 4}})["k"]
    assert isinstance(read, TagFields)
    loose = schema.read({"policy-version": [4], "other": 1})
    assert isinstance(loose, LooseTagFields)
    assert to_sorted_dict(loose) == {"policy-version": [4]}
    assert conventions.registry().schema is conventions.schema()


def test_a_program_registers_one() -> None:
    conventions.register(ConfiguredConvention("mine", STATUS))
    try:
        assert told(group_rows("p", ROWS)) == EXPECTED
    finally:
        conventions.unregister("mine")


class TestGroupFromTheKey:
    def test_a_group_is_what_the_expression_names(self) -> None:
        rows = {
            "x_s0": {"v": 1},
            "x_s1": {"v": 1},
            "x_s10": {"v": 1},
            "y_s0": {"v": 2},
            "x_s2": {"v": 1},
            "lone": {"v": 1},
            "_s0": {"v": 1},
            "__schema__:z_s1": {"v": 1},
        }
        assert told(rows_of(KEYS, rows)) == [
            ("x", ["x_s0", "x_s1", "x_s10", "x_s2"], "ready", 1),
            ("y", ["y_s0"], "ready", 2),
            ("lone", ["lone"], "ready", 1),
            ("_s0", ["_s0"], "ready", 1),
        ]

    def test_the_id_may_be_at_the_end_where_no_separator_follows_it(self) -> None:
        """As a reserved key may then follow in the same group, each key is looked at."""
        tags = ConventionTags(group=GroupFrom(key=r"(?:_*s)?\d+-(?P<group>\w+)"))
        rows: dict[str, Any] = {f"{n}-{group}": {} for group in "ab" for n in range(3)}
        rows |= {"9-a": {}, "__s1-a": {}, "8-a": {}}
        assert told(rows_of(tags, rows)) == [
            ("a", ["0-a", "1-a", "2-a", "8-a", "9-a"], "ready", None),
            ("b", ["0-b", "1-b", "2-b"], "ready", None),
        ]

    def test_an_empty_or_missing_id_and_a_long_key_are_groups_of_their_own(self) -> None:
        tags = ConventionTags(group=GroupFrom(key=r"(?P<group>x*)?y"))
        long = "x" * (MAX_NAME - 1) + "y"
        assert told(rows_of(tags, {"y": {"size_bytes": 1}, long: {}, f"x{long}": {"size_bytes": 1}})) == [
            ("y", ["y"], "ready", None),
            (long[:-1], [long], "ready", None),
            (f"x{long}", [f"x{long}"], "ready", None),
        ]

    def test_a_tag_wins_over_the_key(self) -> None:
        tags = ConventionTags(group=GroupFrom(tag="uid", key=r"(?P<group>.+)_s\d+"))
        found = rows_of(tags, {"a_s0": {"uid": "b"}, "b_s1": {}, "c": {}})
        assert told(found) == [("b", ["a_s0", "b_s1"], "ready", None), ("c", ["c"], "uncommitted", None)]

    @pytest.mark.parametrize(
        ("pattern", "problem"),
        [
            (r"(.+)_s\d+", "has no group named group"),
            (r"(?P<group>.+_s", "is not a regular expression: missing )"),
            (r"(?P<group>(?:a+)+)b", "repeats a group"),
            (r"(?P<group>(?:a|a)*)b", "repeats a group"),
            (r"(?P<group>(?:a|a){9})b", "repeats a group"),
            (r"(?P<group>(?:a?){2,})b", "repeats a group"),
            (r"(?P<group>.+).*.*.*b", "has 4 times *, + or {m,n}"),
            (r"(?P<group>.+).*.{2,}.{,3}?b", "has 4 times *, + or {m,n}"),
            (r"(?P<group>a?a?a?)b", "has 3 times ? or |"),
            (r"(?P<group>a|b|c|d)b", "has 3 times ? or |"),
            (r"(?=.*x)(?P<group>.+)", "has a (?…)"),
            (r"(?x)(?P<group>.+)#[", "has a (?…)"),
            (r"(?P<group>.+)_(?P=group)", "has a (?…)"),
        ],
    )
    def test_an_expression_that_could_take_long_is_refused(self, pattern: str, problem: str) -> None:
        with pytest.raises(BadConvention) as caught:
            ConfiguredConvention("mine", ConventionTags(group=GroupFrom(key=pattern)))
        assert str(caught.value).startswith(f"group.key: {problem}")
        assert caught.value.remedy

    @pytest.mark.parametrize(
        "pattern",
        [
            r"(?P<group>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})_\d+_\d+",
            r"(?P<group>[^]*+?{}|()]+?)[\]*+?]\?\|\*\+\{2,3\}\)+",
            r"(?:val|train)/(?P<group>.+)/\d{1,4}",
        ],
    )
    def test_signs_that_stand_for_themselves_are_not_counted(self, pattern: str) -> None:
        ConfiguredConvention("mine", ConventionTags(group=GroupFrom(key=pattern)))

    @pytest.mark.parametrize("pattern", [r".*.*.*a?a?(?P<group>x)", r".*.*.*(?:a|.)(?:.|a)(?P<group>x)"])
    def test_the_worst_expression_does_not_hang_on_the_worst_key(self, pattern: str) -> None:
        tags, started = ConventionTags(group=GroupFrom(key=pattern)), time.process_time()
        rows_of(tags, {"a" * MAX_NAME: {}, "a" * 100_000: {}})
        assert time.process_time() - started < 10  # 0.3 s, and hours without the limit on the key


class TestCommitted:
    def test_a_row_without_the_tag_is_committed_until_a_row_had_it(self) -> None:
        memory = Memory()
        before = {"k": {"uid": "a", "n": 1}}
        assert told(rows_of(STATUS, before, memory))[0][2] == "ready"
        rows_of(STATUS, before | {"l": {"uid": "b", "status": "done"}}, memory)
        assert told(rows_of(STATUS, before, memory))[0][2] == "uncommitted"

    def test_every_row_has_to_say_so(self) -> None:
        rows = {"k": {"uid": "a", "status": "done"}, "l": {"uid": "a", "status": "writing"}}
        assert told(rows_of(STATUS, rows))[0][2] == "uncommitted"

    def test_without_such_a_tag_a_row_with_a_version_is(self) -> None:
        memory = Memory()
        assert told(rows_of(KEYS, {"x_s0": {}}, memory))[0][2] == "ready"
        rows = {"x_s0": {"v": 1}, "x_s1": {}, "y_s0": {"v": 1}}
        assert [state for _, _, state, _ in told(rows_of(KEYS, rows, memory))] == ["uncommitted", "ready"]
        assert told(rows_of(KEYS, {"x_s0": {}}, memory))[0][2] == "uncommitted"

    def test_the_version_itself_may_say_so(self) -> None:
        tags = ConventionTags(weight_version=TagNamed("v"), committed=TagWith("v", (1,)))
        assert [state for _, _, state, _ in told(rows_of(tags, {"a": {"v": 1}, "b": {"v": 0}}))] == [
            "ready",
            "uncommitted",
        ]

    def test_it_can_be_demanded_from_the_start(self) -> None:
        grouper = Grouper(
            default=TagRules("mine", committed_by_default=False), more=(ConfiguredConvention("mine", STATUS),)
        )
        assert told(grouper.group_rows("p", {"k": {"uid": "a"}}))[0][2] == "uncommitted"


@pytest.mark.parametrize(
    ("values", "said", "not_said"),
    [
        ((True,), [True, "true", "yes", 1, "1", np.True_], [False, "false", 2, "x", None]),
        ((False,), [False, "no", 0], [True, "x", None]),
        ((1,), [1, 1.0, "1", "1.0", np.int64(1)], [True, 2, "one", None]),
        ((0.5,), [0.5, "0.5", np.float64(0.5)], [0, "x"]),
        (("1",), ["1", 1, np.int64(1)], ["1.0", True]),
        (("done", "ok"), ["done", "ok"], ["Done", "", None, ["done"], {"a": 1}, np.array(["done", "ok"])]),
    ],
)
def test_values_are_compared_as_their_type_has_them(values: Any, said: list[Any], not_said: list[Any]) -> None:
    tags = ConventionTags(group=GroupFrom(tag="uid"), failed=TagWith("f", values))
    for value in (*said, *not_said):
        (group,) = rows_of(tags, {"k": {"uid": "a", "f": value}})
        assert group.failed is any(value is one for one in said), value


class TestAuto:
    @pytest.mark.parametrize(
        ("tags", "rows", "chosen"),
        [
            # Tags of its own decide.
            (STATUS, {"k": {"uid": "a"}}, "mine"),
            (STATUS, {"k": {"bytes": 1}}, "mine"),
            (STATUS, {"k": {"policy-version": 1, "group_id": "a"}}, "mine"),
            # Those that a convention that ships reads as well do not.
            (STATUS, {"k": {"status": "running", "is_prompt": True}, "l": {"is_padding": True}}, "verl"),
            (STATUS, {"k": {"status": "done"}}, "nemo-rl"),
            (STATUS, {"k": {}}, "nemo-rl"),
            (STATUS, {"k": None}, "nemo-rl"),
            (STATUS, {}, "nemo-rl"),
            # So a convention without a tag of its own takes no partition.
            (ConventionTags(weight_version=TagNamed("weight_version")), {"k": {"weight_version": 1}}, "nemo-rl"),
            (
                ConventionTags(weight_version=TagNamed("weight_version")),
                {"k": {"weight_version": 1, "group_id": "a"}},
                "recovery",
            ),
            (
                ConventionTags(weight_version=TagNamed("min_global_steps")),
                {"k_0_0": {"min_global_steps": 1, "status": "success"}},
                "verl",
            ),
            (ConventionTags(group=GroupFrom(key="(?P<group>.+)_s")), {"k_s": {"weight_version": 1}}, "nemo-rl"),
        ],
    )
    def test_a_tag_that_only_this_convention_reads_decides(
        self, tags: ConventionTags, rows: Mapping[str, Any], chosen: str
    ) -> None:
        assert rows_of(tags, rows, name="auto").convention == chosen

    def test_the_first_of_several_is_asked_first(self) -> None:
        first, second = (ConfiguredConvention(name, STATUS) for name in ("zz", "aa"))
        registry = conventions.registry((first, second))
        assert group_rows("p", {"k": {"uid": "a"}}, registry=registry).convention == "zz"
        conventions.register(second)
        try:
            assert Grouper(more=(first,)).group_rows("p", {"k": {"uid": "a"}}).convention == "zz"
        finally:
            conventions.unregister("aa")

    def test_what_was_recognised_stays(self) -> None:
        memory = Memory()
        grouper = Grouper(more=(ConfiguredConvention("mine", STATUS),))
        assert grouper.group_rows("p", {"k": {"uid": "a"}}).convention == "mine"
        assert grouper.group_rows("p", {"k": {"status": "done"}}).convention == "mine"
        assert rows_of(STATUS, {"k": {"status": "done"}}, memory, "auto").convention == "nemo-rl"


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (ConventionTags(), "says neither group nor weight_version; name the tag of one of them"),
        (ConventionTags(group=GroupFrom()), "group: is empty; name a tag or a regular expression as key"),
        *(
            (
                ConventionTags(group=GroupFrom(tag=tag)),
                'names a tag that cannot be read; give each tag a name without ", \\ and control characters',
            )
            for tag in ("", "\n", "a\ud800", '"', "\\")
        ),
        (
            ConventionTags(group=GroupFrom(tag="a"), failed=TagWith("a", ())),
            "failed.values: is empty; name at least one value",
        ),
        (
            ConventionTags(group=GroupFrom(tag="a"), ignore=TagWith("a", (float("nan"),))),
            "ignore.values: has a number that is out of range; put it in quotes",
        ),
        (
            ConventionTags(group=GroupFrom(tag="a"), ignore=TagWith("a", (10**400,))),
            "ignore.values: has a number that is out of range; put it in quotes",
        ),
    ],
)
def test_what_cannot_be_a_convention_is_refused(tags: ConventionTags, said: str) -> None:
    with pytest.raises(BadConvention) as caught:
        ConfiguredConvention("mine", tags)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == said


def test_rules_that_name_an_unknown_convention_are_refused() -> None:
    for rules, default in (({"p": TagRules("mine")}, TagRules()), ({}, TagRules("mine"))):
        with pytest.raises(ValueError, match="unknown convention 'mine', choose one of auto, nemo-rl"):
            Grouper(rules, default)
        Grouper(rules, default, (ConfiguredConvention("mine", KEYS),))


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert conventions.names() == ("auto", "nemo-rl", "recovery", "verl")
