"""The loop: when each source is polled, how slow or failing sources affect the others, changes of controller.

The readers and the look-up are scripted here. The real ones have their own tests, and ``tests/end_to_end`` tests the
whole on a real TransferQueue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer, Tracer

from dataplane.adapters.wire import KnownSender
from dataplane.adapters.wire.storage import StorageUnitMetrics
from dataplane.discovery.record import Endpoint, StorageUnitEndpoint
from dataplane.errors import DataPlaneNotReady, DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.groups import DataPlaneCapabilities, DataPlaneGroupMeta, Listing
from exporter.config import Config
from exporter.config.model import Storage
from exporter.model.results import Absent, Found, Ok, Result, StoragePoll
from exporter.model.snapshot import KeyEstimate, SourceState, StorageState
from exporter.model.state import State
from exporter.polling.budget import HELD_INTERVAL_S
from exporter.polling.poller import Poller
from exporter.polling.readers import Readers, connect
from exporter.polling.sources import build_sources
from exporter.polling.sources.base import Next, Source
from exporter.polling.sources.target import Target
from tests.support.clock import StoppedClock
from tests.support.recording import RecordingRecorder

UNIT = StorageUnitEndpoint(0, "unit-0", "tcp://127.0.0.1:9")


class ScriptedReader:
    """Answers from memory. Each call can be made to raise or block."""

    def __init__(self) -> None:
        self.partitions: dict[str, int] = {"train": 2}
        self.cost: dict[str, float] = {}  # the controller's time for a listing
        self.rows: dict[str, int] = {}  # where it is not the number of the groups' keys
        self.failure: Exception | None = None
        self.list_failure: dict[str, Exception] = {}
        self.block: threading.Event | None = None
        self.controller_seconds = 0.0
        self.last_sender_id: str | None = None
        self.listed: list[str] = []
        self.pings = 0
        self.closed = 0

    def _answer(self) -> None:
        if self.block is not None:
            assert self.block.wait(30)
        if self.failure is not None:
            raise self.failure

    def ping(self, timeout_s: float | None = None) -> float:
        self.pings += 1
        self._answer()
        return 0.001

    def list_partitions(self) -> list[str]:
        self._answer()
        return list(self.partitions)

    def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
        self.listed.append(partition_id)
        if partition_id in self.list_failure:
            raise self.list_failure[partition_id]
        self.controller_seconds += self.cost.get(partition_id, 0.001)
        groups = [
            DataPlaneGroupMeta(partition_id, f"g{number}", [f"k{number}"], 1, committed=True)
            for number in range(self.partitions[partition_id])
        ]
        return Listing(groups, convention="", rows=self.rows.get(partition_id, len(groups)), stated_version=None)

    def depth(self, partition_id: str) -> int:
        return self.partitions[partition_id]

    def get_capabilities(self) -> DataPlaneCapabilities:
        return DataPlaneCapabilities()

    def close(self) -> None:
        self.closed += 1


class ScriptedStorage:
    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.keys = 7
        self.closed = 0

    def read(self) -> StorageUnitMetrics:
        if self.failure is not None:
            raise self.failure
        return StorageUnitMetrics(100, self.keys, 1000)

    def close(self) -> None:
        self.closed += 1


class ScriptedDiscovery:
    kind = "ray"

    def __init__(self) -> None:
        self.recheck_s: float | None = None
        self.answer: Found | Absent | Exception = Absent(ended=False, detail="nothing there")
        self.looks: list[Endpoint | None] = []
        self.closed = 0

    def look(self, previous: Endpoint | None) -> Found | Absent:
        self.looks.append(previous)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed += 1


class Fixture:
    """A poller whose ticks the test calls."""

    def __init__(self, config: Config | None = None, tracer: Tracer | None = None) -> None:
        self.config = config or Config()
        self.tracer = tracer or NoOpTracer()
        self.further: tuple[Source[Any], ...] = ()
        self.clock = StoppedClock()
        self.recorder = RecordingRecorder()
        self.discovery = ScriptedDiscovery()
        self.reader = ScriptedReader()
        self.storage = ScriptedStorage()
        self.connections: list[Endpoint] = []
        self.connect_failure: Exception | None = None
        self.poller = Poller(
            self.config,
            discovery=self.discovery,  # type: ignore[arg-type]
            bind=self.bind,
            recorder=self.recorder,
            tracer=self.tracer,
            clock=self.clock,
        )

    def bind(self, endpoint: Endpoint) -> Target:
        readers = self.connect(endpoint)
        sources = build_sources(readers, self.config, tracer=self.tracer, clock=self.clock)
        return Target(endpoint, readers, (*sources, *self.further))

    def connect(self, endpoint: Endpoint) -> Readers:
        if self.connect_failure is not None:
            raise self.connect_failure
        self.connections.append(endpoint)
        storage = tuple((unit, self.storage) for unit in endpoint.storage_units)
        self.sender = KnownSender(endpoint.controller_id)
        return Readers(self.reader, self.reader, storage, self.sender)

    def find(self, actor_id: str | None = "actor-1", address: str = "tcp://127.0.0.1:1") -> None:
        self.discovery.answer = Found(Endpoint(address, "controller-1", actor_id, storage_units=(UNIT,)))

    def idle(self) -> bool:
        return not any(slot.worker.busy for slot in self.poller._slots.values())

    def look(self) -> None:
        """Make a look-up due."""
        self.poller._look_again(0.0)

    def settle(self, until: Callable[[], bool] | None = None) -> None:
        until = until or self.idle
        deadline = time.monotonic() + 10
        while not until():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def step(self, seconds: float = 0.0) -> None:
        """Let time pass in steps of a second, with a tick at each, until all polls that were due are done."""
        while seconds > 0:
            self.clock.advance(min(1.0, seconds))
            seconds -= 1.0
            self.poller.tick()
            self.settle()
        self.poller.tick()
        self.settle()
        self.poller.tick()
        self.settle()

    def estimates(self) -> tuple[KeyEstimate, ...]:
        return self.poller.snapshot.estimates

    def source(self, name: str) -> SourceState:
        return next(source for source in self.poller.snapshot.sources if source.source == name)


@pytest.fixture
def at() -> Iterator[Fixture]:
    fixture = Fixture()
    fixture.poller.start(loop=False)
    yield fixture
    if fixture.reader.block is not None:
        fixture.reader.block.set()
    assert fixture.poller.stop(10.0)


def test_a_controller_that_is_found_is_polled_at_once(at: Fixture) -> None:
    at.find()
    at.step()
    snapshot = at.poller.snapshot
    assert (snapshot.up, snapshot.ready, snapshot.discovery) == (True, True, "found")
    assert [partition.depth for partition in snapshot.partitions] == [2]
    assert [unit.keys for unit in snapshot.storage] == [7]
    assert [source.interval for source in snapshot.sources] == [None, 5.0, 10.0, 15.0, None]
    assert [source.reason for source in snapshot.sources] == ["ok", "ok", "ok", "ok", "disabled"]


@pytest.mark.parametrize(
    ("backend", "enabled", "reason"),
    [
        ("RayStore", True, "unsupported"),
        ("Yuanrong", True, "unsupported"),
        ("RayStore", False, "disabled"),
        (None, True, "disabled"),
    ],
)
def test_storage_that_cannot_be_asked_says_so(backend: str | None, enabled: bool, reason: str) -> None:
    at = Fixture(Config(storage=Storage(enabled=enabled)))
    at.poller.start(loop=False)
    at.discovery.answer = Found(Endpoint("tcp://127.0.0.1:1", "controller-1", "actor-1", backend))
    at.step()
    source = at.source("storage")
    assert (source.reason, f"backend {backend}" in source.detail) == (reason, reason == "unsupported")
    at.find()
    at.look()
    at.step()
    assert at.source("storage").reason == "ok"
    assert at.poller.stop(10.0)


def test_each_source_keeps_its_own_interval(at: Fixture) -> None:
    at.find()
    at.step()
    at.step(30.0)
    assert at.recorder.polls == {
        ("discovery", "ok"): 1,
        ("ping", "ok"): 7,
        ("metadata", "ok"): 4,
        ("storage", "ok"): 3,
    }


def test_nothing_there_is_looked_for_again_with_growing_pauses(at: Fixture) -> None:
    at.step()
    at.step(300.0)
    assert 8 <= len(at.discovery.looks) <= 20
    assert at.poller.snapshot.discovery == "never_found"
    at.find()
    at.step(60.0)
    assert at.poller.snapshot.up


def test_a_starting_controller_is_looked_for_more_often_and_is_polled_once_it_is_found(at: Fixture) -> None:
    at.discovery.answer = DataPlaneNotReady("no configuration yet")
    at.step()
    at.step(300.0)
    assert len(at.discovery.looks) >= 22
    assert at.poller.snapshot.discovery == "starting"
    at.find()
    at.step(16.0)
    assert at.poller.snapshot.up


def test_an_unreachable_controller_is_no_longer_pinged_when_a_look_up_finds_nothing(at: Fixture) -> None:
    at.find()
    at.reader.failure = DataPlaneUnavailable("refused")
    at.step()
    assert at.poller.snapshot.discovery == "unreachable"
    at.discovery.answer = Absent(ended=False, detail="nothing there")
    at.look()
    at.step()
    pings = at.reader.pings
    at.step(30.0)
    assert at.reader.pings == pings
    assert (at.poller.snapshot.discovery, at.poller.snapshot.endpoint) == ("never_found", None)


def test_only_an_actor_may_answer_first_under_another_id() -> None:
    for actor_id, met in (("actor-1", False), (None, True)):
        readers = connect(Config(), Endpoint("tcp://127.0.0.1:1", "controller-1", actor_id))
        assert readers.sender.met is met
        readers.close()


def test_a_poll_that_still_runs_is_skipped_and_holds_up_nothing_else(at: Fixture) -> None:
    at.find()
    at.step()
    ping = ScriptedReader()
    ping.block = threading.Event()
    source: Any = at.poller._sources["ping"]
    source._reader = ping
    at.clock.advance(5.0)
    at.poller.tick()
    at.settle(lambda: ping.pings == 1)
    for _ in range(4):
        at.clock.advance(5.0)
        at.poller.tick()
        at.settle(lambda: not at.poller._slots["metadata"].worker.busy)
    assert at.recorder.skips == {"ping": 4}
    assert at.recorder.polls["metadata", "ok"] == 3
    ping.block.set()
    at.settle()
    assert ping.pings == 1


def test_a_failed_ping_starts_a_look_up(at: Fixture) -> None:
    at.find()
    at.step()
    at.reader.failure = DataPlaneUnavailable("refused", operation="ping")
    at.step(10.0)
    assert at.poller.snapshot.discovery == "lost"
    assert len(at.discovery.looks) >= 2
    assert at.discovery.looks[-1] == at.poller.snapshot.endpoint
    at.reader.failure = None
    at.step(5.0)
    looks = len(at.discovery.looks)
    at.step(120.0)
    assert len(at.discovery.looks) <= looks + 1


def test_a_new_controller_is_polled_instead_and_the_old_readers_are_closed(at: Fixture) -> None:
    at.find()
    at.step()
    old, at.reader = at.reader, ScriptedReader()
    old.failure = DataPlaneUnavailable("refused", operation="ping")
    at.find("actor-2", "tcp://127.0.0.1:2")
    at.step(12.0)
    snapshot = at.poller.snapshot
    assert snapshot.up
    assert snapshot.generation == 2
    assert at.recorder.restarts == 1
    assert old.closed == 2
    assert at.reader.closed == 0


def test_readers_in_use_are_closed_only_after_their_call(at: Fixture) -> None:
    at.find()
    at.step()
    old, at.reader = at.reader, ScriptedReader()
    old.block = threading.Event()
    at.clock.advance(5.0)
    at.poller.tick()
    at.settle(lambda: old.pings == 2)
    at.find("actor-2")
    at.look()
    at.poller.tick()
    at.settle(lambda: len(at.connections) == 2)
    at.poller.tick()
    assert old.closed == 0
    old.block.set()
    at.step()
    assert old.closed == 2
    assert at.recorder.pings[0] == (0.001, None)


def test_an_answer_of_the_old_controller_says_nothing_of_the_new_one(at: Fixture) -> None:
    at.find()
    at.step()
    old, at.reader = at.reader, ScriptedReader()
    old.block = threading.Event()
    old.failure = DataPlaneTimeout("late", operation="ping")
    at.clock.advance(5.0)
    at.poller.tick()
    at.settle(lambda: old.pings == 2)
    at.find("actor-2")
    at.look()
    at.poller.tick()
    at.settle(lambda: len(at.connections) == 2)
    old.block.set()
    at.step(5.0)
    assert at.poller.snapshot.up
    assert not at.recorder.errors


def test_late_storage_figures_of_the_old_controller_are_not_those_of_the_new_one(at: Fixture) -> None:
    at.find()
    at.step()
    old = at.poller._sources["storage"]
    at.find("actor-2")
    at.look()
    at.step()
    at.poller._process(old, Ok(StoragePoll((StorageState(7, "old"),)), 0.1), at.clock.monotonic())
    assert [unit.index for unit in at.poller.snapshot.storage] == [0]


def test_the_same_controller_found_again_keeps_its_readers(at: Fixture) -> None:
    at.discovery.recheck_s = 2.0
    at.find()
    at.step()
    at.step(20.0)
    assert len(at.discovery.looks) >= 9
    assert len(at.connections) == 1


@pytest.mark.parametrize(("actor_id", "known"), [("actor-1", "controller-of-the-checkpoint"), (None, "controller-1")])
def test_the_same_actor_found_again_is_accepted_under_the_id_that_it_answers_under(
    at: Fixture, actor_id: str | None, known: str
) -> None:
    """An exporter that starts after ``load_checkpoint`` never got an answer under the record's id."""
    at.find(actor_id)
    at.reader.failure = DataPlaneUnavailable("another controller answered")
    at.reader.last_sender_id = "controller-of-the-checkpoint"
    at.step()
    assert at.sender.id == "controller-1"
    at.step(3.0)
    assert len(at.discovery.looks) >= 2
    assert (at.sender.id, len(at.connections)) == (known, 1)


