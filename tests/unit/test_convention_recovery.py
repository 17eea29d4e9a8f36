"""The ``recovery`` convention by example: one test per rule."""

from __future__ import annotations

import pytest

from dataplane import conventions
from dataplane.groups import DataPlaneGroupMeta, group_rows
from tests.support.rows import RECOVERY, only


def test_a_complete_group() -> None:
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
def test_a_group_id_of_any_scalar_is_text(tag: object, group_id: str) -> None:
    group = only({"k": {"group_id": tag}})
    assert (group.group_id, group.malformed_keys) == (group_id, 0)


@pytest.mark.parametrize("tag", [None, [1], {"a": 1}, b"g", 10**5000], ids=type)
def test_an_unreadable_group_id_leaves_the_key_and_is_counted(tag: object) -> None:
    group = only({"k": {"group_id": tag}})
    assert (group.group_id, group.malformed_keys) == ("k", 1)


def test_without_a_group_id_each_key_is_its_own_group() -> None:
    assert [g.group_id for g in group_rows("p", {"u_g0": {"committed": True}, "u_g1": {"committed": True}})] == [
        "u_g0",
        "u_g1",
    ]


def test_the_oldest_version_and_creation_time_count() -> None:
    group = only({str(n): {"group_id": "g", "weight_version": n, "created_at": n} for n in (3, 1, 2)})
    assert (group.weight_version, group.created_at) == (1, 1.0)


@pytest.mark.parametrize("said", [True, 1, "true", "True", " yes ", "1"])
def test_committed(said: object) -> None:
    assert only({"k": {"committed": said}}).committed


@pytest.mark.parametrize("said", [False, 0, "false", "no", "0", ""])
def test_not_committed(said: object) -> None:
    group = only({"k": {"committed": said}})
    assert (group.committed, group.malformed_keys) == (False, 0)


@pytest.mark.parametrize("said", [None, 2, 1.0, "maybe", [True]])
def test_an_unreadable_committed_is_not_committed_and_counted(said: object) -> None:
    group = only({"k": {"committed": said}})
    assert (group.committed, group.malformed_keys) == (False, 1)


def test_one_row_that_does_not_say_so_leaves_the_group_uncommitted() -> None:
    group = only({"a": {"group_id": "g", "committed": True}, "b": {"group_id": "g"}})
    assert (group.state, group.malformed_keys) == ("uncommitted", 0)


def test_where_no_row_says_committed_listed_is_committed() -> None:
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


def test_where_no_row_says_committed_a_row_without_any_tag_is_still_being_written() -> None:
    rows = {"p0_g0": {"group_id": "p0", "weight_version": 3}, "p1_g0": {}}
    assert [g.state for g in group_rows("p", rows)] == ["ready", "uncommitted"]


def test_one_row_that_says_committed_asks_it_of_the_whole_partition() -> None:
    rows = {"a": {"group_id": "g", "committed": True}, "b": {"group_id": "h"}, "c": {"group_id": "i"}}
    assert [g.state for g in group_rows("p", rows)] == ["ready", "uncommitted", "uncommitted"]


def test_disagreeing_expectations_give_the_largest() -> None:
    assert only({str(n): {"group_id": "g", "expected_num_keys": n} for n in (2, 8, 4)}).expected_num_keys == 8


def test_num_keys_stands_in_for_expected_num_keys() -> None:
    assert only({"k": {"num_keys": 3}}).expected_num_keys == 3
    assert only({"k": {"num_keys": 3, "expected_num_keys": 5}}).expected_num_keys == 5


def test_group_size_stands_in_for_both() -> None:
    assert only({"k": {"committed": True}}, group_size=4).expected_num_keys == 4
    assert only({"k": {"expected_num_keys": 2}}, group_size=4).expected_num_keys == 2


def test_sizes_add_up_over_the_rows_that_declare_one() -> None:
    rows = {
        "a": {"group_id": "g", "size_bytes": 3},
        "b": {"group_id": "g"},
        "c": {"group_id": "g", "size_bytes": 4},
    }
    assert only(rows).size_bytes == 7
    assert only({"k": {"group_id": "g"}}).size_bytes is None


def test_tags_are_a_sorted_copy_of_the_first_listed_row() -> None:
    first = {"weight_version": 1, "group_id": "g", "extra": [1]}
    tags = only({"b": first, "a": {"group_id": "g"}}).tags
    assert list(tags.items()) == [("extra", [1]), ("group_id", "g"), ("weight_version", 1)]
    tags["new"] = 1
    assert "new" not in first


def test_interleaved_groups_are_collected() -> None:
    rows = {f"{n}": {"group_id": "even" if n % 2 == 0 else "odd", "size_bytes": 1} for n in range(6)}
    assert [(g.group_id, g.keys, g.size_bytes) for g in group_rows("p", rows)] == [
        ("even", ["0", "2", "4"], 3),
        ("odd", ["1", "3", "5"], 3),
    ]


@pytest.mark.parametrize("name", ["group_id", "committed", "expected_num_keys", "num_keys", "created_at"])
def test_each_of_its_tags_alone_shows_it(name: str) -> None:
    tags = [conventions.schema().read(tag) for tag in ({"weight_version": 1}, {name: 1, "weight_version": 1})]
    assert conventions.detect(tags).name == "recovery"


def test_a_declared_number_of_keys_is_enough_for_keys_that_look_like_nemo_rls() -> None:
    groups = group_rows("p", {"u_g0": {"num_keys": 1}, "u_g1": {"num_keys": 1}})
    assert [(group.group_id, group.state) for group in groups] == [("u_g0", "ready"), ("u_g1", "ready")]
