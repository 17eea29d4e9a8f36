"""Which groups to train on and which to evict."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.groups import GROUP_STATES, DataPlaneGroupMeta
from dataplane.recovery import ABANDONED_AFTER, Order, select, stale

STATES: dict[str, dict[str, Any]] = {
    "ready": {},
    "uncommitted": {"committed": False},
    "incomplete": {"expected_num_keys": 2},
    "failed": {"failed": True},
    "taken": {"taken": True},
}


def group(name: str, version: int | None, state: str = "ready") -> DataPlaneGroupMeta:
    made = DataPlaneGroupMeta("train", name, [name], version, **{"committed": True, **STATES[state]})
    assert made.state == state
    return made


def names(groups: list[DataPlaneGroupMeta]) -> list[str]:
    return [each.group_id for each in groups]


def test_the_states_are_all_there() -> None:
    assert set(STATES) == set(GROUP_STATES)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("oldest", ["edge", "mid", "new", "new2"]),
        ("newest", ["new", "new2", "mid", "edge"]),
        ("fifo", ["new", "edge", "mid", "new2"]),
    ],
)
def test_the_order(order: Order, expected: list[str]) -> None:
    groups = [group("new", 10), group("edge", 8), group("mid", 9), group("new2", 10)]
    assert names(select(groups, 10, 2, 4, order)) == expected
    assert names(select(groups, 10, 2, 3, order)) == expected[:3]
    assert select(groups, 10, 2, 0, order) == []


def test_without_an_order_the_oldest_come_first() -> None:
    assert names(select([group("new", 10), group("old", 9)], 10, 2, 2)) == ["old", "new"]


def test_fewer_than_asked_for_are_returned() -> None:
    assert names(select([group("a", 10)], 10, 2, 3)) == ["a"]


def test_a_window_of_zero_is_the_trainers_own_version() -> None:
    groups = [group("behind", 9), group("same", 10), group("ahead", 11)]
    assert names(select(groups, 10, 0, 9)) == ["same"]
    assert names(stale(groups, 10, 0)) == ["behind"]


BEHIND = 10 - 2 - ABANDONED_AFTER


@pytest.mark.parametrize(
    ("state", "version", "selected", "evicted", "evicted_if_ahead"),
    [
        ("ready", 8, True, False, False),
        ("ready", 10, True, False, False),
        ("ready", 7, False, True, True),
        ("ready", None, False, True, True),
        ("ready", 11, False, False, True),
        ("failed", 10, False, True, True),
        ("failed", None, False, True, True),
        ("taken", 1, False, False, False),
        ("taken", None, False, False, False),
        ("taken", 11, False, False, False),
        ("uncommitted", BEHIND, False, False, False),
        ("uncommitted", BEHIND - 1, False, True, True),
        ("uncommitted", None, False, False, False),
        ("uncommitted", 11, False, False, True),
        ("incomplete", BEHIND, False, False, False),
        ("incomplete", BEHIND - 1, False, True, True),
        ("incomplete", None, False, False, False),
        ("incomplete", 11, False, False, True),
    ],
)
def test_each_state_and_version(
    state: str, version: int | None, selected: bool, evicted: bool, evicted_if_ahead: bool
) -> None:
    groups = [group("it", version, state)]
    assert bool(select(groups, 10, 2, 1)) is selected
    assert bool(stale(groups, 10, 2)) is evicted
    assert bool(stale(groups, 10, 2, ahead=True)) is evicted_if_ahead


def test_how_long_an_unfinished_group_is_left_alone_can_be_set() -> None:
    groups = [group("edge", 5, "incomplete"), group("behind", 4, "uncommitted")]
    assert names(stale(groups, 10, 2, abandoned_after=3)) == ["behind"]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="max_lag"):
        select([], 10, -1, 1)
    with pytest.raises(ValueError, match="n must"):
        select([], 10, 1, -1)
    with pytest.raises(ValueError, match="oldest, newest, fifo"):
        select([], 10, 1, 1, "latest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_lag"):
        stale([], 10, -1)
    with pytest.raises(ValueError, match="abandoned_after"):
        stale([], 10, 1, abandoned_after=-1)


listings = st.lists(st.tuples(st.none() | st.integers(-20, 20), st.sampled_from(GROUP_STATES)), max_size=12)


@given(listings, st.integers(-5, 15), st.integers(0, 8), st.integers(0, 12), st.sampled_from(get_args(Order)))
def test_nothing_is_both_trained_and_evicted_and_no_ready_group_is_forgotten(
    listing: list[tuple[int | None, str]], trainer_version: int, max_lag: int, n: int, order: Order
) -> None:
    groups = [group(str(index), version, state) for index, (version, state) in enumerate(listing)]
    every = set(names(select(groups, trainer_version, max_lag, len(groups), order)))
    evicted = set(names(stale(groups, trainer_version, max_lag, ahead=True)))
    assert not every & evicted
    assert {each.group_id for each in groups if each.state == "ready"} <= every | evicted
    first = select(groups, trainer_version, max_lag, n, order)
    assert first == select(groups, trainer_version, max_lag, len(groups), order)[:n]
    later = set(names(stale(groups, trainer_version + 1, max_lag)))
    assert set(names(stale(groups, trainer_version, max_lag))) <= later, "what is stale stays so"
