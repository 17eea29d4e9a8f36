"""The source ``storage`` on Mooncake: the master's page, its segments over time, and storage that cannot be asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import NoOpTracer

from dataplane.discovery.record import Endpoint
from dataplane.errors import DataPlaneError, DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from exporter.config import Config
from exporter.config.model import DiscoverySettings, Storage
from exporter.discovery import build_discovery
from exporter.model.results import Failed, Found, Ok
from exporter.model.segments import MISSED_FOR_S, Segments
from exporter.model.state import State
from exporter.model.storage import SegmentFigures, StorageState, StoreState
from exporter.polling.mooncake import MAX_SEGMENTS, parse
from exporter.polling.sources.mooncake import MooncakeSource
from tests.support.clock import StoppedClock
from tests.support.recording import RecordingRecorder

# As mooncake_master 0.3.13 writes it, shortened.
PAGE = """\
# HELP master_allocated_bytes Total memory bytes currently allocated across all segments
# TYPE master_allocated_bytes gauge
master_allocated_bytes 218104005
# TYPE segment_allocated_bytes gauge
segment_allocated_bytes{segment="127.0.0.1:13224"} 218104005
segment_allocated_bytes{segment="10.0.0.7:14030"} 0
segment_allocated_bytes{segment="left"} 0
# TYPE segment_total_capacity_bytes gauge
segment_total_capacity_bytes{segment="127.0.0.1:13224"} 268435456
segment_total_capacity_bytes{segment="10.0.0.7:14030"} 1048576
segment_total_capacity_bytes{segment="left"} 0
master_key_count 37
master_active_clients 1
master_value_size_bytes_bucket{le="+Inf"} 56
master_put_start_alloc_failures_total 40
master_get_replica_list_failures_total 2
master_batch_get_replica_list_failed_items_total 5
master_evicted_key_count 55
master_evicted_size_bytes 57671680
"""


def test_what_the_page_shows() -> None:
    segments, store = parse(PAGE.encode())
    assert segments == {
        "10.0.0.7:14030": SegmentFigures(0, 1048576),
        "127.0.0.1:13224": SegmentFigures(218104005, 268435456),
    }
    assert store == StoreState(37, 1, 55, 57671680, 40, 7)


def test_a_figure_that_is_impossible_or_missing_is_unknown() -> None:
    segments, store = parse(
        b'master_key_count 0\nmaster_evicted_key_count NaN\nsegment_total_capacity_bytes{segment="a"} 5\n'
    )
    assert (segments, store) == ({"a": SegmentFigures(None, 5)}, StoreState(objects=0))


@pytest.mark.parametrize("page", ["", "<html></html>\n", "master_active_clients 3\n", "master_key_count\n"])
def test_a_page_of_something_else_is_refused(page: str) -> None:
    with pytest.raises(DataPlaneReadError):
        parse(page.encode())


def test_a_page_with_too_many_segments_is_refused() -> None:
    lines = [f'segment_total_capacity_bytes{{segment="{index}"}} 1' for index in range(MAX_SEGMENTS + 1)]
    with pytest.raises(DataPlaneReadError, match="more than 4096 segments"):
        parse("\n".join(["master_key_count 0", *lines, ""]).encode())


@given(st.binary(max_size=60), st.integers(0, len(PAGE)))
def test_any_page_is_figures_or_a_read_error(noise: bytes, position: int) -> None:
    page = bytearray(PAGE.encode())
    page[position : position + len(noise)] = noise
    for candidate in (noise, bytes(page)):
        try:
            parse(candidate)
        except DataPlaneReadError:
            continue


FULL, EMPTY = SegmentFigures(8, 10), SegmentFigures(0, 10)


def said(units: tuple[StorageState, ...]) -> list[tuple[int, str, str | None]]:
    return [(unit.index, unit.unit_id, unit.error_type) for unit in units]


def test_a_segment_keeps_its_number_and_one_that_left_with_rows_is_missed() -> None:
    clock = StoppedClock()
    segments = Segments(clock)
    assert said(segments.listed({"a": FULL, "b": EMPTY})) == [(0, "a", None), (1, "b", None)]
    # b left empty: nothing is lost.
    assert said(segments.listed({"c": FULL})) == [(0, "a", "DataPlaneUnavailable"), (1, "c", None)]
    clock.advance(MISSED_FOR_S)
    units = segments.listed({"c": FULL})
    assert said(units) == [(0, "a", "DataPlaneUnavailable"), (1, "c", None)]
    assert units[0].detail == "segment a has left, and its rows are lost"
    clock.advance(1.0)
    assert said(segments.listed({"c": FULL, "d": EMPTY})) == [(0, "d", None), (1, "c", None)]


def test_a_segment_that_comes_back_is_no_longer_missed() -> None:
    segments = Segments(StoppedClock())
    segments.listed({"a": FULL})
    segments.listed({})
    (unit,) = segments.listed({"a": EMPTY})
    assert (unit.up, unit.memory_bytes, unit.memory_limit_bytes, unit.fill) == (True, 0, 10, 0.0)
    assert segments.listed({}) == ()


def test_the_segments_that_are_missed_are_bounded() -> None:
    clock = StoppedClock()
    segments = Segments(clock)
    for index in range(200):
        segments.listed({f"s{index}": FULL})
        clock.advance(1.0)
    units = segments.listed({})
    assert len(units) == 64
    assert max(unit.index for unit in units) < 70
    assert {unit.unit_id for unit in units} >= {"s199", "s150"}


class Reader:
    def __init__(self) -> None:
        self.answer: tuple[dict[str, SegmentFigures], StoreState] | DataPlaneError = ({}, StoreState())

    def read(self) -> tuple[dict[str, SegmentFigures], StoreState]:
        if isinstance(self.answer, DataPlaneError):
            raise self.answer
        return self.answer


def test_the_source_shows_segments_and_says_what_is_gone() -> None:
    clock, recorder, reader = StoppedClock(), RecordingRecorder(), Reader()
    state = State(recorder, clock, max_partitions=10, max_versions=4)
    source = MooncakeSource(reader, Config(), tracer=NoOpTracer(), clock=clock)

    def poll() -> Ok[object] | Failed:
        result = source.poll()
        source.fold(result, state)
        return result

    reader.answer = DataPlaneUnavailable("Mooncake's metrics at a:9003 are gone")
    assert isinstance(poll(), Failed)  # no segment is known yet
    assert state.snapshot().storage == ()

    reader.answer = ({"a": FULL, "b": FULL}, StoreState(objects=3))
    poll()
    snapshot = state.snapshot()
    assert snapshot.store == StoreState(objects=3)
    assert [unit.fill for unit in snapshot.storage] == [0.8, 0.8]

    reader.answer = ({"a": FULL}, StoreState(objects=2))
    poll()
    assert [unit.up for unit in state.snapshot().storage] == [True, False]

    reader.answer = DataPlaneTimeout("Mooncake's metrics at a:9003 did not answer within 3 s")
    poll()
    snapshot = state.snapshot()
    assert snapshot.store is None
    assert {unit.error_type for unit in snapshot.storage} == {"DataPlaneTimeout"}
    assert [unit.last_answer and unit.last_answer.memory_limit_bytes for unit in snapshot.storage] == [10, 10]
    # One fault, one error, however many segments there are.
    assert snapshot.errors[-1].count == 1


def test_the_configured_master_replaces_the_one_that_was_found() -> None:
    url = "http://10.0.0.9:9103"
    config = Config(discovery=DiscoverySettings(controller="tcp://10.0.0.7:1"), storage=Storage(mooncake_url=url))
    discovery = build_discovery(config)
    found = discovery.look(None)
    assert isinstance(found, Found)
    assert (found.endpoint.address, found.endpoint.store_metrics) == ("tcp://10.0.0.7:1", "10.0.0.9:9103")
    assert (discovery.kind, discovery.recheck_s) == ("address", None)
    discovery.close()
    without = build_discovery(Config(discovery=config.discovery)).look(None)
    assert without == Found(Endpoint("tcp://10.0.0.7:1"))
