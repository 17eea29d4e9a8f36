"""The controller's work for a request, told apart from our wait: simulated connections that wait, work, lie or jump."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer

from dataplane.errors import DataPlaneTimeout
from dataplane.groups import DataPlaneGroupMeta, Listing
from exporter.config import Config
from exporter.model.histogram import Histogram
from exporter.model.state import State
from exporter.model.tasks import REQUEST_BOUNDS, ControllerRequests, ControllerState, OwnMetrics
from exporter.polling.sources.metadata import MetadataSource
from exporter.polling.work import REQUEST_S, OwnTimes, WorkMeter, plausible_s
from tests.support.clock import StoppedClock
from tests.support.recording import RecordingRecorder


class Connection:
    """A reader whose requests take what the machine makes them wait, plus the controller's work."""

    def __init__(self, rows: int = 3, work_s: float = 50e-6) -> None:
        self.clock = StoppedClock()
        self.rows = rows
        self.work_s = work_s
        self.wait_s: Callable[[], float] = lambda: 0.0
        self.controller_seconds = 0.0
        self.pings = self.listed = 0
        self.ping_fails = False

    def _take(self, work_s: float) -> float:
        took = self.wait_s() + work_s
        self.controller_seconds += took
        self.clock.advance(took)
        return took

    def ping(self, timeout_s: float | None = None) -> float:
        self.pings += 1
        took = self._take(50e-6)
        if self.ping_fails:
            raise DataPlaneTimeout("silent", operation="ping")
        return took

    def list_partitions(self) -> list[str]:
        self._take(50e-6)
        return ["train"]

    def list_metadata(self, partition_id: str) -> Listing:
        self.listed += 1
        self._take(self.work_s)
        group = DataPlaneGroupMeta(partition_id, "g", ["k"], 1, committed=True)
        return Listing([group], convention="recovery", rows=self.rows, stated_version=None)


