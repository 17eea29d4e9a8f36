"""The trainer's choice of groups."""

from __future__ import annotations

from dataplane.groups import DataPlaneGroupMeta
from exporter.demo.window import ABANDONED_AFTER, choose


def group(
    name: str, version: int | None, *, committed: bool = True, expected: int = 1, failed: bool = False
) -> DataPlaneGroupMeta:
    return DataPlaneGroupMeta(
        "train", name, [name], version, committed=committed, expected_num_keys=expected, failed=failed
    )


def names(groups: list[DataPlaneGroupMeta]) -> list[str]:
    return [each.group_id for each in groups]


def test_the_oldest_in_the_window_come_first() -> None:
    groups = [group("new", 10), group("edge", 8), group("mid", 9), group("new2", 10)]
    choice = choose(groups, weight_version=10, max_lag=2, batch_groups=3)
    assert names(choice.train) == ["edge", "mid", "new"]
    assert not choice.evict


def test_what_is_behind_the_window_is_evicted() -> None:
    choice = choose([group("stale", 7), group("edge", 8)], weight_version=10, max_lag=2, batch_groups=1)
    assert (names(choice.train), names(choice.evict)) == (["edge"], ["stale"])


def test_nothing_is_trained_before_a_batch_is_ready() -> None:
    choice = choose([group("a", 10), group("b", 10)], weight_version=10, max_lag=2, batch_groups=3)
    assert not choice.train
    assert not choice.evict


def test_what_is_still_being_written_is_left_alone_for_a_while() -> None:
    behind = 10 - 2 - ABANDONED_AFTER
    groups = [
        group("incomplete", 7, expected=2),
        group("uncommitted", 7, committed=False),
        group("versionless", None, committed=False),
        group("at the edge", behind, expected=2),
        group("abandoned", behind - 1, expected=2),
    ]
    choice = choose(groups, weight_version=10, max_lag=2, batch_groups=1)
    assert (names(choice.train), names(choice.evict)) == ([], ["abandoned"])


def test_what_can_never_be_trained_on_is_evicted() -> None:
    choice = choose(
        [group("failed", 10, failed=True), group("no version", None)], weight_version=10, max_lag=2, batch_groups=1
    )
    assert names(choice.evict) == ["failed", "no version"]
