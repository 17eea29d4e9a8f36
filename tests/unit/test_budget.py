"""The budget: how often each partition may be listed."""

from __future__ import annotations

import math
import random

import pytest

from exporter.polling.budget import HELD_INTERVAL_S, SMALL_ROWS, Budget

LARGE = 100_000


@pytest.fixture
def budget() -> Budget:
    return Budget(10.0, 0.01, 0.25)


def test_polls_are_stretched_so_that_the_controller_spends_its_share_at_most(budget: Budget) -> None:
    budget.charge("a", 0.05, 0.0, LARGE)
    assert budget.interval_s(0.01) == 10.0
    assert budget.explain() == ""
    budget.charge("a", 0.2, 10.0, LARGE)
    assert budget.interval_s(0.05) == pytest.approx(25.0)
    assert "every 25 s" in budget.explain()


def test_beyond_three_intervals_only_partitions_that_are_not_small_wait(budget: Budget) -> None:
    for name, rows, cost in (("a", LARGE, 0.2), ("b", LARGE, 0.24), ("few", SMALL_ROWS - 1, 0.01)):
        budget.charge(name, cost, 0.0, rows)
    round_s = budget.interval_s(0.002)
    assert round_s == pytest.approx((0.012 + 0.44 / 2) / 0.01)
    assert budget.listed_every("a") == pytest.approx(2 * round_s)
    assert budget.listed_every("few") == pytest.approx(round_s)
    assert budget.held(round_s) == {"a", "b"}
    assert budget.held(2 * round_s - 1) == set()
    assert "every 46.4 s" in budget.explain()
    budget.retain(frozenset({"few"}))
    assert budget.interval_s(0.002) == 10.0
    assert budget.explain() == ""


def test_the_share_is_kept_whatever_the_sizes_and_small_ones_never_wait() -> None:
    chosen = random.Random(0)
    for _ in range(2000):
        budget = Budget(chosen.choice([1.0, 10.0]), share := chosen.choice([0.001, 0.01, 0.1]), 0.25)
        longest = 3 * budget.interval_s(0.0)
        costs = {}
        for number in range(chosen.randrange(1, 20)):
            small = chosen.random() < 0.5
            rows = chosen.randrange(SMALL_ROWS) if small else chosen.randrange(SMALL_ROWS, 10**6)
            costs[name := f"p{number}"] = chosen.uniform(0.0, 0.002 if small else 0.25)
            budget.charge(name, costs[name], 0.0, rows)
        round_s = budget.interval_s(0.001)
        spent = 0.001 / round_s + sum(cost / budget.listed_every(name) for name, cost in costs.items())
        small_alone = 0.001 + sum(cost for name, cost in costs.items() if budget.listed_every(name) == round_s)
        assert round_s <= longest
        assert spent <= share * (1 + 1e-9) or small_alone > share * longest


def test_a_partition_that_holds_the_controller_too_long_is_held_back(budget: Budget) -> None:
    assert budget.charge("fast", 0.25, 0.0, LARGE) is None
    assert budget.charge("huge", 0.26, 0.0, LARGE) == HELD_INTERVAL_S
    assert budget.interval_s(0.0) == 25.0
    assert budget.held(HELD_INTERVAL_S - 1) == {"huge"}
    assert budget.stalls("huge")
    assert not budget.stalls("fast")
    assert "'huge'" in budget.explain()
    assert budget.held(HELD_INTERVAL_S) == set()
    assert budget.charge("huge", 0.1, HELD_INTERVAL_S, LARGE) is None
    assert "'huge'" not in budget.explain()


def test_a_partition_that_takes_seconds_is_held_back_until_its_share_is_paid(budget: Budget) -> None:
    assert budget.charge("huge", 10.0, 0.0, LARGE) == 1000.0
    assert budget.held(999.0) == {"huge"}
    assert "every 1000 s" in budget.explain()


def test_one_slow_listing_after_a_fast_one_is_paid_for_and_holds_nothing_back(budget: Budget) -> None:
    budget.charge("a", 0.06, 0.0, LARGE)
    assert budget.charge("a", 0.5, 10.0, LARGE) is None
    assert budget.interval_s(0.0) > 10.0
    assert budget.listed_every("a") == pytest.approx(50.0)
    assert budget.charge("a", 0.5, 60.0, LARGE) == HELD_INTERVAL_S


def test_a_small_partition_that_is_not_answered_is_asked_again_after_three_intervals_once(budget: Budget) -> None:
    budget.charge("few", 0.001, 0.0, 3)
    budget.charge("few", 5.0, 10.0)
    assert budget.interval_s(0.0) == 10.0
    assert budget.listed_every("few") <= 30.0
    assert budget.charge("few", 5.0, 40.0) == 500.0  # not answered twice: nobody knows that it is small


def test_a_partition_that_was_small_and_is_refused_because_of_its_size_waits_like_a_large_one(budget: Budget) -> None:
    budget.charge("few", 0.001, 0.0, 3)
    assert budget.charge("few", 0.6, 10.0, grown=True) == HELD_INTERVAL_S


def test_a_partition_that_was_never_answered_is_held_back(budget: Budget) -> None:
    assert budget.charge("new", 5.0, 0.0) == 500.0


def test_questions_count_with_the_partition_that_they_are_about(budget: Budget) -> None:
    budget.charge("a", 0.1, 0.0, LARGE)
    budget.add("a", 0.1)
    budget.add("gone", 9.0)
    assert budget.interval_s(0.0) == pytest.approx(20.0)


def test_partitions_that_are_gone_are_forgotten(budget: Budget) -> None:
    budget.charge("a", 1.0, 0.0)
    budget.charge("b", 1.0, 0.0)
    budget.retain(frozenset({"b"}))
    assert budget.held(1.0) == {"b"}
    budget.retain(frozenset())
    assert budget.held(1.0) == set()
    assert math.isfinite(budget.interval_s(0.0))