def test_readers_that_cannot_be_built_are_a_failed_look_up(at: Fixture) -> None:
    at.find()
    at.connect_failure = DataPlaneUnavailable("TransferQueue is not installed")
    at.step()
    assert at.source("discovery").reason == "failing"
    at.connect_failure = None
    at.step(5.0)
    assert at.poller.snapshot.up


def test_a_controller_that_was_ended_is_polled_no_more(at: Fixture) -> None:
    at.find()
    at.step()
    at.discovery.answer = Absent(ended=True, detail="tq.close()")
    at.reader.failure = DataPlaneUnavailable("refused", operation="ping")
    at.step(10.0)
    assert at.poller.snapshot.discovery == "ended"
    pings = at.reader.pings
    at.step(60.0)
    assert at.reader.pings == pings
    assert at.reader.closed == 2
    assert at.source("ping").reason == "disabled"


def test_a_costly_listing_is_made_rarer_and_the_reason_is_told(at: Fixture) -> None:
    at.reader.cost["train"], at.reader.rows["train"] = 0.2, 100_000
    at.find()
    at.step()
    assert at.source("metadata").interval == pytest.approx(20.0)
    assert at.source("metadata").reason == "budget"
    at.step(19.0)
    assert at.reader.listed == ["train"]
    at.reader.cost["train"] = 0.001
    at.step(1.0)
    assert at.reader.listed == ["train", "train"]
    assert at.source("metadata").reason == "ok"


