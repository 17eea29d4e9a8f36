"""Grouping by example, whatever the convention: one test per rule."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import msgspec
import pytest

from dataplane import conventions
from dataplane.groups import DataPlaneGroupMeta, count_ready, group_rows
from tests.support.rows import RECOVERY, only


class TestMalformed:
    NOT_INTEGERS = (
        None,
        "step-7",
        "7.5",
        "",
        "٣",
        7.5,
        float("nan"),
        float("inf"),
        2**53 + 1,
        -(2**70),
        True,
        [7],
        {"v": 7},
        b"7",
    )

    @pytest.mark.parametrize("value", NOT_INTEGERS)
    def test_a_version_that_is_no_integer_is_unknown_and_counted(self, value: object) -> None:
        group = only({"k": {"weight_version": value}})
        assert (group.weight_version, group.malformed_keys, group.state) == (None, 1, "ready")

    @pytest.mark.parametrize("value", [7, 7.0, 2**53, -1, "7", " 12 ", "-3", "7.0", "1e3"])
    def test_integers_also_as_floats_or_text_are_versions(self, value: float | str) -> None:
        group = only({"k": {"weight_version": value}})
        assert (group.weight_version, group.malformed_keys) == (int(float(value)), 0)

    @pytest.mark.parametrize("field", ["expected_num_keys", "num_keys", "size_bytes"])
    @pytest.mark.parametrize("value", [*NOT_INTEGERS, -1])
    def test_a_count_that_is_none_is_unknown_and_counted(self, field: str, value: object) -> None:
        group = only({"k": {field: value, "committed": True}})
        assert (group.expected_num_keys, group.size_bytes, group.malformed_keys) == (None, None, 1)

    @pytest.mark.parametrize(
        "value", [None, "yesterday", "nan", float("nan"), float("inf"), True, 10**400, [1.0]], ids=str
    )
    def test_a_time_that_is_none_is_unknown_and_counted(self, value: object) -> None:
        group = only({"k": {"created_at": value}})
        assert (group.created_at, group.malformed_keys) == (None, 1)

    @pytest.mark.parametrize("tag", [None, 7, "tag", [], ["weight_version"], b"", float("nan")])
    def test_a_tag_that_is_no_mapping_is_counted(self, tag: object) -> None:
        group = only({"k": tag})
        assert (group.keys, group.tags, group.malformed_keys) == (["k"], {}, 1)

    def test_a_row_with_two_unreadable_tags_counts_once(self) -> None:
        assert only({"k": {"weight_version": "x", "created_at": "y", "committed": "z"}}).malformed_keys == 1

    def test_each_malformed_row_of_a_group_counts(self) -> None:
        rows = {str(n): {"group_id": "g", "created_at": float("inf")} for n in range(3)} | {"ok": {"group_id": "g"}}
        assert only(rows).malformed_keys == 3

    def test_one_malformed_row_leaves_the_other_rows_as_they_are(self) -> None:
        good = group_rows("p", {"a": RECOVERY, "b": {**RECOVERY, "group_id": "h"}})
        mixed = group_rows("p", {"a": RECOVERY, "bad": None, "b": {**RECOVERY, "group_id": "h"}})
        assert [g for g in mixed if g.group_id != "bad"] == good

    def test_keys_of_any_type_in_a_tag_do_no_harm(self) -> None:
        group = only({"k": {1: "one", (2,): "two", None: 0, "weight_version": 3}})
        assert (group.weight_version, group.malformed_keys, len(group.tags)) == (3, 0, 4)

    def test_extension_types_of_the_wire_are_unreadable_and_not_kept(self) -> None:
        rows = {"k": conventions.schema().loose(weight_version=msgspec.msgpack.Ext(5, b"numpy"), size_bytes=1)}
        group = only(rows)
        assert (group.weight_version, group.malformed_keys, group.tags) == (None, 1, {"size_bytes": 1})


def test_a_pinned_convention_is_followed() -> None:
    rows = {"u_g0": {"weight_version": 1, "created_at": 5.0}, "u_g1": {"weight_version": 1, "created_at": 5.0}}
    assert len(group_rows("p", rows)) == 2  # created_at makes it look like recovery
    group = only(rows, convention="nemo-rl")
    assert (group.group_id, group.created_at, group.state) == ("u", 5.0, "ready")


def test_reserved_keys_are_no_groups_and_decide_nothing() -> None:
    rows = {"__schema__:x": {"committed": True, "is_prompt": True}, "u_g0": {"weight_version": 1}, "__y": None}
    assert only(rows).group_id == "u"


def test_no_rows_no_groups() -> None:
    assert group_rows("p", {}) == []
    assert group_rows("p", {"__schema__": {}}) == []


def test_groups_come_in_the_order_of_their_first_rows() -> None:
    rows = {f"{name}_g0": {"weight_version": 1} for name in "zay"}
    assert [group.group_id for group in group_rows("p", rows)] == ["z", "a", "y"]


def test_typed_tags_group_like_dicts() -> None:
    assert group_rows("p", {"a": msgspec.convert(RECOVERY, conventions.schema().checked)}) == group_rows(
        "p", {"a": RECOVERY}
    )


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"committed": True}, "ready"),
        ({"committed": True, "expected_num_keys": 1}, "ready"),
        ({"committed": True, "expected_num_keys": 2}, "incomplete"),
        ({"committed": True, "expected_num_keys": 0}, "incomplete"),
        ({"committed": False, "expected_num_keys": 2}, "uncommitted"),
        ({"committed": True, "failed": True}, "failed"),
    ],
)
def test_state_and_depth(fields: dict[str, Any], state: str) -> None:
    group = DataPlaneGroupMeta("p", "g", ["k"], **fields)
    assert group.state == state
    assert count_ready([group, group]) == (2 if state == "ready" else 0)


def test_group_metadata_is_frozen_and_pickles_and_copies() -> None:
    group = only({"a": RECOVERY})
    with pytest.raises(AttributeError):
        group.committed = False  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(group)) == copy.deepcopy(group) == group
    assert DataPlaneGroupMeta("p", "g", []).tags is not DataPlaneGroupMeta("p", "g", []).tags


@pytest.mark.parametrize("odd", range(9))
@pytest.mark.parametrize(("convention", "key"), [("nemo-rl", "{}_g{}"), ("verl", "{}_{}_0"), ("recovery", "{} {}")])
def test_one_odd_row_among_groups_that_look_alike(convention: str, key: str, odd: int) -> None:
    names = [(uid, number) for uid in "uvw" for number in range(3)]

    def grouped(odd_version: int) -> list[DataPlaneGroupMeta]:
        rows = {}
        for index, (uid, number) in enumerate(names):
            version = {"min_global_steps" if convention == "verl" else "weight_version": odd_version}
            rows[key.format(uid, number)] = {
                **(version if index == odd else dict.fromkeys(version, 5)),
                **({"group_id": uid} if convention == "recovery" else {}),
            }
        return group_rows("p", rows, convention=convention)

    strayed = names[odd]
    expected = {uid: [key.format(uid, number) for number in range(3)] for uid in "uvw"}
    assert {group.group_id: group.keys for group in grouped(4)} == expected
    assert {group.group_id: group.weight_version for group in grouped(4)} == {**dict.fromkeys("uvw", 5), strayed[0]: 4}

    names[odd] = ("x", 7)
    expected = {**expected, "x": [key.format("x", 7)]}
    expected[strayed[0]].remove(key.format(*strayed))
    assert {group.group_id: group.keys for group in grouped(5)} == expected


def test_a_reserved_key_belongs_to_no_group_also_with_a_group_id() -> None:
    tag = {"group_id": "a", "weight_version": 1}
    assert only({"x": tag, "__schema__:1": tag, "y": tag}).keys == ["x", "y"]
    assert group_rows("p", {"__schema__:1": tag}) == []


def test_a_key_that_is_a_groups_id_does_not_make_another_groups_key_look_like_its_own() -> None:
    # After "u", a key without an ending, "v_g" would look like one of "v".
    groups = group_rows("p", {key: {"weight_version": 1} for key in ("u_g0", "u", "v_g0", "v_g")})
    assert {group.group_id: group.keys for group in groups} == {"u": ["u", "u_g0"], "v": ["v_g0"], "v_g": ["v_g"]}


@pytest.mark.parametrize(
    ("members", "fields", "complete"),
    [
        (None, {"expected_num_keys": 2}, True),
        (None, {"expected_num_keys": 1}, False),
        (None, {"expected_num_keys": 1, "at_least": True}, True),
        (None, {"expected_num_keys": 3, "at_least": True}, False),
        (3, {"expected_num_keys": 3}, True),
        (3, {}, True),
    ],
)
def test_a_declared_number_is_exact_unless_it_is_a_minimum(
    members: int | None, fields: dict[str, Any], complete: bool
) -> None:
    assert DataPlaneGroupMeta("p", "g", ["a", "b"], members=members, **fields).is_complete is complete


def test_a_configured_size_is_a_minimum_and_a_declared_one_exact() -> None:
    rows = {f"u_g{n}": {"weight_version": 1} for n in range(3)}
    assert only(rows, group_size=2).state == "ready"
    assert only(rows, group_size=4).state == "incomplete"
    declared = {key: {**tag, "num_keys": 2} for key, tag in rows.items()}
    assert only(declared, convention="nemo-rl", group_size=3).state == "incomplete"


def test_trainers_that_take_failed_groups_see_them_as_ready() -> None:
    rows = {
        "u": {"is_prompt": True, "status": "failure"},
        "u_0_0": {"min_global_steps": 1},
        "v": {"is_prompt": True, "status": "failure"},
    }
    assert [group.state for group in group_rows("p", rows)] == ["failed", "failed"]
    assert [group.state for group in group_rows("p", rows, take_failed=True)] == ["ready", "failed"]


def test_a_row_with_neither_tag_nor_id_is_bare() -> None:
    rows = {"k": {}, "u_g0": {"weight_version": 1}, "v_g0": {}, "own": {"group_id": "g"}}
    for convention, bare in {"nemo-rl": ["k"], "recovery": ["k", "v_g0"], "verl": ["k", "v_g0"]}.items():
        groups = group_rows("p", rows, convention=convention)
        assert [group.group_id for group in groups if group.bare] == bare
        assert all(group.state == "uncommitted" for group in groups if group.bare)


def test_a_listing_tells_how_it_was_read() -> None:
    rows = {
        "u": {"is_prompt": True, "status": "running", "global_steps": 5},
        "__x": {},
        "pad_0_0": {"is_padding": True},
    }
    listing = group_rows("p", rows)
    assert (listing.convention, listing.rows, listing.stated_version, len(listing)) == ("verl", 3, 4, 1)
    assert group_rows("p", {}).stated_version is None
