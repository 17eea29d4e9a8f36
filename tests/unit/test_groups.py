"""Grouping by example: one test per rule."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import msgspec
import pytest

from dataplane.groups import DataPlaneGroupMeta, count_ready, group_rows
from dataplane.tags import Convention, LooseTagFields, TagFields


def only(rows: dict[str, Any], **rules: Any) -> DataPlaneGroupMeta:
    groups = group_rows("p", rows, **rules)
    assert len(groups) == 1
    return groups[0]


RECOVERY: dict[str, Any] = {
    "group_id": "g",
    "weight_version": 7,
    "committed": True,
    "expected_num_keys": 2,
    "created_at": 100.5,
    "size_bytes": 10,
}


class TestRecovery:
    def test_a_complete_group(self) -> None:
        assert only({"b": RECOVERY, "a": RECOVERY}) == DataPlaneGroupMeta(
            partition_id="p",
            group_id="g",
            keys=["a", "b"],
            weight_version=7,
            created_at=100.5,
            committed=True,
            expected_num_keys=2,
            size_bytes=20,
            tags=RECOVERY,
        )

    @pytest.mark.parametrize(("tag", "group_id"), [(0, "0"), ("", ""), (12, "12"), (2**80, str(2**80)), (1.5, "1.5")])
    def test_a_group_id_of_any_scalar_is_text(self, tag: object, group_id: str) -> None:
        group = only({"k": {"group_id": tag}})
        assert (group.group_id, group.malformed_keys) == (group_id, 0)

    @pytest.mark.parametrize("tag", [None, [1], {"a": 1}, b"g", 10**5000], ids=type)
    def test_an_unreadable_group_id_leaves_the_key_and_is_counted(self, tag: object) -> None:
        group = only({"k": {"group_id": tag}})
        assert (group.group_id, group.malformed_keys) == ("k", 1)

    def test_without_a_group_id_each_key_is_its_own_group(self) -> None:
        assert [g.group_id for g in group_rows("p", {"u_g0": {"committed": True}, "u_g1": {"committed": True}})] == [
            "u_g0",
            "u_g1",
        ]

    def test_the_oldest_version_and_creation_time_count(self) -> None:
        group = only({str(n): {"group_id": "g", "weight_version": n, "created_at": n} for n in (3, 1, 2)})
        assert (group.weight_version, group.created_at) == (1, 1.0)

    @pytest.mark.parametrize("said", [True, 1, "true", "True", " yes ", "1"])
    def test_committed(self, said: object) -> None:
        assert only({"k": {"committed": said}}).committed

    @pytest.mark.parametrize("said", [False, 0, "false", "no", "0", ""])
    def test_not_committed(self, said: object) -> None:
        group = only({"k": {"committed": said}})
        assert (group.committed, group.malformed_keys) == (False, 0)

    @pytest.mark.parametrize("said", [None, 2, 1.0, "maybe", [True]])
    def test_an_unreadable_committed_is_not_committed_and_counted(self, said: object) -> None:
        group = only({"k": {"committed": said}})
        assert (group.committed, group.malformed_keys) == (False, 1)

    def test_one_row_that_does_not_say_so_leaves_the_group_uncommitted(self) -> None:
        group = only({"a": {"group_id": "g", "committed": True}, "b": {"group_id": "g"}})
        assert (group.state, group.malformed_keys) == ("uncommitted", 0)

    def test_where_no_row_says_committed_listed_is_committed(self) -> None:
        """Newer NeMo RL: ``group_id`` and ``weight_version`` on every row, never ``committed``."""
        rows = {f"p{i}_g{k}": {"group_id": f"p{i}", "weight_version": 3 + i} for i in range(2) for k in range(4)}
        assert [(g.group_id, g.state, len(g.keys)) for g in group_rows("p", rows)] == [
            ("p0", "ready", 4),
            ("p1", "ready", 4),
        ]
        assert [
            g.state for g in group_rows("p", {"a": {"group_id": "g"}, "b": {"group_id": "h", "weight_version": 1}})
        ] == [
            "ready",
            "ready",
        ]

    def test_where_no_row_says_committed_a_row_without_any_tag_is_still_being_written(self) -> None:
        rows = {"p0_g0": {"group_id": "p0", "weight_version": 3}, "p1_g0": {}}
        assert [g.state for g in group_rows("p", rows)] == ["ready", "uncommitted"]

    def test_one_row_that_says_committed_asks_it_of_the_whole_partition(self) -> None:
        rows = {"a": {"group_id": "g", "committed": True}, "b": {"group_id": "h"}, "c": {"group_id": "i"}}
        assert [g.state for g in group_rows("p", rows)] == ["ready", "uncommitted", "uncommitted"]

    def test_disagreeing_expectations_give_the_largest(self) -> None:
        assert only({str(n): {"group_id": "g", "expected_num_keys": n} for n in (2, 8, 4)}).expected_num_keys == 8

    def test_num_keys_stands_in_for_expected_num_keys(self) -> None:
        assert only({"k": {"num_keys": 3}}).expected_num_keys == 3
        assert only({"k": {"num_keys": 3, "expected_num_keys": 5}}).expected_num_keys == 5

    def test_group_size_stands_in_for_both(self) -> None:
        assert only({"k": {"committed": True}}, group_size=4).expected_num_keys == 4
        assert only({"k": {"expected_num_keys": 2}}, group_size=4).expected_num_keys == 2

    def test_sizes_add_up_over_the_rows_that_declare_one(self) -> None:
        rows = {
            "a": {"group_id": "g", "size_bytes": 3},
            "b": {"group_id": "g"},
            "c": {"group_id": "g", "size_bytes": 4},
        }
        assert only(rows).size_bytes == 7
        assert only({"k": {"group_id": "g"}}).size_bytes is None

    def test_tags_are_a_sorted_copy_of_the_first_listed_row(self) -> None:
        first = {"weight_version": 1, "group_id": "g", "extra": [1]}
        tags = only({"b": first, "a": {"group_id": "g"}}).tags
        assert list(tags.items()) == [("extra", [1]), ("group_id", "g"), ("weight_version", 1)]
        tags["new"] = 1
        assert "new" not in first

    def test_interleaved_groups_are_collected(self) -> None:
        rows = {f"{n}": {"group_id": "even" if n % 2 == 0 else "odd", "size_bytes": 1} for n in range(6)}
        assert [(g.group_id, g.keys, g.size_bytes) for g in group_rows("p", rows)] == [
            ("even", ["0", "2", "4"], 3),
            ("odd", ["1", "3", "5"], 3),
        ]


class TestMalformed:
    NOT_INTEGERS = (None, "7", 7.5, float("nan"), float("inf"), 2**53 + 1, -(2**70), True, [7], {"v": 7}, b"7")

    @pytest.mark.parametrize("value", NOT_INTEGERS)
    def test_a_version_that_is_no_integer_is_unknown_and_counted(self, value: object) -> None:
        group = only({"k": {"weight_version": value}})
        assert (group.weight_version, group.malformed_keys, group.state) == (None, 1, "ready")

    @pytest.mark.parametrize("value", [7, 7.0, 2**53, -1])
    def test_integers_and_integral_floats_are_versions(self, value: float) -> None:
        group = only({"k": {"weight_version": value}})
        assert (group.weight_version, group.malformed_keys) == (int(value), 0)

    @pytest.mark.parametrize("field", ["expected_num_keys", "num_keys", "size_bytes"])
    @pytest.mark.parametrize("value", [*NOT_INTEGERS, -1])
    def test_a_count_that_is_none_is_unknown_and_counted(self, field: str, value: object) -> None:
        group = only({"k": {field: value, "committed": True}})
        assert (group.expected_num_keys, group.size_bytes, group.malformed_keys) == (None, None, 1)

    @pytest.mark.parametrize("value", [None, "100", float("nan"), float("inf"), True, 10**400, [1.0]], ids=str)
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
        rows = {"k": LooseTagFields(weight_version=msgspec.msgpack.Ext(5, b"numpy"), size_bytes=1)}
        group = only(rows)
        assert (group.weight_version, group.malformed_keys, group.tags) == (None, 1, {"size_bytes": 1})


class TestNemoRL:
    def test_rows_of_a_group_share_what_stands_before_g(self) -> None:
        rows = {f"u_g0_g{n}": {"weight_version": 3} for n in (10, 2)}
        group = only(rows)
        assert (group.group_id, group.keys, group.state) == ("u_g0", ["u_g0_g10", "u_g0_g2"], "ready")

    @pytest.mark.parametrize("key", ["u", "u_g", "u_gx", "_g", "_g0", "u_g-1", "7"])
    def test_other_keys_are_groups_of_their_own(self, key: str) -> None:
        assert only({key: {"weight_version": 3}}).group_id == key

    def test_a_bare_row_among_tagged_ones_is_a_write_in_progress(self) -> None:
        groups = group_rows("p", {"u_g0": {"weight_version": 3}, "v_g0": {}})
        assert [g.state for g in groups] == ["ready", "uncommitted"]

    def test_a_partition_without_any_tag_is_committed_of_unknown_version(self) -> None:
        groups = group_rows("p", {"u_g0": {}, "u_g1": {}, "v_g0": {}})
        assert [(g.state, g.weight_version, len(g.keys)) for g in groups] == [("ready", None, 2), ("ready", None, 1)]

    def test_a_partition_of_versions_only_is_recognised(self) -> None:
        assert count_ready(group_rows("p", {f"u{i // 4}_g{i % 4}": {"weight_version": 1} for i in range(16)})) == 4

    def test_group_size_makes_completeness(self) -> None:
        rows = {"u_g0": {"weight_version": 1}, "u_g1": {"weight_version": 1}, "v_g0": {"weight_version": 1}}
        assert [g.state for g in group_rows("p", rows, group_size=2)] == ["ready", "incomplete"]


class TestVerl:
    @staticmethod
    def prompt(status: object) -> dict[str, Any]:
        return {"is_prompt": True, "status": status, "global_steps": 5}

    @staticmethod
    def trajectory(status: object = "finished", version: object = 4) -> dict[str, Any]:
        return {"status": status, "min_global_steps": version, "max_global_steps": 6, "seq_len": 10}

    @pytest.mark.parametrize(
        ("status", "state"),
        [("pending", "uncommitted"), ("running", "uncommitted"), ("finished", "ready"), ("failure", "failed")],
    )
    def test_the_prompt_row_decides(self, status: str, state: str) -> None:
        rows = {"u": self.prompt(status), "u_0_0": self.trajectory(), "u_1_0": self.trajectory("running", 3)}
        group = only(rows)
        assert (group.group_id, group.keys, group.state) == ("u", ["u", "u_0_0", "u_1_0"], state)
        assert group.weight_version == 3

    def test_a_pending_prompt_has_no_version_yet(self) -> None:
        assert only({"u": self.prompt("pending")}).weight_version is None

    def test_trajectories_whose_prompt_is_taken_are_ready(self) -> None:
        assert only({"u_0_0": self.trajectory(), "u_0_1": self.trajectory()}).state == "ready"

    @pytest.mark.parametrize("status", ["pending", "running"])
    def test_an_unfinished_trajectory_without_its_prompt_is_a_write_in_progress(self, status: str) -> None:
        assert only({"u_0_0": self.trajectory(), "u_1_0": self.trajectory(status)}).state == "uncommitted"

    def test_a_failed_trajectory_fails_its_group_only_without_a_prompt_row(self) -> None:
        rows = {"u_0_0": self.trajectory(), "u_1_0": self.trajectory("failure")}
        assert only(rows).state == "failed"
        assert only({**rows, "u": self.prompt("finished")}).state == "ready"
        assert only({**rows, "u": self.prompt("running")}).state == "uncommitted"

    def test_a_prompts_key_that_looks_like_a_trajectorys_is_the_groups_id(self) -> None:
        rows = {"a_1_2": self.prompt("finished"), "a_1_2_0_0": self.trajectory(), "a_1_2_1_0": self.trajectory()}
        group = only(rows)
        assert (group.group_id, group.keys, group.state) == ("a_1_2", sorted(rows), "ready")

    def test_a_bare_trajectory_is_a_write_in_progress(self) -> None:
        groups = group_rows("p", {"u_0_0": {}, "v_0_0": self.trajectory()})
        assert [(g.state, g.malformed_keys) for g in groups] == [("uncommitted", 0), ("ready", 0)]

    def test_a_version_of_none_is_unknown_and_not_malformed(self) -> None:
        group = only({"u_0_0": self.trajectory(version=None)})
        assert (group.weight_version, group.malformed_keys, group.state) == (None, 0, "ready")

    @pytest.mark.parametrize("status", [None, 3, ["finished"]])
    def test_a_status_that_is_no_text_is_counted_and_not_finished(self, status: object) -> None:
        group = only({"u": self.prompt(status), "u_0_0": self.trajectory()})
        assert (group.state, group.malformed_keys) == ("uncommitted", 1)

    @pytest.mark.parametrize("key", ["u_0", "u_x_0", "u_0_x", "_0_0"])
    def test_keys_of_another_form_are_groups_of_their_own(self, key: str) -> None:
        assert only({key: self.trajectory()}).group_id == key


@pytest.mark.parametrize(
    "tag",
    [{"group_id": "x"}, {"committed": True}, {"expected_num_keys": 2}, {"num_keys": 2}, {"created_at": 5.0}],
    ids=str,
)
def test_one_row_with_a_tag_that_only_recovery_has_makes_the_partition_recovery(tag: dict[str, Any]) -> None:
    rows = {"a_g0": {"weight_version": 1}, "a_g1": {"weight_version": 1}}
    assert [group.group_id for group in group_rows("p", rows)] == ["a"]
    assert {"a_g0", "a_g1"} <= {group.group_id for group in group_rows("p", {**rows, "b": tag})}


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
    assert group_rows("p", {"a": msgspec.convert(RECOVERY, TagFields)}) == group_rows("p", {"a": RECOVERY})


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
def test_one_odd_row_among_groups_that_look_alike(convention: Convention, key: str, odd: int) -> None:
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