def test_a_partition_that_stalls_the_controller_is_listed_every_five_minutes(at: Fixture) -> None:
    at.reader.partitions["huge"] = 3
    at.reader.cost["huge"], at.reader.rows["huge"] = 0.3, 100_000
    at.find()
    at.step()
    at.step(HELD_INTERVAL_S - 10)
    assert at.reader.listed.count("huge") == 1
    assert at.reader.listed.count("train") > 5
    assert [partition.partition for partition in at.poller.snapshot.partitions] == ["huge", "train"]
    assert "'huge'" in at.source("metadata").detail
    at.step(30.0)
    assert at.reader.listed.count("huge") == 2


def test_unlisted_keys_stay_known_while_a_partition_sits_a_round_out(at: Fixture) -> None:
    at.reader.partitions = {"a": 1, "b": 1}
    at.reader.rows = {"a": 50_000, "b": 50_000}
    at.reader.cost = {"a": 0.2, "b": 0.2}
    at.storage.keys = 100_007
    at.find()
    at.step(90.0)
    assert at.source("metadata").interval == pytest.approx(20.0, rel=0.01)
    assert at.reader.listed.count("a") == 3  # at once, after 40 s and after 80 s
    seen = []
    for _ in range(8):
        at.step(10.0)
        seen.append(at.poller.snapshot.unlisted_keys)
    assert seen == [7] * 8


