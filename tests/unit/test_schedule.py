"""Intervals, the controller budget and the look-ups' backoff."""

from __future__ import annotations

from exporter.polling.schedule import HELD_INTERVAL_S, Backoff, Budget, Timer


def test_a_timer_fires_at_once_and_then_every_interval() -> None:
    timer = Timer(5.0)
    assert not timer.fire(0.0)
    timer.start(10.0)
    assert [timer.fire(now) for now in (10.0, 11.0, 14.9, 15.0, 16.0)] == [True, False, False, True, False]


def test_missed_firings_are_dropped_and_not_made_up_for() -> None:
    timer = Timer(5.0)
    timer.start(0.0)
    assert timer.fire(0.0)
    assert timer.fire(100.0)
    assert not timer.fire(104.9)
    assert timer.fire(105.0)


def test_a_stretched_timer_counts_from_the_start_of_the_last_poll() -> None:
    timer = Timer(10.0)
    timer.start(0.0)
    timer.fire(0.0)
    timer.stretch(60.0, 0.0)
    assert not timer.fire(59.0)
    assert timer.fire(60.0)
    timer.stop()
    timer.stretch(1.0, 60.0)
    assert timer.due is None


def test_the_backoff_doubles_up_to_its_limit_with_jitter_in_the_upper_half() -> None:
    most, least = Backoff(jitter=lambda: 1.0), Backoff(jitter=lambda: 0.0)
    assert [most.next_s(60) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [least.next_s(60) for _ in range(3)] == [0.5, 1, 2]
    most.reset()
    assert most.next_s(60) == 1


def test_the_backoff_stays_finite_for_ever() -> None:
    backoff = Backoff(jitter=lambda: 1.0)
    assert [backoff.next_s(60) for _ in range(5000)][-1] == 60.0


def test_polls_are_stretched_so_that_the_controller_spends_its_share_at_most() -> None:
    budget = Budget(10.0, 0.01, 0.25)
    assert budget.interval_s(0.06) == 10.0
    assert budget.interval_s(0.6) == 60.0
    assert budget.explain(10.0) == ""
    assert "every 60 s" in budget.explain(60.0)


def test_a_partition_that_holds_the_controller_too_long_is_held_back() -> None:
    budget = Budget(10.0, 0.01, 0.25)
    assert budget.charge("small", 0.25, 0.0) is None
    assert budget.charge("huge", 0.26, 0.0) == HELD_INTERVAL_S
    assert budget.held(HELD_INTERVAL_S - 1) == {"huge"}
    assert "'huge'" in budget.explain(10.0)
    assert budget.held(HELD_INTERVAL_S) == set()
    assert budget.charge("huge", 0.1, HELD_INTERVAL_S) is None
    assert budget.explain(10.0) == ""


def test_a_partition_that_takes_seconds_is_held_back_until_its_share_is_paid() -> None:
    budget = Budget(10.0, 0.01, 0.25)
    assert budget.charge("huge", 10.0, 0.0) == 1000.0
    assert budget.held(999.0) == {"huge"}
    assert "every 1000 s" in budget.explain(10.0)


def test_partitions_that_are_gone_are_forgotten() -> None:
    budget = Budget(10.0, 0.01, 0.25)
    budget.charge("a", 1.0, 0.0)
    budget.charge("b", 1.0, 0.0)
    budget.retain(frozenset({"b"}))
    assert budget.held(1.0) == {"b"}
    budget.retain(frozenset())
    assert budget.held(1.0) == set()
