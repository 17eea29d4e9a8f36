"""Intervals and the look-ups' backoff."""

from __future__ import annotations

from exporter.polling.schedule import Backoff, Timer


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
