"""What the history tells: columns as they are judged, and since when."""

from __future__ import annotations

import pytest

from exporter.model.history import JUDGED_COLUMNS
from exporter.model.past import Fall, Past, Samples
from exporter.model.samples import PLANE_COLUMNS
from exporter.model.snapshot import PartitionStatus, SourceState
from exporter.model.storage import StorageState, StoreState
from exporter.model.tasks import PartitionSamples, TaskState
from tests.conditions.run import Run, flow


def window(*values: float | None, every_s: float = 10.0, known: bool = True) -> Samples:
    at = [1000.0 + every_s * index for index in range(len(values))]
    return Samples(at, [known] * len(at), {"column": list(values), "listed": [0.0] * len(at)})


def test_without_samples_everything_is_unknown() -> None:
    past = Past()
    assert past.pulse("arrived") is None
    assert past.last_fall("reference_version") is None
    assert past.slope("fill", 60) is None
    assert past.change("departed", 0) == 0
    assert Past(window(1, 1, known=False)).pulse("column") is None


def test_the_usual_time_needs_four_growths() -> None:
    three = Past(window(0, 1, 2, 3, 3)).pulse("column")
    assert three is not None
    assert (three.last, three.quiet_for, three.usual) == (1030, 10, None)
    four = Past(window(0, 1, 2, 3, 4)).pulse("column")
    assert four is not None
    assert (four.last, four.quiet_for, four.usual) == (1040, 0, 10)
    coarse = Past(window(9, 9), window(0, 1, 2, 3, 4, every_s=24)).pulse("column")
    assert coarse is not None
    assert coarse.usual == 24


def test_growth_is_not_seen_across_a_gap_in_the_samples() -> None:
    pulse = Past(window(1, None, 5, 5)).pulse("column")
    assert pulse is not None
    assert pulse.last is None


@pytest.mark.parametrize(("listed_s_ago", "quiet_s"), [(0, 30), (20, 10), (60, 0)])
def test_time_since_the_last_listing_is_not_quiet(listed_s_ago: float, quiet_s: float) -> None:
    seen = window(1, 2, 2, 2, 2)
    columns = {**seen.columns, "listed": [*seen.columns["listed"][:-1], listed_s_ago]}
    pulse = Past(Samples(seen.at, seen.known, columns)).pulse("column")
    assert pulse is not None
    assert pulse.quiet_for == quiet_s


def test_what_fell_and_what_grows() -> None:
    past = Past(window(3, 4), window(5, 2, 3, 4, every_s=24))
    assert past.last_fall("column") == Fall(1024, 5, 2)
    assert Past(hour=window(1, 2, 3, 4)).slope("column", 60) == pytest.approx(0.1)
    assert Past(hour=window(1, 2, 3)).slope("column", 60) is None
    assert Past(hour=window(1, 2, 3, 4)).slope("column", 100) is None
    assert past.change("column", 1000) == 1
    assert past.change("column", 990) == -1, "the coarse window goes back as far as it can"


def test_the_history_gives_the_columns_that_are_judged() -> None:
    run = Run()
    run.more["storage"] = (StorageState(0, "u0", capacity=10, keys=4), StorageState(1, "u1", capacity=10, keys=9))
    run.more["sources"] = (SourceState("ping", "ok", True, duration=0.5),)
    run.more |= {"generation": 2, "unlisted_keys": 12}
    run.more["store"] = StoreState(evicted_objects=55, allocation_failures=40)
    flow(run, 2)
    past = run.history.past()
    assert past.recent.columns.keys() == {*JUDGED_COLUMNS, *PLANE_COLUMNS}
    assert {name: past.recent.columns[name][-1] for name in PLANE_COLUMNS} == {
        "ping": 0.5,
        "generation": 2,
        "fill": 0.9,
        "down": 0,
        "unlisted": 12,
        "evicted": 55,
        "unplaced": 40,
    }
    assert past.recent.columns["departed"][-1] == 8
    assert past.recent.known == [True] * 20
    assert past.state_since == past.recent.at[0]
    assert run.history.past() is past, "made once per sample"


def test_since_when_a_task_consumes_nothing_and_nothing_is_added() -> None:
    run = Run()
    run.statuses = [PartitionStatus("raw", False, "not_listable")]

    def show(samples: int, ratio: float, seconds: float) -> float:
        began = run.clock.time()
        run.more["samples"] = (PartitionSamples("raw", samples, "ref", 3), PartitionSamples("other", 4))
        run.more["tasks"] = (TaskState("raw", "ref", ratio, 1.0), TaskState("raw", "all", None, 1.0))
        run.last(seconds)
        return began

    added = show(100, 0.1, 20)
    consumed = show(100, 0.2, 20)
    tasks = run.history.past().tasks
    assert tasks.keys() == {"raw"}, "the progress of the other is unknown"
    assert (tasks["raw"].consumed_since, tasks["raw"].samples_since) == (consumed, added)
    assert (tasks["raw"].consumed, tasks["raw"].samples) == (20, 100)
    run.more["samples"] = ()
    run.last(2)
    assert run.history.past().tasks == {}
