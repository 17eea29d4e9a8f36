"""The state of a partition, computed from its groups."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.groups import GROUP_STATES, DataPlaneGroupMeta
from exporter.model.occupancy import Occupancy, lag_bucket, merge
from exporter.model.snapshot import LAG_BUCKETS, PartitionState
from exporter.model.versions import VersionReference


def group(name: str, version: int | None = None, **fields: object) -> DataPlaneGroupMeta:
    given_fields = {"committed": True, "keys": [f"{name}-0", f"{name}-1"], **fields}
    return DataPlaneGroupMeta("train", name, weight_version=version, **given_fields)  # type: ignore[arg-type]


def state_of(groups: list[DataPlaneGroupMeta], reference: int | None = None, **options: object) -> PartitionState:
    known = None if reference is None else VersionReference(reference, "newest_seen")
    first_seen: Any = options.pop("first_seen", {})
    given_options: dict[str, Any] = {"listed_at": 50.0, "max_versions": 16, **options}
    return Occupancy().after(groups, first_seen.get).state("train", reference=known, **given_options)


def test_an_empty_partition_is_zero_where_it_was_counted_and_unknown_where_it_was_not() -> None:
    state = state_of([])
    assert state.groups == dict.fromkeys(GROUP_STATES, 0)
    assert (state.keys, state.depth) == (0, 0)
    assert state.size_bytes is None
    assert state.staleness_max is None
    assert state.staleness_mean is None
    assert state.newest_version is None
    assert state.weight_versions == ()
    assert state.oldest == ()


def test_states_keys_sizes_and_malformed_rows_are_summed() -> None:
    state = state_of(
        [
            group("a", 3, size_bytes=10),
            group("b", 3, size_bytes=5, malformed_keys=2),
            group("c", 3, committed=False),
            group("d", 3, expected_num_keys=4),
            group("e", 3, failed=True),
        ],
        3,
    )
    assert state.groups == {"ready": 2, "incomplete": 1, "uncommitted": 1, "failed": 1, "taken": 0}
    assert state.depth == 2
    assert state.keys == 10
    assert state.size_bytes == 15
    assert state.malformed_rows == 2


def test_lags_are_counted_from_the_reference_and_a_newer_group_is_ahead() -> None:
    state = state_of([group(str(version), version) for version in (12, 10, 9, 8, 5, 3, 1)], 10)
    assert state.staleness == {"ahead": 1, "0": 1, "1": 1, "2": 1, "3": 0, "4": 0, "5-8": 2, "9+": 1, "unknown": 0}
    assert state.staleness_max == 9
    assert state.staleness_mean == pytest.approx((0 + 1 + 2 + 5 + 7 + 9) / 6)
    assert (state.newest_version, state.oldest_version) == (12, 1)
    assert (state.reference_version, state.reference) == (10, "newest_seen")


def test_a_failed_group_is_not_stale() -> None:
    state = state_of([group("a", 1, failed=True), group("b", 10)], 10)
    assert state.staleness_max == 0
    assert sum(state.staleness.values()) == 1


def test_a_group_without_a_version_has_an_unknown_lag() -> None:
    state = state_of([group("a"), group("b", 4)], 4)
    assert state.staleness["unknown"] == 1
    assert state.staleness_mean == 0


def test_the_newest_versions_are_counted_and_the_rest_folds() -> None:
    groups = [group(str(version), version) for version in range(20)] + [group("x")]
    assert state_of(groups, max_versions=2).weight_versions == (("19", 1), ("18", 1), ("older", 18), ("unknown", 1))
    assert state_of(groups, max_versions=0).weight_versions == ()


def test_the_oldest_group_per_state_tells_where_its_time_comes_from() -> None:
    state = state_of(
        [group("a", created_at=5.0), group("b", created_at=3.0), group("c"), group("d", committed=False)],
        first_seen={"c": 7.0, "d": 9.0},
    )
    assert {(oldest.state, oldest.basis, oldest.created_at) for oldest in state.oldest} == {
        ("ready", "tag", 3.0),
        ("ready", "first_seen", 7.0),
        ("uncommitted", "first_seen", 9.0),
    }


def test_merged_partitions_are_as_old_as_the_oldest_listing() -> None:
    ages = [state_of([], listed_at=at) for at in (50.0, 40.0, 60.0)]
    assert merge("other", ages, max_versions=16).listed_at == 40.0


def test_the_leading_reference_is_that_of_merged_partitions() -> None:
    references = [
        VersionReference(0, "published"),
        VersionReference(9, "newest_seen"),
        VersionReference(7, "published"),
    ]
    known = [Occupancy().state("p", listed_at=1.0, reference=reference, max_versions=16) for reference in references]
    unknown = state_of([])
    for parts, leading in (
        ([unknown], (None, None)),
        ([unknown, *known[:1], unknown], (0, "published")),
        ([*known, unknown], (9, "newest_seen")),
        ([unknown, *known[::-1]], (9, "newest_seen")),
    ):
        whole = merge("other", parts, max_versions=16)
        assert (whole.reference_version, whole.reference) == leading


@given(st.integers(0, 50))
def test_every_lag_falls_into_one_of_the_declared_buckets(lag: int) -> None:
    assert lag_bucket(lag) in LAG_BUCKETS


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=6), min_size=1, max_size=5)
)
def test_merging_keeps_every_total(parts: list[list[tuple[int, bool, bool]]]) -> None:
    states = [
        state_of(
            [
                group(f"{part}-{index}", version, committed=committed, failed=failed, size_bytes=version)
                for index, (version, committed, failed) in enumerate(groups)
            ],
            30,
            max_versions=40,
        )
        for part, groups in enumerate(parts)
    ]
    whole = merge("other", states, max_versions=40)
    assert whole.partition == "other"
    assert whole.keys == sum(state.keys for state in states)
    assert sum(whole.groups.values()) == sum(len(groups) for groups in parts)
    assert sum(count for _, count in whole.weight_versions) == sum(len(groups) for groups in parts)
    alive = [30 - version for groups in parts for version, _, failed in groups if not failed]
    assert whole.staleness_max == (max(alive) if alive else None)
    if alive:
        assert whole.staleness_mean == pytest.approx(sum(alive) / len(alive))


@pytest.mark.parametrize(
    ("lag", "bucket"), [(None, "unknown"), (0, "0"), (4, "4"), (5, "5-8"), (8, "5-8"), (9, "9+"), (10**9, "9+")]
)
def test_each_bucket_ends_where_its_name_says(lag: int | None, bucket: str) -> None:
    assert lag_bucket(lag) == bucket


def test_groups_without_a_version_are_counted_each() -> None:
    state = state_of([group("a"), group("b"), group("c", 2)], 2)
    assert (state.partition, state.staleness["unknown"], state.staleness["0"]) == ("train", 2, 1)


def test_a_merge_adds_what_each_part_could_not_name_and_weighs_means_by_known_groups() -> None:
    many = state_of([group(f"a{n}", n, size_bytes=3, malformed_keys=1) for n in range(4)], 3, max_versions=2)
    few = state_of([group("b", 3), group("c")], 3, max_versions=2)
    whole = merge("all", [many, many, few], max_versions=2)
    assert dict(whole.weight_versions) == {"3": 3, "2": 2, "older": 4, "unknown": 1}
    assert (whole.size_bytes, whole.malformed_rows) == (24, 8)
    assert whole.staleness_mean == pytest.approx((6 + 6 + 0) / 9)
    assert merge("all", [few], max_versions=2).size_bytes is None


def test_when_all_groups_are_ahead_there_is_no_largest_lag() -> None:
    state = state_of([group("a", 12), group("b", 11)], 1)
    assert (state.staleness["ahead"], state.staleness_max, state.staleness_mean) == (2, None, None)
    both = merge("all", [state, state_of([group("c", 1)], 3)], max_versions=16)
    assert (both.staleness["ahead"], both.staleness_max, both.staleness_mean) == (2, 2, 2.0)


def test_bare_rows_are_counted_apart() -> None:
    bare = DataPlaneGroupMeta("train", "k", ["k"], bare=True)
    state = state_of([bare, bare, group("a", 1)], 1)
    assert (state.bare_rows, state.keys, sum(state.groups.values())) == (2, 2, 1)


def test_a_sum_has_the_role_that_trains_and_tells_mixed_conventions() -> None:
    one = state_of([group("a", 1)], 1, role="eval", convention="verl", rows=3, groups_per_step=4)
    two = state_of([group("a", 1, taken=True)], 1, role="train", convention="verl", rows=2, orphaned=1)
    both = merge("all", [one, two], max_versions=16)
    assert (both.role, both.convention, both.rows, both.orphaned, both.groups_per_step) == ("train", "verl", 5, 1, 4)
    unknown = state_of([group("a", 1, taken=True)], 1, role="train", convention="verl", rows=2, orphaned=None)
    assert merge("other", [two, unknown], max_versions=16).orphaned is None
    other = state_of([], 1, role="staging", convention="recovery")
    assert merge("all", [one, other], max_versions=16).convention == "mixed"
    assert merge("all", [one, other], max_versions=16).role == "eval"


def test_the_oldest_group_has_a_name_and_a_sum_keeps_the_oldest() -> None:
    parts = [
        state_of(
            [
                group("a", created_at=20.0),
                group("b", created_at=10.0),
                group("x" * 200, committed=False, created_at=1.0),
            ]
        ),
        state_of([group("c", created_at=5.0)]),
    ]
    assert [(one.state, one.group_id) for one in parts[0].oldest] == [
        ("ready", "b"),
        ("uncommitted", parts[0].oldest[1].group_id),
    ]
    assert len(parts[0].oldest[1].group_id) == 128
    assert merge("all", parts, max_versions=16).oldest[0].group_id == "c"


def test_the_newest_finished_version_is_of_ready_and_taken_groups() -> None:
    one = state_of([group("a", 3), group("b", 4, taken=True), group("c", 9, committed=False)], 9)
    assert (one.newest_version, one.newest_finished_version) == (9, 4)
    none = state_of([group("c", 9, committed=False)], 9)
    assert none.newest_finished_version is None
    assert merge("all", [none, one], max_versions=16).newest_finished_version == 4
    assert merge("all", [none], max_versions=16).newest_finished_version is None


def test_the_unfinished_groups_that_are_named_are_the_oldest_of_all_partitions() -> None:
    def part(name: str, ages: dict[str, float | None], **fields: Any) -> PartitionState:
        groups = [
            DataPlaneGroupMeta(name, group_id, [group_id], 1, created_at=at, **fields) for group_id, at in ages.items()
        ]
        occupancy = Occupancy().after(groups, {"seen": 50.0}.get)
        return occupancy.state(name, listed_at=100.0, reference=None, max_versions=16)

    late = part("a", {"a1": 90.0, "a2": 70.0, "unknown": None, "a3": 80.0, "a4": 60.0}, committed=False)
    assert [(one.group_id, one.created_at) for one in late.unfinished] == [("a4", 60.0), ("a2", 70.0), ("a3", 80.0)]
    early = part("b", {"seen": None, "b1": 65.0}, committed=True, expected_num_keys=2)
    ready = part("c", {"c": 1.0}, committed=True)
    assert ready.unfinished == ()
    together = merge("all", [late, early, ready], max_versions=16)
    assert [(one.group_id, one.basis) for one in together.unfinished] == [
        ("seen", "first_seen"),
        ("a4", "tag"),
        ("b1", "tag"),
    ]
