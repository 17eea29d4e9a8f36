"""The history: always bounded, with gaps where values were unknown."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from exporter.model.history import MAX_BYTES, SAMPLES, WINDOWS, History
from exporter.model.samples import COLUMNS, MAX_SERIES
from exporter.model.snapshot import Incident, PartitionFlow, PartitionState, Snapshot, SourceState
from tests.support.clock import StoppedClock
from tests.support.snapshots import flow, partition, rich_snapshot, with_totals

EVERY_S = WINDOWS["recent"]


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def history(clock: StoppedClock) -> History:
    return History(clock)


def snapshot(
    clock: StoppedClock,
    *parts: PartitionState,
    flows: tuple[PartitionFlow, ...] = (),
    up: bool = True,
    listed: bool = True,
    incidents: tuple[Incident, ...] = (),
) -> Snapshot:
    metadata = SourceState("metadata", "ok" if listed else "stale", up=listed, last_success=clock.time(), interval=1.0)
    ping = SourceState("ping", "ok", up=up, last_success=clock.time(), duration=0.25, interval=1.0)
    return with_totals(
        Snapshot(
            clock.time(),
            0.0,
            discovery="found" if up else "lost",
            up=up,
            partitions=parts,
            flows=flows,
            sources=(ping, metadata),
            incidents=incidents,
        ),
        listed=listed,
    )


def read(history: History, window: str = "recent") -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(history.encode(window))
    return decoded


def test_a_sample_is_what_the_snapshot_said(clock: StoppedClock, history: History) -> None:
    history.observe(snapshot(clock, partition("a"), partition("b", groups=0), flows=(flow("a"), flow("b"))))
    seen = read(history)
    assert seen["at"] == [clock.time()]
    assert seen["state"] == ["found"]
    assert seen["ping"] == [0.25]
    a = {key: values[0] for key, values in seen["partitions"][0].items() if key != "partition"}
    assert a == {
        **{"ready": 7, "incomplete": 8, "uncommitted": 9, "failed": 10, "taken": 11},
        **{"arrived": 120, "completed": 110, "departed": 96, "given_up": 16, "lost": 8},
        **{"staleness_max": 12, "staleness_mean": 1.75, "reference_version": 41, "listed": 0},
    }
    assert tuple(a) == COLUMNS
    total = {key: values[0] for key, values in seen["total"].items()}
    assert (total["ready"], total["failed"], total["arrived"], total["staleness_max"]) == (7, 13, 240, 12)
    assert total["staleness_mean"] == 1.75


def test_the_partitions_that_train_have_a_series_of_their_own(clock: StoppedClock, history: History) -> None:
    parts = partition("train"), partition("val", groups=5)
    flows = flow("train"), flow("val"), flow("train_2")
    history.observe(snapshot(clock, *parts, flows=flows))
    clock.advance(EVERY_S)
    history.observe(replace(snapshot(clock, *parts, flows=flows), trained=None))
    seen = read(history)
    assert seen["total"]["ready"] == [12, 12]
    assert seen["trained"]["ready"] == [7, None]
    assert seen["trained"]["taken"] == [11, None]
    assert seen["trained"]["arrived"] == [240, 240]
    assert seen["trained"]["given_up"] == [32, 32]


def test_unknown_is_a_gap_and_an_empty_listing_is_zero(clock: StoppedClock, history: History) -> None:
    for one in (
        snapshot(clock, partition("a")),
        snapshot(clock, up=False, listed=False),
        snapshot(clock, listed=True),
        snapshot(clock, replace(partition("a"), staleness_max=None, staleness_mean=None, reference_version=None)),
    ):
        history.observe(one)
        clock.advance(EVERY_S)
    seen = read(history)
    assert seen["total"]["ready"] == [7, None, 0, 7]
    assert seen["total"]["staleness_max"] == [12, None, None, None]
    assert seen["partitions"][0]["ready"] == [7, None, None, 7]
    assert seen["state"] == ["found", "lost", "found", "found"]


def test_snapshots_between_two_samples_are_no_samples(clock: StoppedClock, history: History) -> None:
    for _ in range(40):
        history.observe(snapshot(clock))
        clock.advance(0.5)
    assert len(read(history)["at"]) == 10
    assert len(read(history, "hour")["at"]) == 1


def test_the_windows_are_five_minutes_and_an_hour(clock: StoppedClock, history: History) -> None:
    for _ in range(3 * 3600):
        history.observe(snapshot(clock))
        clock.advance(1.0)
    for window, length in (("recent", 300), ("hour", 3600)):
        at = read(history, window)["at"]
        assert len(at) == SAMPLES
        steps = {round(later - earlier, 3) for earlier, later in pairwise(at)}
        assert steps == {WINDOWS[window]}
        assert SAMPLES * WINDOWS[window] == length


def test_a_clock_that_was_set_does_not_fold_the_past(clock: StoppedClock, history: History) -> None:
    for _ in range(5):
        history.observe(snapshot(clock))
        clock.advance(EVERY_S)
    clock.jump(-86_400)
    history.observe(snapshot(clock))
    at = read(history)["at"]
    assert at == sorted(at)
    assert at[-1] == clock.time()


def test_a_slot_that_changes_hands_forgets_its_past(clock: StoppedClock, history: History) -> None:
    history.observe(snapshot(clock, *(partition(f"old-{index}", groups=50) for index in range(MAX_SERIES))))
    clock.advance(EVERY_S)
    history.observe(snapshot(clock, *(partition(f"new-{index}", groups=3) for index in range(5))))
    seen = read(history)
    assert [one["partition"] for one in seen["partitions"]] == [f"new-{index}" for index in range(5)]
    assert all(one["ready"] == [None, 3] for one in seen["partitions"])
    clock.advance(EVERY_S)
    history.observe(snapshot(clock, partition("old-7", groups=9)))
    assert read(history)["partitions"][0]["ready"][-1] == 9


def test_the_fullest_partitions_have_a_series_and_keep_it(clock: StoppedClock, history: History) -> None:
    history.observe(snapshot(clock, *(partition(f"p{index:03}", groups=index) for index in range(100))))
    names = [one["partition"] for one in read(history)["partitions"]]
    assert names == [f"p{index:03}" for index in range(100 - MAX_SERIES, 100)]
    clock.advance(EVERY_S)
    history.observe(snapshot(clock, *(partition(f"p{index:03}", groups=100 - index) for index in range(100))))
    assert [one["partition"] for one in read(history)["partitions"]] == names
    assert read(history)["total"]["ready"] == [sum(range(100)), sum(range(1, 101))]


def incident(clock: StoppedClock, detail: str, source: str = "ping") -> Incident:
    return Incident(clock.time(), source, source, "DataPlaneTimeout", detail)


def test_failures_outlive_successes_and_repeats_are_counted(clock: StoppedClock, history: History) -> None:
    first = incident(clock, "the first reason")
    kept: list[Incident] = [first]
    history.observe(snapshot(clock, incidents=(first,)))
    for _ in range(500):
        clock.advance(1.0)
        kept = [incident(clock, "the same again"), *kept][:50]
        history.observe(snapshot(clock, up=False, incidents=tuple(kept)))
    for _ in range(500):  # successes push out no failure
        clock.advance(1.0)
        history.observe(snapshot(clock, incidents=tuple(kept)))
    seen = read(history)
    assert [(one["detail"], one["count"]) for one in seen["failures"]] == [
        ("the same again", 500),
        ("the first reason", 1),
    ]
    assert seen["failures"][0]["at"] - seen["failures"][0]["first_at"] == 499
    assert 0 < len(seen["successes"]) <= 12
    assert [one["state"] for one in seen["changes"]] == ["found", "lost", "found"]


def wild(clock: StoppedClock) -> Iterator[Snapshot]:
    """The worst case: always new partitions with long names and new failures, for longer than a window."""
    kept: list[Incident] = []
    for step in range(2 * SAMPLES):
        clock.advance(EVERY_S)
        kept = [incident(clock, f"{step}: " + "x" * 5000), *kept][:50]
        names = [f"{step // 3}-{index}-" + "n" * 200 for index in range(2 * MAX_SERIES)]
        parts = (
            replace(partition(name, groups=step * 1000 + index), staleness_mean=step / 7)
            for index, name in enumerate(names)
        )
        flows = (replace(flow(name), arrived=step * 10**9) for name in names)
        yield snapshot(clock, *parts, flows=tuple(flows), up=step % 2 == 0, incidents=tuple(kept))


def test_it_holds_no_more_than_its_bound(clock: StoppedClock) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        history = History(clock)
        fresh = tracemalloc.get_traced_memory()[0] - before
        for index, one in enumerate(wild(clock)):
            history.observe(one)
            if index % 100 == 0:
                for window in WINDOWS:
                    history.encode(window)
        for window in WINDOWS:
            history.encode(window)
        del one
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    seen = read(history)
    assert [len(seen[log]) for log in ("failures", "changes", "partitions")] == [60, 20, MAX_SERIES]
    assert (
        fresh >= len(WINDOWS) * (MAX_SERIES + 2) * len(COLUMNS) * SAMPLES * 8
    )  # all arrays are allocated at the start
    assert held <= MAX_BYTES, f"{held:,} bytes"
    sys.stdout.write(f"at the start {fresh:,}, at worst {held:,} of {MAX_BYTES:,} bytes\n")


def test_the_snapshot_is_not_kept(clock: StoppedClock, history: History) -> None:
    one = replace(rich_snapshot(), taken_at=clock.time())
    references = sys.getrefcount(one)
    history.observe(one)
    assert sys.getrefcount(one) == references


def test_it_tells_how_old_the_listing_was(clock: StoppedClock, history: History) -> None:
    part = replace(partition("a"), newest_listing=clock.time())
    for _ in range(3):
        history.observe(snapshot(clock, part))
        clock.advance(EVERY_S)
    assert read(history)["total"]["listed"] == read(history)["partitions"][0]["listed"] == [0, 2, 4]