class Rounds:
    """Metadata rounds over a connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.state = State(RecordingRecorder(), connection.clock, max_partitions=9, max_versions=9)
        reader: Any = connection
        self.source = MetadataSource(reader, Config(), tracer=NoOpTracer(), clock=connection.clock)

    def intervals(self, rounds: int) -> list[float]:
        found = []
        for _ in range(rounds):
            following = self.source.fold(self.source.poll(), self.state)
            found.append(following.interval_s)
            self.connection.clock.advance(following.interval_s)
        return found


def test_a_quiet_machine_needs_no_further_ping() -> None:
    connection = Connection()
    assert Rounds(connection).intervals(5) == [10.0] * 5
    assert connection.pings == 0


@pytest.mark.parametrize(("rows", "work_s"), [(3, 50e-6), (900, 400e-6), (10_000, 5e-3)])
def test_a_long_wait_for_a_cpu_is_not_the_controllers_work(rows: int, work_s: float) -> None:
    connection = Connection(rows, work_s)
    chosen = random.Random(0)
    connection.wait_s = lambda: chosen.uniform(0.0, 0.5)
    rounds = Rounds(connection)
    intervals = rounds.intervals(200)
    assert max(intervals) <= 30.0
    if rows < 1000:
        assert set(intervals) == {10.0}
    assert not rounds.source._budget.held(connection.clock.monotonic())
    assert sorted(intervals)[100] <= 30.0
    ratio = rounds.state.snapshot().controller_busy_ratio
    assert ratio is not None
    assert ratio <= 0.011


def test_a_steady_wait_is_told_exactly() -> None:
    connection = Connection(100_000, 0.06)
    connection.wait_s = lambda: 0.2
    meter = WorkMeter(connection, connection.clock)  # type: ignore[arg-type]
    meter.pinged(connection.ping())
    connection.list_metadata("train")
    assert meter.work(0.26, 100_000) == pytest.approx(0.06, abs=1e-4)


@pytest.mark.parametrize("which", [0, 5])
def test_one_long_wait_for_a_small_partition_changes_nothing_also_at_its_first_listing(which: int) -> None:
    connection = Connection()
    rounds = Rounds(connection)
    rounds.intervals(which)
    waits = iter([0.0, 0.46])
    connection.wait_s = lambda: next(waits, 0.0)
    assert rounds.intervals(2) == [10.0] * 2


def test_a_first_listing_that_waits_holds_no_partition_back_that_cannot_have_stalled_the_controller() -> None:
    connection = Connection(5_000, 0.002)
    waits = iter([0.0, 0.6])
    connection.wait_s = lambda: next(waits, 0.0)
    assert Rounds(connection).intervals(3)[1:] == [10.0] * 2
    assert connection.listed == 3


def test_long_work_is_charged_and_stretches_the_listings_of_a_large_partition() -> None:
    connection = Connection(100_000, 0.2)
    assert Rounds(connection).intervals(3) == pytest.approx([20.0] * 3, rel=0.01)


def test_a_single_moment_of_the_machine_does_not_hold_a_partition_back() -> None:
    connection = Connection(100_000, 0.06)
    rounds = Rounds(connection)
    rounds.intervals(2)
    waits = iter([0.0, 2.0])
    connection.wait_s = lambda: next(waits, 0.0)
    rounds.intervals(1)
    assert not rounds.source._budget.stalls("train")
    rounds.intervals(20)
    assert rounds.source._budget.longest_s == 10.0


def test_a_listing_is_never_free_of_charge_and_no_ping_makes_it_so() -> None:
    connection = Connection(1_000_000, 0.5)
    meter = WorkMeter(connection, connection.clock)  # type: ignore[arg-type]
    meter.pinged(3600.0)  # it lies: its pings take an hour
    assert meter.work(0.5, 1_000_000) == pytest.approx(0.2)
    assert meter.work(0.01, 1_000_000) == pytest.approx(0.01)


def test_a_ping_that_fails_leaves_the_one_before() -> None:
    connection = Connection()
    connection.ping_fails = True
    meter = WorkMeter(connection, connection.clock)  # type: ignore[arg-type]
    meter.pinged(0.1)
    assert meter.work(0.15, 100_000) == pytest.approx(0.05)
    assert connection.pings == 1


@pytest.mark.parametrize("took_s", [-5.0, 0.0, 1e9])
def test_impossible_times_stay_within_what_is_plausible(took_s: float) -> None:
    connection = Connection()
    meter = WorkMeter(connection, connection.clock)  # type: ignore[arg-type]
    assert 0.0 <= meter.pinged(took_s) <= REQUEST_S
    assert 0.0 <= meter.work(took_s, 3) <= plausible_s(3)
    assert meter.work(took_s, None) >= 0.0


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_jump_of_the_wall_clock_and_a_pause_of_this_process_change_no_interval(jump_s: float) -> None:
    connection = Connection()
    rounds = Rounds(connection)
    rounds.intervals(2)
    pauses = iter([0.0, 3600.0])  # stopped in the middle of a listing
    connection.wait_s = lambda: next(pauses, 0.0)
    connection.clock.jump(jump_s)
    assert rounds.intervals(3) == [10.0] * 3


# TransferQueue's own times


def own(count: int, total_s: float, operation: str = "KV_LIST") -> list[ControllerRequests]:
    counts = (count, *[0] * len(REQUEST_BOUNDS))
    return [ControllerRequests(operation, count, None, Histogram(REQUEST_BOUNDS, counts, total_s))]


def test_what_the_controller_measures_itself_raises_the_estimate() -> None:
    times = OwnTimes()
    times.measured(own(100, 7.0))
    times.listed([0.01] * 6)
    times.measured(own(107, 7.12))  # one of the reserved partition
    assert times.factor == pytest.approx(2.0)
    times.listed([0.01] * 6)
    times.measured(own(112, 7.13))
    assert times.factor == 1.0  # less than the estimate: it does not measure the encoding


def test_listings_of_others_tell_nothing_about_ours() -> None:
    times = OwnTimes()
    times.measured(own(0, 0.0))
    times.listed([0.01] * 6)
    times.measured(own(60, 60.0))
    assert times.factor == 1.0


def test_a_controller_that_begins_anew_or_measures_nothing_changes_nothing() -> None:
    times = OwnTimes()
    times.measured(own(100, 7.0))
    times.listed([0.01] * 6)
    times.measured(own(5, 100.0))
    times.measured(own(500, 100.0, "GET_META"))
    times.measured([ControllerRequests("KV_LIST", 7)])
    assert times.factor == 1.0


def test_the_share_holds_against_the_controllers_own_times() -> None:
    connection = Connection(2_000, 0.03)
    rounds = Rounds(connection)
    listings, measured_s = 0, 0.2  # what is plausible for 2,000 rows is 0.082 s
    began = 0.0
    for number in range(60):
        requests = tuple(own(listings, measured_s * listings))
        rounds.state.tasks.note_metrics(OwnMetrics({}, (), ControllerState(None, requests)))
        if number == 30:
            began, before = connection.clock.monotonic(), listings
        listed = connection.listed
        rounds.intervals(1)
        listings += connection.listed - listed
    assert measured_s * (listings - before) / (connection.clock.monotonic() - began) <= 0.0105


def test_a_controller_that_becomes_a_hundred_times_as_slow_is_noticed_within_six_listings() -> None:
    connection = Connection(20_000, 0.002)
    rounds = Rounds(connection)
    rounds.intervals(6)
    connection.work_s = 0.2
    assert rounds.intervals(7)[-1] == pytest.approx(20.0, rel=0.02)
