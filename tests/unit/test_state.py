"""The state that polls add up to: discovery states, new controllers, stale data, errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.discovery.record import Endpoint
from dataplane.groups import DataPlaneGroupMeta
from exporter.config import Config, Ping, Storage
from exporter.model.results import (
    Absent,
    Failed,
    Found,
    MetadataPoll,
    Ok,
    PartitionFailure,
    PartitionListing,
    Result,
    StoragePoll,
)
from exporter.model.snapshot import SourceState, StorageState
from exporter.model.state import State
from exporter.model.storage import LastAnswer
from exporter.polling.sources.base import Source
from exporter.polling.sources.discovery import DiscoverySource, LookUp
from exporter.polling.sources.metadata import MetadataSource
from exporter.polling.sources.ping import PingSource
from exporter.polling.sources.storage import StorageSource
from tests.support.clock import StoppedClock
from tests.support.recording import RecordingRecorder

UNAVAILABLE = Failed("ping", "DataPlaneUnavailable", "refused", 0.1)
TIMEOUT = Failed("ping", "DataPlaneTimeout", "silent", 4.0)
GONE = Ok(Absent(ended=False, detail="no such actor"), 0.1)
ENDED = Ok(Absent(ended=True, detail="tq.close()"), 0.1)


def found(actor_id: str | None = "actor-1", address: str = "tcp://127.0.0.1:1") -> Ok[Found]:
    return Ok(Found(Endpoint(address, actor_id=actor_id)), 0.1)


def metadata(
    groups: dict[str, dict[str, int]], *, published: int | None = None, sender: str = "c1", failing: str | None = None
) -> Ok[MetadataPoll]:
    listings = tuple(
        PartitionListing(
            partition,
            [DataPlaneGroupMeta(partition, name, [name], v, committed=True) for name, v in rows.items()],
            0.01,
        )
        for partition, rows in groups.items()
    )
    failures = () if failing is None else (PartitionFailure(failing, "DataPlaneReadError", "unreadable", 0.01),)
    names = (*groups, *(() if failing is None else (failing,)))
    return Ok(MetadataPoll(names, listings, failures, published, 0.01, sender), 0.02)


class NowhereDiscovery:
    """Never called: the tests supply the results of look-ups."""

    recheck_s = None


class Fixture:
    def __init__(self, **options: Any) -> None:
        self.clock = StoppedClock()
        self.recorder = RecordingRecorder()
        self.state = State(
            self.recorder, self.clock, max_partitions=options.get("max_partitions", 100), max_versions=16
        )
        made: dict[str, Any] = {"tracer": NoOpTracer(), "clock": self.clock}
        config = Config(ping=Ping(interval=10.0), storage=Storage(interval=10.0))
        self._discovery = DiscoverySource(NowhereDiscovery(), lambda endpoint: None, **made)  # type: ignore[arg-type,return-value]
        self._ping = PingSource(NoOpDataPlaneClient(), config, **made)
        self._metadata = MetadataSource(NoOpDataPlaneClient(), config, **made)
        self._storage = StorageSource((), config, **made)
        for source in (self._ping, self._metadata, self._storage):
            self.state.health.schedule(source.name, source.interval_s, awaited=source.awaited)

        self._sources: dict[str, Source[Any]] = {
            source.name: source for source in (self._discovery, self._ping, self._metadata, self._storage)
        }

    def fold(self, source: str, failed: Failed) -> None:
        self._sources[source].fold(failed, self.state)

    def run(self) -> None:
        """Find a data plane that answers and has been listed."""
        self.discover(found())
        self.ping()
        self.metadata({"train": {"a": 1}})

    def discover(self, result: Result[Found | Absent]) -> None:
        said = Ok(LookUp(result.value), result.took) if isinstance(result, Ok) else result
        self._discovery.fold(said, self.state)

    def ping(self) -> None:
        self._ping.fold(Ok(0.001, 0.001), self.state)

    def fail(self, failed: Failed = UNAVAILABLE) -> None:
        self._ping.fold(failed, self.state)

    def metadata(self, groups: dict[str, dict[str, int]], **options: Any) -> None:
        self.list(metadata(groups, **options))

    def list(self, result: Result[MetadataPoll]) -> None:
        self._metadata.fold(result, self.state)

    def storage(self, result: Result[StoragePoll]) -> None:
        self._storage.fold(result, self.state)

    def errors(self) -> Counter[tuple[str, str]]:
        """The errors that the snapshot shows, by operation and type."""
        return Counter({(error.operation, error.error_type): error.count for error in self.state.snapshot().errors})

    def source(self, name: str) -> SourceState:
        return next(source for source in self.state.snapshot().sources if source.source == name)


@pytest.fixture
def on() -> Fixture:
    return Fixture()


def test_nothing_there_yet_is_no_error(on: Fixture) -> None:
    assert not on.state.snapshot().ready
    on.discover(GONE)
    snapshot = on.state.snapshot()
    assert (snapshot.discovery, snapshot.up, snapshot.ready) == ("never_found", False, True)
    on.discover(Failed("discover", "DataPlaneTimeout", "hangs", 20.0))
    assert on.state.snapshot().discovery == "never_found"
    assert not on.recorder.errors
    assert on.state.snapshot().incidents[0].detail == "hangs"


def test_a_ping_makes_it_found_and_up(on: Fixture) -> None:
    on.run()
    snapshot = on.state.snapshot()
    assert (snapshot.discovery, snapshot.up, snapshot.ready, snapshot.generation) == ("found", True, True, 1)
    assert on.recorder.pings == [(0.001, None)]
    assert [partition.partition for partition in snapshot.partitions] == ["train"]


def test_gone_is_lost_and_counted(on: Fixture) -> None:
    on.run()
    on.fail()
    snapshot = on.state.snapshot()
    assert (snapshot.discovery, snapshot.up) == ("lost", False)
    assert on.recorder.errors == {("ping", "DataPlaneUnavailable"): 1}
    on.ping()
    assert on.state.snapshot().discovery == "found"
    assert on.recorder.restarts == 0


def test_hung_is_down_but_not_lost(on: Fixture) -> None:
    on.run()
    on.fail(TIMEOUT)
    snapshot = on.state.snapshot()
    assert (snapshot.discovery, snapshot.up) == ("found", False)
    assert on.recorder.errors == {("ping", "DataPlaneTimeout"): 1}
    assert on.recorder.pings[-1] == (4.0, "DataPlaneTimeout")


FAILURES = {
    "ping": UNAVAILABLE,
    "discovery": Failed("discover", "DataPlaneTimeout", "no Ray", 20.0),
    "metadata": Failed("list_metadata", "DataPlaneUnavailable", "refused", 0.1, limit="bytes"),
    "storage": Failed("storage_metrics", "DataPlaneTimeout", "silent", 2.0),
}


@pytest.mark.parametrize("source", FAILURES)
def test_failures_go_on_being_counted_while_lost(on: Fixture, source: str) -> None:
    failed = FAILURES[source]
    on.run()
    on.fail()
    assert on.state.lifecycle.discovery == "lost"
    on.recorder.errors.clear()
    before = on.errors()
    for _ in range(3):
        on.fold(source, failed)
    assert on.state.lifecycle.discovery == "lost"
    what = (failed.operation, failed.error_type)
    assert on.recorder.errors == {what: 3}
    assert on.errors() - before == {what: 3}
    assert on.recorder.refusals == ({failed.limit: 3} if failed.limit else {})


@pytest.mark.parametrize("source", sorted(FAILURES.keys() - {"ping"}))
@pytest.mark.parametrize("discovery", ["never_found", "ended"])
def test_without_a_data_plane_a_failure_is_an_incident_and_no_error(on: Fixture, discovery: str, source: str) -> None:
    if discovery == "ended":
        on.run()
        on.discover(ENDED)
    assert on.state.lifecycle.discovery == discovery
    failed = FAILURES[source]
    on.fold(source, failed)
    assert on.state.lifecycle.discovery == discovery
    assert not on.recorder.errors
    assert not on.recorder.refusals
    assert not on.errors()
    incident = on.state.snapshot().incidents[0]
    assert (incident.source, incident.operation, incident.detail) == (source, failed.operation, failed.detail)


def test_absent_after_it_was_found_is_lost(on: Fixture) -> None:
    on.run()
    on.fail(TIMEOUT)
    on.discover(GONE)
    assert on.state.snapshot().discovery == "lost"
    assert on.state.lifecycle.endpoint is not None


def test_ended_on_purpose_stops_everything_and_counts_no_more_errors(on: Fixture) -> None:
    on.run()
    on.fail()
    on.discover(ENDED)
    assert on.state.lifecycle.endpoint is None
    on.state.switch()
    snapshot = on.state.snapshot()
    assert (snapshot.discovery, snapshot.up, snapshot.partitions) == ("ended", False, ())
    on.discover(Failed("discover", "DataPlaneUnavailable", "no Ray", 1.0))
    assert on.recorder.errors == {("ping", "DataPlaneUnavailable"): 1}


def test_ended_before_it_was_ever_found_is_still_never_found(on: Fixture) -> None:
    on.discover(found())
    on.fail()
    on.discover(ENDED)
    assert on.state.snapshot().discovery == "never_found"
    assert on.state.lifecycle.endpoint is None


def test_a_new_actor_is_a_new_generation_and_its_predecessors_groups_are_lost(on: Fixture) -> None:
    on.run()
    on.fail()
    on.discover(found("actor-2", "tcp://127.0.0.1:2"))
    assert on.state.snapshot().partitions == ()
    on.ping()
    on.metadata({"train": {"b": 1}})
    snapshot = on.state.snapshot()
    assert (snapshot.generation, on.recorder.restarts) == (2, 1)
    assert [(flow.arrived, flow.departed, flow.lost) for flow in snapshot.flows] == [(1, 0, 1)]


def test_the_same_actor_with_a_new_id_is_the_same_generation(on: Fixture) -> None:
    on.run()
    on.discover(Ok(Found(Endpoint("tcp://127.0.0.1:1", controller_id="loaded", actor_id="actor-1")), 0.1))
    on.ping()
    assert on.recorder.restarts == 0


def test_a_job_that_starts_again_after_its_end_is_a_new_generation(on: Fixture) -> None:
    on.run()
    on.fail()
    on.discover(ENDED)
    on.discover(found("actor-2"))
    on.ping()
    assert on.state.snapshot().discovery == "found"
    assert on.recorder.restarts == 1


@pytest.mark.parametrize(("groups", "restarts"), [({"train": {"z": 1}}, 1), ({"train": {"a": 1, "z": 1}}, 0)])
def test_without_actor_ids_a_new_sender_with_other_groups_is_a_new_generation(
    on: Fixture, groups: dict[str, dict[str, int]], restarts: int
) -> None:
    on.discover(found(None))
    on.ping()
    on.metadata({"train": {"a": 1}}, sender="c1")
    on.metadata(groups, sender="c2")
    assert on.recorder.restarts == restarts
    on.metadata(groups, sender="c2")
    assert on.recorder.restarts == restarts


def test_a_new_sender_is_judged_only_by_partitions_that_were_listed_again(on: Fixture) -> None:
    on.discover(found(None))
    on.ping()
    on.metadata({"train": {"a": 1}, "huge": {"b": 1}}, sender="c1")
    held = Ok(MetadataPoll(("train", "huge"), (), (), None, 0.01, "c2"), 0.02)
    on.list(held)
    assert on.recorder.restarts == 0
    on.metadata({"train": {"z": 1}, "huge": {"b": 1}}, sender="c2")
    assert on.recorder.restarts == 0
    on.metadata({"train": {"y": 1}, "huge": {"x": 1}}, sender="c3")
    assert on.recorder.restarts == 1


def test_a_restart_of_an_empty_data_plane_goes_unnoticed(on: Fixture) -> None:
    on.discover(found(None))
    on.ping()
    on.metadata({"train": {}}, sender="c1")
    on.metadata({"train": {}}, sender="c2")
    assert on.recorder.restarts == 0


def test_ready_stays_ready_when_a_controller_comes(on: Fixture) -> None:
    on.discover(GONE)
    assert on.state.snapshot().ready
    on.discover(found())
    assert on.state.snapshot().ready


def test_what_one_controller_said_is_not_said_of_the_next(on: Fixture) -> None:
    on.run()
    on.discover(found(None, "tcp://127.0.0.1:2"))
    on.state.switch()
    snapshot = on.state.snapshot()
    assert (snapshot.up, snapshot.partitions, snapshot.capabilities) == (False, (), None)


def test_why_nothing_is_there_is_logged_once(on: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for _ in range(3):
        on.discover(GONE)
    assert caplog.text.count("no such actor") == 1


def test_a_ping_that_is_too_old_is_no_sign_of_life(on: Fixture) -> None:
    on.run()
    on.clock.advance(30.1)
    assert not on.state.snapshot().up
    assert on.source("ping").reason == "stale"


def test_what_is_too_old_is_withdrawn_while_counters_and_timestamps_stay(on: Fixture) -> None:
    on.run()
    last_success = on.source("metadata").last_success
    on.clock.advance(30.0)
    assert on.state.snapshot().partitions
    on.clock.advance(0.1)
    snapshot = on.state.snapshot()
    assert snapshot.partitions == ()
    assert [flow.partition for flow in snapshot.flows] == ["train"]
    assert on.source("metadata").last_success == last_success
    assert on.source("metadata").reason == "stale"


def test_a_partition_that_is_gone_is_not_shown(on: Fixture) -> None:
    on.run()
    on.metadata({})
    assert on.state.snapshot().partitions == ()


def test_an_unreadable_partition_does_not_hide_the_others(on: Fixture) -> None:
    on.run()
    for _ in range(10):
        on.clock.advance(10.0)
        on.metadata({"train": {"a": 1}}, failing="odd")
    assert [partition.partition for partition in on.state.snapshot().partitions] == ["train"]
    assert on.recorder.errors == {("list_metadata", "DataPlaneReadError"): 10}
    source = on.source("metadata")
    assert (source.up, source.reason) == (False, "failing")
    assert source.detail == "partition 'odd': unreadable"


def test_a_partition_that_cannot_be_listed_any_more_is_withdrawn_alone(on: Fixture) -> None:
    on.metadata({"train": {"a": 1}, "val": {"b": 1}})
    for _ in range(4):
        on.clock.advance(10.0)
        on.metadata({"val": {"b": 1}}, failing="train")
    assert [partition.partition for partition in on.state.snapshot().partitions] == ["val"]


def test_a_held_partition_keeps_its_state_for_longer_but_not_without_a_controller(on: Fixture) -> None:
    on.metadata({"train": {"a": 1}, "huge": {"b": 1}})
    on.state.partitions.hold("huge", 900.0)
    for _ in range(20):
        on.clock.advance(10.0)
        held = metadata({"train": {"a": 1}}).value
        on.list(Ok(MetadataPoll(("train", "huge"), held.listings, (), None, 0.01, "c1"), 0.02))
    assert [partition.partition for partition in on.state.snapshot().partitions] == ["huge", "train"]
    on.clock.advance(31.0)
    assert on.state.snapshot().partitions == ()


def test_more_partitions_than_the_limit_are_summed(on: Fixture) -> None:
    on = Fixture(max_partitions=2)
    on.metadata({name: {"a": 1, "b": 1} for name in ("pa", "pb", "pc", "pd")})
    partitions = on.state.snapshot().partitions
    assert [(partition.partition, partition.depth) for partition in partitions] == [("other", 4), ("pa", 2), ("pb", 2)]


def test_a_storage_unit_that_does_not_answer_keeps_no_figures_but_says_why(on: Fixture) -> None:
    on.run()
    units = (StorageState(0, "u0", 100, 5, 1000), StorageState(1, "u1", 100, 6, 1000))
    on.storage(Ok(StoragePoll(units), 0.1))
    assert on.state.snapshot().storage == units
    gone = StorageState(1, "u1", error_type="DataPlaneUnavailable", detail="refused")
    on.storage(Ok(StoragePoll((units[0], gone)), 0.1))
    last = LastAnswer(on.clock.time(), 100, 6, 1000)
    assert on.state.snapshot().storage == (units[0], replace(gone, last_answer=last)), "for display, dated"
    on.clock.advance(5)
    on.storage(Ok(StoragePoll((units[0], gone)), 0.1))
    assert on.state.snapshot().storage[1].last_answer == last
    assert on.recorder.errors == {("storage_metrics", "DataPlaneUnavailable"): 2}
    assert on.source("storage").reason == "failing"
    on.clock.advance(31.0)
    assert on.state.snapshot().storage == ()


def _hold(on: Fixture, *keys: int | None) -> None:
    units = [
        StorageState(index, f"u{index}", keys=count)
        if count is not None
        else StorageState(index, f"u{index}", error_type="DataPlaneTimeout")
        for index, count in enumerate(keys)
    ]
    on.storage(Ok(StoragePoll(tuple(units)), 0.1))


def test_unlisted_keys_need_all_units(on: Fixture) -> None:
    on.run()
    on.state.unlisted.listed(3)
    _hold(on, 4, 2)
    on.state.unlisted.listed(3)
    assert on.state.snapshot().unlisted_keys == 3
    _hold(on, 4, None)
    assert on.state.snapshot().unlisted_keys is None


@pytest.mark.parametrize("end", ["switch", "begin_generation"])
def test_unlisted_keys_of_another_controller_are_forgotten(on: Fixture, end: str) -> None:
    on.run()
    on.state.unlisted.listed(0)
    _hold(on, 4)
    getattr(on.state, end)()
    on.state.unlisted.listed(0)
    assert on.state.snapshot().unlisted_keys is None


def test_unlisted_keys_are_forgotten_when_they_are_stale(on: Fixture) -> None:
    on.run()
    on.state.unlisted.listed(0)
    _hold(on, 4)
    on.state.unlisted.listed(0)
    assert on.state.snapshot().unlisted_keys == 4
    on.clock.advance(31.0)
    assert on.state.snapshot().unlisted_keys is None


def test_the_budget_is_told_as_the_reason(on: Fixture) -> None:
    on.run()
    on.state.health.schedule("metadata", 60.0, "listing takes 0.6 s")
    source = on.source("metadata")
    assert (source.reason, source.interval, source.detail) == ("budget", 60.0, "listing takes 0.6 s")


def test_the_busy_ratio_is_what_the_controller_spent_on_us(on: Fixture) -> None:
    assert on.state.snapshot().controller_busy_ratio is None
    on.discover(found())
    on.ping()
    for _ in range(10):
        on.metadata({"train": {"a": 1}})
        on.clock.advance(10.0)
    ratio = on.state.snapshot().controller_busy_ratio
    assert ratio == pytest.approx(0.001, rel=0.02)


def test_the_busy_ratio_is_never_above_one(on: Fixture) -> None:
    on.state.controller_time.interval = 10.0
    on.state.controller_time.spend(45.0)
    assert on.state.snapshot().controller_busy_ratio == 1.0


def test_incidents_are_bounded_and_newest_first(on: Fixture) -> None:
    on.run()
    for number in range(200):
        on.fail(Failed("ping", "DataPlaneTimeout", str(number), 1.0))
    incidents = on.state.snapshot().incidents
    assert len(incidents) == 50
    assert incidents[0].detail == "199"


def test_the_total_is_the_sum_of_all_partitions_and_as_old_as_its_oldest_listing(on: Fixture) -> None:
    on = Fixture(max_partitions=1)
    on.metadata({"a": {"x": 1}, "b": {"y": 3}, "c": {"z": 2}})
    first = on.clock.time()
    on.state.partitions.hold("a", 900.0)
    on.clock.advance(10.0)
    listings = metadata({"b": {"y": 3, "w": 3}, "c": {"z": 2}}).value.listings
    on.list(Ok(MetadataPoll(("a", "b", "c"), listings, (), None, 0.01, "c1"), 0.02))
    snapshot = on.state.snapshot()
    assert [part.partition for part in snapshot.partitions] == ["a", "other"]
    total = snapshot.total
    assert total is not None
    assert (total.depth, total.keys, total.oldest_version, total.newest_version) == (4, 4, 1, 3)
    assert (total.listed_at, total.newest_listing) == (first, first + 10.0)


def test_no_partitions_are_a_total_of_nothing_only_while_that_is_known(on: Fixture) -> None:
    assert on.state.snapshot().total is None
    on.metadata({})
    total = on.state.snapshot().total
    assert total is not None
    assert (total.groups["ready"], total.keys, total.staleness_max) == (0, 0, None)
    on.clock.advance(30.1)
    assert on.state.snapshot().total is None


def test_the_flow_in_total_never_falls(on: Fixture) -> None:
    on.metadata({"p": {}})
    on.metadata({"p": {"a": 1, "b": 1}})
    on.metadata({})
    on.clock.advance(601.0)
    on.metadata({"q": {"c": 1}})
    on.clock.advance(601.0)
    on.metadata({"q": {"c": 1}})
    snapshot = on.state.snapshot()
    assert [flow.partition for flow in snapshot.flows] == ["q"]
    total = snapshot.total_flow
    assert total is not None
    assert (total.arrived, total.departed, total.lost, total.residence.count) == (3, 2, 0, 2)


def test_a_snapshot_says_when_it_was_made_and_what_the_reader_claims(on: Fixture) -> None:
    started = on.clock.time()
    on.run()
    on.clock.advance(7.0)
    snapshot = on.state.snapshot()
    assert (snapshot.started_at, snapshot.taken_at) == (started, started + 7.0)
    assert snapshot.capabilities == NoOpDataPlaneClient().get_capabilities()
    assert snapshot.storage == ()


def test_a_partition_is_summed_up_with_its_own_reference_and_first_sight(on: Fixture) -> None:
    on.run()
    on.metadata({"train": {"a": 1, "b": 4}, "val": {"v": 9}}, published=5)
    train, val = on.state.snapshot().partitions
    assert (train.partition, train.reference_version, train.reference, train.staleness_max) == (
        "train",
        5,
        "published",
        4,
    )
    assert (val.partition, val.weight_versions) == ("val", (("9", 1),))
    assert [(group.basis, group.created_at) for group in train.oldest] == [("first_seen", on.clock.time())]


def test_the_log_tells_each_turn_of_the_discovery_once(on: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    on.run()
    on.ping()
    on.fail()
    on.fail()
    on.ping()
    on.fail()
    on.discover(ENDED)
    told = [record.getMessage() for record in caplog.records if record.name == "exporter.model.lifecycle"]
    assert told == [
        "found TransferQueue at tcp://127.0.0.1:1",
        "lost TransferQueue: refused",
        "found TransferQueue at tcp://127.0.0.1:1",
        "lost TransferQueue: refused",
        "TransferQueue was ended on purpose: tq.close()",
    ]


def test_a_failure_is_logged_when_it_begins_or_changes_and_its_recovery_once(
    on: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    on.run()
    for failed in (TIMEOUT, TIMEOUT, UNAVAILABLE):
        on.fail(failed)
    on.ping()
    on.ping()
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if "ping poll" in record.getMessage()]
    assert [level for level, _ in lines] == ["WARNING", "WARNING", "INFO"]
    assert "silent" in lines[0][1]
    assert "refused" in lines[1][1]
    assert on.recorder.polls["ping", "failed"] == 3


def test_before_anything_was_found_a_failure_is_no_warning(on: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    on.discover(FAILURES["discovery"])
    assert [record.levelname for record in caplog.records if "poll failed" in record.getMessage()] == ["INFO"]


def test_an_incident_says_when_what_and_where(on: Fixture) -> None:
    on.run()
    on.clock.advance(3.0)
    on.metadata({}, failing="odd")
    incident = on.state.snapshot().incidents[0]
    assert (incident.at, incident.source) == (on.clock.time(), "metadata")
    assert (incident.operation, incident.error_type) == ("list_metadata", "DataPlaneReadError")
    source = on.source("metadata")
    assert (source.up, source.duration) == (False, 0.02)


def test_another_controller_leaves_the_time_of_the_last_success(on: Fixture) -> None:
    on.run()
    last = on.source("ping").last_success
    assert last is not None
    on.state.switch()
    assert on.source("ping").last_success == last
    assert on.source("ping").duration is None