def test_storage_tells_the_keys_of_a_partition_between_its_rare_listings(at: Fixture) -> None:
    at.reader.partitions["huge"] = 3
    at.reader.cost["huge"], at.reader.rows["huge"] = 0.3, 100_000
    at.storage.keys = 90_002  # "train" has two rows; 10,000 of the others have no data
    at.find()
    at.step(20.0)
    assert at.estimates() == ()
    at.storage.keys = 95_002
    at.step(60.0)
    (estimate,) = at.estimates()
    assert (estimate.partition, estimate.keys, estimate.basis) == ("huge", 105_000, "storage")
    assert 0.0 <= at.clock.time() - estimate.at <= 15.0
    at.storage.failure = DataPlaneTimeout("silent", operation="storage_metrics")
    at.step(15.0)
    assert at.estimates() == ()
    at.storage.failure = None
    at.step(15.0)
    assert at.estimates()
    at.reader.failure = DataPlaneUnavailable("refused", operation="ping")
    at.step(40.0)
    assert at.estimates() == ()


def test_a_new_controller_is_listed_at_once_whatever_the_last_one_cost(at: Fixture) -> None:
    at.reader.partitions = {"huge": 3}
    at.reader.cost["huge"], at.reader.rows["huge"] = 0.3, 100_000
    at.find()
    at.step()
    assert "'huge'" in at.source("metadata").detail
    at.reader = ScriptedReader()
    at.reader.partitions = {"huge": 3}
    at.find("actor-2")
    at.look()
    at.step()
    assert at.reader.listed == ["huge"]
    assert at.source("metadata").detail == ""


