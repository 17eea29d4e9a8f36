"""Rendering a snapshot: known values are present, unknown ones absent, and there are no duplicates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import DataPointT, Histogram, HistogramDataPoint, NumberDataPoint, Sum

from dataplane.discovery.record import Endpoint
from dataplane.groups import GROUP_STATES, DataPlaneCapabilities
from exporter.catalogue import metrics as catalogue
from exporter.catalogue.metrics import EXPORTER_METRICS, UndeclaredError
from exporter.model import snapshot
from exporter.model.snapshot import (
    LAG_BOUNDS,
    RESIDENCE_BOUNDS,
    OldestGroup,
    PartitionFlow,
    PartitionState,
    PartitionStatus,
    Snapshot,
    SourceState,
    StorageState,
)
from exporter.model.storage import STORAGE_OPERATIONS, StorageRequests
from exporter.telemetry.render import Sheet, render
from exporter.version import Build
from tests.support.snapshots import STARTED, TAKEN, empty_snapshot, partition, rich_snapshot

BUILD = Build("1.2.3", None, "3.11.7")

INSTRUMENTS = {
    "dataplane.ping.duration",
    "dataplane.errors",
    "dataplane.controller.restarts",
    "tq_exporter.polls",
    "tq_exporter.polls.skipped",
    "tq_exporter.polls.full_decodes",
    "tq_exporter.replies.refused",
    "tq_exporter.http.refused_logins",
    "tq_exporter.otlp.exports",
    "tq_exporter.tracker.points",
}


def test_a_full_snapshot_gives_every_metric_that_is_not_an_instrument() -> None:
    names = [metric.name for metric in render(rich_snapshot(), BUILD)]
    assert names == [metric.name for metric in EXPORTER_METRICS if metric.name not in INSTRUMENTS]


def test_a_condition_is_1_or_0_and_absent_while_unknown() -> None:
    points = _points(rich_snapshot())
    labels = {"condition": "DataPlaneQueueStalled", "stage": "training", "severity": "critical"}
    found = {key: value for key, value in points.items() if key[0] == "dataplane.condition"}
    assert found == {("dataplane.condition", tuple(sorted(labels.items()))): 0}


def test_nothing_known_gives_what_is_always_known() -> None:
    points = _points(empty_snapshot())
    assert {name for name, _ in points} == {
        "dataplane.up",
        "dataplane.discovery.state",
        "dataplane.weight_version.regressions",
        "tq_exporter.build.info",
    }
    assert points["dataplane.up", ()] == 0
    assert points["dataplane.discovery.state", (("state", "never_found"),)] == 1
    assert points["dataplane.discovery.state", (("state", "lost"),)] == 0


def test_values_are_those_of_the_snapshot() -> None:
    points = _points(rich_snapshot())
    train = ("partition", "train")
    assert points["dataplane.up", ()] == 1
    assert points["dataplane.partition.groups", (train, ("state", "failed"))] == 10
    assert points["dataplane.partition.depth", (train,)] == 7
    assert points["dataplane.partition.size", (train,)] == 7 * 1_048_576
    assert points["dataplane.partition.weight_version.groups", (train, ("weight_version", "older"))] == 5
    assert points["dataplane.partition.staleness.groups", (("lag", "5-8"), train)] == 7
    assert points["dataplane.partition.staleness.mean", (train,)] == 1.75
    assert points["dataplane.partition.staleness.reference", (train, ("reference", "newest_seen"))] == 1
    assert (
        points[
            "dataplane.partition.oldest_group.created.timestamp",
            (("basis", "first_seen"), train, ("state", "uncommitted")),
        ]
        == STARTED + 4
    )
    assert points["dataplane.source.state", (("reason", "budget"), ("source", "metadata"))] == 1
    assert points["dataplane.source.state", (("reason", "ok"), ("source", "metadata"))] == 0
    assert points["dataplane.source.up", (("source", "storage"),)] == 0
    assert points["dataplane.storage.utilization_ratio", (("storage_unit", "0"),)] == 0.25
    assert points["dataplane.capability", (("capability", "supports_persistent_recovery"),)] == 1
    assert points["dataplane.capability", (("capability", "supports_verified_clear"),)] == 0
    assert points["dataplane.partition.groups.lost", (("partition", "gone"),)] == 8
    assert points["dataplane.partition.groups", (train, ("state", "taken"))] == 11
    assert points["dataplane.partition.groups.departed", (train, ("state", "taken"))] == 20
    assert points["dataplane.groups.completed", (("role", "train"),)] == 220
    assert points["dataplane.groups.departed", (("role", "eval"), ("state", "ready"))] == 0
    assert points["dataplane.partition.groups_per_step", (train,)] == 16
    assert points["dataplane.weight_version.reference", ()] == 41


def test_an_empty_partition_shows_zeros_and_no_versions() -> None:
    bare = PartitionState("val", TAKEN, groups=dict.fromkeys(GROUP_STATES, 0), keys=0)
    points = _points(replace(empty_snapshot(), partitions=(bare,)))
    names = {name for name, attributes in points if ("partition", "val") in attributes}
    assert names == {
        "dataplane.partition.groups",
        "dataplane.partition.depth",
        "dataplane.partition.keys",
        "dataplane.partition.groups.orphaned",
        "dataplane.partition.rows.bare",
        "dataplane.partition.rows.malformed",
    }
    assert points["dataplane.partition.depth", (("partition", "val"),)] == 0


def test_a_partition_that_cannot_be_read_has_its_reason_and_role_and_no_groups() -> None:
    status = PartitionStatus("val", False, "not_listable", None, "eval")
    points = _points(replace(empty_snapshot(), statuses=(status,)))
    of_it = {
        (name, attributes): value for (name, attributes), value in points.items() if "partition" in str(attributes)
    }
    info = (("convention", "unknown"), ("partition", "val"), ("role", "eval"))
    assert of_it == {
        ("dataplane.partition.readable", (("partition", "val"), ("reason", "not_listable"))): 0,
        ("dataplane.partition.info", info): 1,
    }


@pytest.mark.parametrize(
    ("capacity", "keys"), [(None, 5), (100, None), (None, None), (0, 0)], ids=["unlimited", "unknown", "none", "zero"]
)
def test_utilization_is_absent_when_it_cannot_be_told(capacity: int | None, keys: int | None) -> None:
    unit = StorageState(0, "u", capacity=capacity, keys=keys)
    points = _points(replace(empty_snapshot(), storage=(unit,)))
    assert not [name for name, _ in points if name == "dataplane.storage.utilization_ratio"]


def test_a_unit_that_does_not_answer_is_0_and_has_no_figures() -> None:
    gone = StorageState(1, "u", error_type="DataPlaneUnavailable", detail="refused")
    points = _points(replace(empty_snapshot(), storage=(StorageState(0, "u", keys=3), gone)))
    found = {(name, dict(attributes)["storage_unit"]): value for (name, attributes), value in points.items()
             if name.startswith("dataplane.storage.")}  # fmt: skip
    assert found == {
        ("dataplane.storage.info", "0"): 1,
        ("dataplane.storage.up", "0"): 1,
        ("dataplane.storage.keys", "0"): 3,
        ("dataplane.storage.info", "1"): 1,
        ("dataplane.storage.up", "1"): 0,
    }


def test_unlisted_keys_that_are_unknown_are_absent_and_none_is_0() -> None:
    assert _points(replace(empty_snapshot(), unlisted_keys=0))["dataplane.storage.keys.unlisted", ()] == 0
    assert ("dataplane.storage.keys.unlisted", ()) not in _points(empty_snapshot())


def test_a_controllers_unknown_facts_are_left_out() -> None:
    points = _points(replace(empty_snapshot(), endpoint=Endpoint("tcp://10.0.0.7:1")))
    info = [attributes for name, attributes in points if name == "dataplane.controller.info"]
    assert info == [(("address", "tcp://10.0.0.7:1"),)]


def test_counters_and_histograms_count_from_the_start_and_all_points_carry_the_snapshots_time() -> None:
    for metric in render(rich_snapshot(), BUILD):
        for point in metric.data.data_points:
            assert point.time_unix_nano == int(TAKEN * 1e9)
            if isinstance(metric.data, Sum | Histogram):
                # Counted by a unit, a store or the controller, since it began.
                foreign = metric.name.startswith(("dataplane.storage.", "dataplane.controller.requests."))
                assert point.start_time_unix_nano == (0 if foreign else int(STARTED * 1e9))
        if isinstance(metric.data, Sum):
            assert metric.data.is_monotonic


def test_a_clock_that_went_back_gives_no_counter_that_starts_after_its_end() -> None:
    for metric in render(replace(rich_snapshot(), started_at=TAKEN + 100), BUILD):
        for point in metric.data.data_points:
            assert (getattr(point, "start_time_unix_nano", 0) or 0) <= point.time_unix_nano


def test_a_histogram_keeps_buckets_sum_and_count() -> None:
    metric = next(m for m in render(rich_snapshot(), BUILD) if m.name == "dataplane.partition.residence.duration")
    point = metric.data.data_points[0]
    assert isinstance(point, HistogramDataPoint)
    assert point.explicit_bounds == RESIDENCE_BOUNDS
    assert point.bucket_counts == (1,) * 14
    assert (point.count, point.sum) == (14, 54321.5)


def test_rendering_is_pure() -> None:
    snap = rich_snapshot()
    assert render(snap, BUILD) == render(snap, BUILD)
    assert snap == rich_snapshot()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, None])
def test_what_is_no_number_gives_no_point(value: float | None) -> None:
    sheet = Sheet(started_at=0.0, taken_at=1.0)
    sheet.add(catalogue.PARTITION_KEYS, value, partition="p")
    assert sheet.metrics() == []


def test_an_integer_beyond_64_bits_becomes_a_float() -> None:
    sheet = Sheet(started_at=0.0, taken_at=1.0)
    sheet.add(catalogue.PARTITION_KEYS, 2**70, partition="p")
    point = sheet.metrics()[0].data.data_points[0]
    assert isinstance(point, NumberDataPoint)
    assert point.value == 2.0**70
    assert isinstance(point.value, float)


def test_a_series_that_comes_twice_is_there_once() -> None:
    points = [p for m in render(replace(rich_snapshot(), partitions=(partition("a"), partition("a"))), BUILD)
              if m.name == "dataplane.partition.keys" for p in m.data.data_points]  # fmt: skip
    assert len(points) == 1


def test_half_a_surrogate_pair_does_not_reach_the_encoders() -> None:
    sheet = Sheet(started_at=0.0, taken_at=1.0)
    sheet.add(catalogue.PARTITION_KEYS, 1, partition="p\udc80")
    assert sheet.metrics()[0].data.data_points[0].attributes == {"partition": "p\\udc80"}


def test_undeclared_is_an_error() -> None:
    sheet = Sheet(started_at=0.0, taken_at=1.0)
    with pytest.raises(UndeclaredError):
        sheet.add(catalogue.PARTITION_KEYS, 1, group_id="7")
    with pytest.raises(UndeclaredError):
        sheet.add(catalogue.PARTITION_GROUPS, 1, partition="p", state="asleep")
    with pytest.raises(UndeclaredError):
        sheet.add(replace(catalogue.UP, name="dataplane.down"), 1)
    with pytest.raises(UndeclaredError):
        sheet.add(catalogue.PARTITION_RESIDENCE, 1, partition="p")
    with pytest.raises(UndeclaredError):
        sheet.add_histogram(catalogue.PARTITION_RESIDENCE, snapshot.Histogram((1.0,), (0, 0), 0.0), partition="p")
    with pytest.raises(UndeclaredError):
        render(replace(rich_snapshot(), partitions=(replace(partition("p"), staleness={"17": 1}),)), BUILD)


# The output must stay valid for any input: odd numbers, odd names, repeated names.
_numbers = st.none() | st.integers(-(2**80), 2**80) | st.floats()
_text = st.text(st.characters(), max_size=20)
_partitions = st.builds(
    PartitionState,
    partition=_text,
    listed_at=st.floats(allow_nan=True),
    groups=st.dictionaries(st.sampled_from(GROUP_STATES), st.integers(0, 2**70)),
    keys=st.integers(0),
    size_bytes=_numbers,
    malformed_rows=st.integers(0),
    weight_versions=st.lists(st.tuples(_text, st.integers(0)), max_size=4).map(tuple),
    staleness=st.dictionaries(st.sampled_from(snapshot.LAG_BUCKETS), st.integers(0)),
    staleness_max=_numbers,
    staleness_mean=_numbers,
    newest_version=_numbers,
    oldest_version=_numbers,
    reference_version=_numbers,
    reference=st.sampled_from([None, *snapshot.REFERENCES]),
    role=st.sampled_from(snapshot.ROLES),
    convention=_text,
    bare_rows=st.integers(0, 2**70),
    orphaned=st.integers(0, 2**70),
    groups_per_step=_numbers,
    oldest=st.lists(
        st.builds(
            OldestGroup,
            state=st.sampled_from(GROUP_STATES),
            basis=st.sampled_from(["tag", "first_seen"]),
            created_at=st.floats(),
        ),
        max_size=3,
    ).map(tuple),
)


def _histograms(bounds: tuple[float, ...]) -> st.SearchStrategy[snapshot.Histogram]:
    counts = st.lists(st.integers(0, 2**40), min_size=len(bounds) + 1, max_size=len(bounds) + 1).map(tuple)
    return st.builds(snapshot.Histogram, st.just(bounds), counts, st.floats())


_flows = st.builds(
    PartitionFlow,
    partition=_text,
    arrived=st.integers(0),
    departed=st.integers(0),
    departed_by_state=st.dictionaries(st.sampled_from(GROUP_STATES), st.integers(0, 2**70)),
    lost=st.integers(0),
    residence=_histograms(RESIDENCE_BOUNDS),
    departure_lag=_histograms(LAG_BOUNDS),
)
_snapshots = st.builds(
    Snapshot,
    taken_at=st.floats(0, 4e9),
    started_at=st.floats(0, 4e9),
    discovery=st.sampled_from(snapshot.DISCOVERY_STATES),
    up=st.booleans(),
    endpoint=st.none() | st.builds(Endpoint, address=_text, run=st.none() | _text),
    capabilities=st.none() | st.builds(DataPlaneCapabilities),
    partitions=st.lists(_partitions, max_size=2).map(tuple),
    statuses=st.lists(
        st.builds(
            PartitionStatus,
            partition=_text,
            readable=st.booleans(),
            reason=st.sampled_from([None, *snapshot.UNREADABLE_REASONS]),
            listed_at=st.none() | st.floats(),
            role=st.sampled_from(snapshot.ROLES),
        ),
        max_size=2,
    ).map(tuple),
    reference_version=_numbers,
    reference_changed_at=st.none() | st.floats(),
    version_regressions=st.integers(0, 2**70),
    flows=st.lists(_flows, max_size=2).map(tuple),
    storage=st.lists(
        st.builds(
            StorageState,
            index=st.integers(0, 2),
            unit_id=_text,
            capacity=st.none() | st.integers(0),
            keys=st.none() | st.integers(0, 2**70),
            memory_bytes=_numbers,
            error_type=st.none() | _text,
            requests=st.lists(
                st.builds(
                    StorageRequests,
                    st.sampled_from(STORAGE_OPERATIONS),
                    st.none() | st.integers(),
                    st.none() | st.integers(),
                    _numbers,
                ),
                max_size=3,
            ).map(tuple),
            accept_queue_peak_ratio=_numbers,
        ),
        max_size=3,
    ).map(tuple),
    sources=st.lists(
        st.builds(
            SourceState,
            source=st.sampled_from(snapshot.SOURCES),
            reason=st.sampled_from(snapshot.SOURCE_REASONS),
            up=st.none() | st.booleans(),
            last_success=_numbers,
            duration=_numbers,
            interval=_numbers,
        ),
        max_size=3,
    ).map(tuple),
    controller_busy_ratio=_numbers,
)


@given(_snapshots)
def test_any_snapshot_gives_declared_finite_unique_series(snap: Snapshot) -> None:
    declared = {metric.name: metric for metric in EXPORTER_METRICS}
    for metric in render(snap, BUILD):
        series = [tuple(sorted(_attributes(point).items())) for point in metric.data.data_points]
        assert series
        assert len(set(series)) == len(series)
        for point in metric.data.data_points:
            catalogue.check_attributes(declared[metric.name], _attributes(point))
            "".join(_attributes(point).values()).encode("utf-8")
            value = point.value if isinstance(point, NumberDataPoint) else point.sum
            assert math.isfinite(value)
            assert isinstance(value, float) or abs(value) < 2**63


def _points(snap: Snapshot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every number by metric name and sorted attributes."""
    return {
        (metric.name, tuple(sorted(_attributes(point).items()))): point.value
        for metric in render(snap, BUILD)
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    }


def _attributes(point: DataPointT) -> dict[str, str]:
    return {name: value for name, value in (point.attributes or {}).items() if isinstance(value, str)}
