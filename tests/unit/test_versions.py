"""The trainer's weight version: where it comes from, and when it steps back."""

from __future__ import annotations

import pytest

from exporter.model.versions import VersionReference, Versions


class Polls:
    def __init__(self) -> None:
        self.versions = Versions()
        self.time = 100.0

    def poll(
        self,
        newest: int | None = None,
        *,
        published: int | None = None,
        stated: int | None = None,
        arrived: bool = False,
    ) -> tuple[int, str] | None:
        self.time += 1.0
        self.versions.update(published=published, stated=stated, newest=newest, arrived=arrived, time=self.time)
        return self.versions.reference


@pytest.fixture
def on() -> Polls:
    return Polls()


def test_published_wins_over_rows_and_rows_over_the_newest_seen(on: Polls) -> None:
    assert on.poll() is None
    assert on.poll(9) == (9, "newest_seen")
    assert on.poll(9, stated=7) == (7, "rows")
    assert on.poll(9, stated=7, published=8) == (8, "published")
    assert on.poll(9, stated=7) == (7, "rows")


def test_it_stays_when_the_newest_groups_are_gone(on: Polls) -> None:
    on.poll(9)
    assert [on.poll(3) for _ in range(5)] == [(9, "newest_seen")] * 5
    assert on.poll(None) == (9, "newest_seen")


@pytest.mark.parametrize("second", [True, False])
def test_a_run_resumed_from_an_older_checkpoint_lowers_it_after_two_polls(on: Polls, second: bool) -> None:
    on.poll(100)
    assert on.poll(3, arrived=True) == (100, "newest_seen")
    assert on.poll(4, arrived=second) == (4, "newest_seen")
    assert on.versions.regressions == 1


def test_a_late_group_is_forgotten_when_newer_ones_come_again(on: Polls) -> None:
    on.poll(100)
    on.poll(3, arrived=True)
    on.poll(100, arrived=True)
    assert [on.poll(3) for _ in range(3)] == [(100, "newest_seen")] * 3


def test_a_published_version_that_falls_is_a_regression_at_once(on: Polls) -> None:
    on.poll(published=57)
    on.poll(published=57)
    on.poll(published=1)
    on.poll(published=2)
    assert (on.versions.reference, on.versions.regressions) == ((2, "published"), 1)


def test_another_origin_is_no_regression(on: Polls) -> None:
    on.poll(9)
    on.poll(9, published=5)
    on.poll(9, stated=3)
    assert on.versions.regressions == 0


def test_it_tells_when_the_version_last_changed(on: Polls) -> None:
    on.poll(4)
    changed = on.time
    on.poll(4)
    assert on.versions.changed_at == changed
    on.poll(5)
    assert on.versions.changed_at == on.time


def test_after_a_restart_nothing_is_known(on: Polls) -> None:
    on.poll(4)
    on.versions.restart()
    assert (on.versions.reference, on.versions.changed_at) == (None, None)


def test_a_restart_forgets_the_versions_and_is_no_regression(on: Polls) -> None:
    on.poll(100)
    on.versions.restart()
    assert on.poll(3) == (3, "newest_seen")
    assert on.versions.regressions == 0


def test_the_lag_of_a_newer_group_is_negative() -> None:
    assert VersionReference(7, "published").lag(9) == -2