def test_a_listing_that_times_out_is_charged_and_ends_its_round(at: Fixture) -> None:
    at.reader.partitions = {"a": 1, "b": 1}
    timeout = DataPlaneTimeout("silent", operation="list_metadata", partition_id="a")
    at.reader.list_failure["a"] = timeout
    at.find()
    at.step()
    assert at.reader.listed == ["a"]
    assert at.recorder.errors["list_metadata", "DataPlaneTimeout"] == 1


def test_an_unreadable_partition_does_not_end_the_round(at: Fixture) -> None:
    at.reader.partitions = {"a": 1, "b": 1}
    at.reader.list_failure["a"] = DataPlaneReadError("odd", operation="list_metadata", partition_id="a")
    at.find()
    at.step()
    assert [partition.partition for partition in at.poller.snapshot.partitions] == ["b"]


def test_a_defect_in_a_reader_is_counted_as_other_and_ends_nothing(at: Fixture) -> None:
    at.find()
    at.step()
    at.reader.failure = ZeroDivisionError("oops")
    at.step(5.0)
    assert at.recorder.errors["ping", "_OTHER"] == 1
    at.reader.failure = None
    at.step(5.0)
    assert at.poller.snapshot.up


def test_a_listing_that_fails_its_own_pings_is_not_repeated_when_they_work_again(at: Fixture) -> None:
    at.reader.cost["train"], at.reader.rows["train"] = 9.0, 1_000_000
    at.find()
    at.step(10.0)
    listed = len(at.reader.listed)
    for _ in range(5):
        at.reader.failure = DataPlaneTimeout("the controller serves our own listing", operation="ping")
        at.step(5.0)
        at.reader.failure = None
        at.step(6.0)
    assert len(at.reader.listed) == listed
    assert at.source("metadata").reason == "failing"  # a partition that failed and is held back is no success


def test_what_a_record_may_hold_ends_nothing_and_a_better_one_is_followed(at: Fixture) -> None:
    at.discovery.recheck_s = 2.0
    at.find()
    at.connect_failure = ValueError("not an address")
    at.step()
    assert at.source("discovery").reason == "failing"
    assert "not an address" in at.source("discovery").detail
    at.connect_failure = None
    at.step(5.0)
    assert at.poller.snapshot.up


def test_a_defect_while_taking_in_a_result_ends_no_source(at: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    at.find()
    at.step()
    with monkeypatch.context() as patch:
        patch.setattr(at.poller._sources["ping"], "fold", lambda *args: 1 / 0)
        at.step(5.0)
    pings = len(at.recorder.pings)
    at.step(5.0)
    assert len(at.recorder.pings) == pings + 1


def test_a_ping_that_never_ends_is_no_sign_of_life(at: Fixture) -> None:
    at.find()
    at.step()
    at.reader.block = threading.Event()
    for _ in range(4):
        at.clock.advance(5.0)
        at.poller.tick()
    at.settle(lambda: not at.poller.snapshot.up)
    assert at.source("ping").reason == "stale"


def test_readers_that_cannot_be_closed_do_not_end_the_loop(at: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    at.find()
    at.step()
    monkeypatch.setattr(at.reader, "close", lambda: 1 / 0)
    at.reader = ScriptedReader()
    at.find("actor-2")
    at.look()
    at.step(5.0)
    assert at.poller.snapshot.generation == 2
    assert at.poller.snapshot.up


def test_one_round_without_threads() -> None:
    fixture = Fixture()
    fixture.find()
    snapshot = fixture.poller.poll_once()
    assert snapshot.up
    assert [partition.depth for partition in snapshot.partitions] == [2]
    assert [unit.keys for unit in snapshot.storage] == [7]
    assert fixture.reader.closed == 2
    assert fixture.storage.closed == 1
    assert fixture.discovery.closed == 1


def test_one_round_with_nothing_there() -> None:
    fixture = Fixture()
    snapshot = fixture.poller.poll_once()
    assert (snapshot.up, snapshot.discovery) == (False, "never_found")


def test_the_loop_runs_and_stops() -> None:
    fixture = Fixture()
    fixture.find()
    poller = fixture.poller
    poller.start()
    fixture.settle(lambda: poller.snapshot.ready)
    assert poller.alive()
    assert poller.stop(10.0)
    fixture.clock.advance(31.0)
    assert not poller.alive()
    assert fixture.reader.closed == 2


class ToySource(Source[float]):
    """A complete new source, which measures a duration on the controller."""

    name = "toy"
    operation = "list_partitions"
    interval_s = 3.0

    def __init__(self, at: Fixture) -> None:
        super().__init__(tracer=NoOpTracer(), clock=at.clock)
        self.asked = 0
        self.failure: Exception | None = None

    def _ask(self) -> float:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return 0.5

    def fold(self, result: Result[float], state: State) -> Next:
        state.finish(self.name, result)
        if isinstance(result, Ok):
            state.controller_time.spend(result.value)
        return Next(self.interval_s)


def test_a_source_is_one_object_and_no_other_module_knows_it(at: Fixture) -> None:
    toy = ToySource(at)
    at.further = (toy,)
    at.find()
    at.step()
    at.step(30.0)
    assert toy.asked == 11
    assert at.recorder.polls["toy", "ok"] == 11
    assert (at.source("toy").reason, at.source("toy").interval) == ("ok", 3.0)
    busy = at.poller.snapshot.controller_busy_ratio
    assert busy is not None
    assert busy > 11 * 0.5 / 60

    toy.failure = DataPlaneReadError("odd")
    at.step(3.0)
    assert at.source("toy").reason == "failing"
    assert at.recorder.errors == {("list_partitions", "DataPlaneReadError"): 1}
    assert at.poller.snapshot.up

    at.discovery.answer = Absent(ended=True, detail="over")
    at.look()
    at.step(30.0)
    assert at.source("toy").reason == "disabled"
    assert toy.asked == 12
