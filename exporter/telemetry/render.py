"""Renders a snapshot as OpenTelemetry metric data. A pure function, so that pull and push give the same values.

A value that is None, infinite or NaN gives no point: absent is not zero. A point carries the time of the snapshot, not
of the export: old is not now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, cast

from opentelemetry.sdk.metrics import export as otel

from dataplane.metrics import Metric
from exporter.catalogue import metrics as catalogue
from exporter.catalogue.metrics import UndeclaredError, check_attributes
from exporter.model.recording import RecorderState
from exporter.model.snapshot import (
    DISCOVERY_STATES,
    NEVER_WHOLE,
    SOURCE_REASONS,
    Histogram,
    PartitionFlow,
    PartitionState,
    PartitionStatus,
    RoleFlow,
    Snapshot,
    SourceState,
)
from exporter.telemetry.render_storage import render_storage
from exporter.telemetry.render_tasks import render_tasks
from exporter.version import Build

__all__ = ["Sheet", "render"]

_NANOS: Final = 1_000_000_000
_MAX_INT64: Final = 2**63 - 1
# The SDK's point requires the smallest and the largest observation; the encoders omit None.
_UNKNOWN = cast(float, None)


def render(snapshot: Snapshot, build: Build) -> list[otel.Metric]:
    """Return every metric of *snapshot*, in the catalogue's order.

    Raises:
        UndeclaredError: The snapshot has a value that the catalogue does not declare.
    """
    sheet = Sheet(started_at=snapshot.started_at, taken_at=snapshot.taken_at)
    _data_plane(sheet, snapshot)
    for source in snapshot.sources:
        _source(sheet, source)
    conventions = {partition.partition: partition.convention for partition in snapshot.partitions}
    for status in snapshot.statuses:
        _status(sheet, status, conventions.get(status.partition))
    for partition in snapshot.partitions:
        _occupancy(sheet, partition)
        _staleness(sheet, partition)
    sheet.add(catalogue.WEIGHT_VERSION_REFERENCE, snapshot.reference_version)
    sheet.add(catalogue.WEIGHT_VERSION_CHANGED, snapshot.reference_changed_at)
    sheet.add(catalogue.WEIGHT_VERSION_REGRESSIONS, snapshot.version_regressions)
    for one in snapshot.estimates:
        sheet.add(catalogue.PARTITION_KEYS_ESTIMATED, one.keys, partition=one.partition, basis=one.basis)
        sheet.add(catalogue.PARTITION_KEYS_ESTIMATED_AT, one.at, partition=one.partition)
    for flow in snapshot.flows:
        _flow(sheet, flow)
    for role_flow in snapshot.role_flows:
        _role_flow(sheet, role_flow)
        if role_flow.role == "train":
            _training(sheet, snapshot.trained, role_flow)
    render_tasks(sheet, snapshot)
    render_storage(sheet, snapshot)
    sheet.add(catalogue.CONTROLLER_BUSY, snapshot.controller_busy_ratio)
    _recorder(sheet, snapshot.recorder)
    sheet.add(catalogue.BUILD_INFO, 1, version=build.version, commit=build.commit, python_version=build.python_version)
    return sheet.metrics()


def _recorder(sheet: Sheet, recorder: RecorderState | None) -> None:
    if recorder is not None:
        sheet.add(catalogue.RECORDER_UP, None if recorder.up is None else int(recorder.up))
        sheet.add(catalogue.RECORDER_SIZE, recorder.size_bytes)
        sheet.add(catalogue.RECORDER_DROPPED, recorder.dropped)


class Sheet:
    """Collects points, each checked against the catalogue; no series appears twice.

    Args:
        started_at: When counters and histograms began, seconds since the epoch.
        taken_at: The time of every point, seconds since the epoch.
    """

    def __init__(self, *, started_at: float, taken_at: float) -> None:
        self._time = int(taken_at * _NANOS)
        self._start = min(int(started_at * _NANOS), self._time)
        self._numbers: dict[str, dict[tuple[str, ...], otel.NumberDataPoint]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], otel.HistogramDataPoint]] = {}

    def add(
        self,
        metric: Metric,
        value: float | None,
        *,
        since: float | None = None,
        foreign: bool = False,
        **attributes: str | None,
    ) -> None:
        """Add a point to a gauge or counter, unless the value is unknown. Attributes that are None are omitted.

        Args:
            metric: The metric.
            value: Its value.
            since: When a counter was 0, seconds since the epoch; None for the exporter's start. A counter that starts
                again has a new start: an OTLP receiver would take a smaller value with the old one for an error.
            foreign: Whether another process counts it, which may restart at any time. When it began is unknown then:
                with the exporter's start as the beginning, an OTLP receiver would take the whole value for an increase
                after each restart of the exporter.
            attributes: The attributes.

        Raises:
            UndeclaredError: The metric is of another kind, or an attribute is not declared.
        """
        number = _number(value)
        if number is None:
            return
        labels = _labels(metric, attributes)
        if metric.kind == "histogram":
            raise UndeclaredError(f"{metric.name} is declared a histogram")
        start = 0 if metric.kind != "counter" or foreign else self._beginning(since)
        points = self._numbers.setdefault(_declared(metric), {})
        points.setdefault(_key(labels), otel.NumberDataPoint(labels, start, self._time, number))

    def add_histogram(
        self,
        metric: Metric,
        histogram: Histogram,
        *,
        since: float | None = None,
        foreign: bool = False,
        **attributes: str | None,
    ) -> None:
        """Add a point to a histogram. For *since* and *foreign* see :meth:`add`.

        Raises:
            UndeclaredError: The metric has other buckets, or an attribute is not declared.
        """
        if metric.kind != "histogram" or histogram.bounds != metric.boundaries:
            raise UndeclaredError(f"{metric.name} is not declared as a histogram with these buckets")
        total = _number(histogram.sum)
        if total is None:
            return
        labels = _labels(metric, attributes)
        point = otel.HistogramDataPoint(
            labels,
            0 if foreign else self._beginning(since),
            self._time,
            histogram.count,
            total,
            histogram.counts,
            histogram.bounds,
            _UNKNOWN,
            _UNKNOWN,
        )
        self._histograms.setdefault(_declared(metric), {}).setdefault(_key(labels), point)

    def _beginning(self, since: float | None) -> int:
        return self._start if since is None else min(int(since * _NANOS), self._time)

    def metrics(self) -> list[otel.Metric]:
        """Return the metrics with points, in the catalogue's order."""
        return [
            otel.Metric(metric.name, metric.description, metric.unit, self._data(metric))
            for metric in catalogue.EXPORTER_METRICS
            if metric.name in self._numbers or metric.name in self._histograms
        ]

    def _data(self, metric: Metric) -> otel.DataT:
        cumulative = otel.AggregationTemporality.CUMULATIVE
        if metric.kind == "histogram":
            return otel.Histogram(list(self._histograms[metric.name].values()), cumulative)
        points = list(self._numbers[metric.name].values())
        return otel.Sum(points, cumulative, is_monotonic=True) if metric.kind == "counter" else otel.Gauge(points)


def _data_plane(sheet: Sheet, snapshot: Snapshot) -> None:
    sheet.add(catalogue.UP, snapshot.up)
    for state in DISCOVERY_STATES:
        sheet.add(catalogue.DISCOVERY_STATE, snapshot.discovery == state, state=state)
    for one in snapshot.conditions:
        sheet.add(catalogue.CONDITION, one.holds, condition=one.name, stage=one.stage, severity=one.severity)
    endpoint = snapshot.endpoint
    if endpoint is not None:
        sheet.add(
            catalogue.CONTROLLER_INFO,
            1,
            controller_id=endpoint.controller_id,
            address=endpoint.address,
            backend=endpoint.backend,
            run=endpoint.run,
            transfer_queue_version=endpoint.versions.get("transfer_queue"),
            ray_version=endpoint.versions.get("ray"),
        )
    if snapshot.capabilities is not None:
        for name in catalogue.CAPABILITIES:
            sheet.add(catalogue.CAPABILITY, bool(getattr(snapshot.capabilities, name)), capability=name)


def _source(sheet: Sheet, state: SourceState) -> None:
    source = state.source
    sheet.add(catalogue.SOURCE_UP, state.up, source=source)
    sheet.add(catalogue.SOURCE_LAST_SUCCESS, state.last_success, source=source)
    sheet.add(catalogue.SOURCE_DURATION, state.duration, source=source)
    sheet.add(catalogue.SOURCE_INTERVAL, state.interval, source=source)
    for reason in SOURCE_REASONS:
        sheet.add(catalogue.SOURCE_STATE, state.reason == reason, source=source, reason=reason)


def _status(sheet: Sheet, status: PartitionStatus, convention: str | None) -> None:
    partition = status.partition
    sheet.add(catalogue.PARTITION_INFO, 1, partition=partition, role=status.role, convention=convention or "unknown")
    sheet.add(catalogue.PARTITION_READABLE, status.readable, partition=partition, reason=status.reason or "ok")
    sheet.add(catalogue.PARTITION_LISTED, status.listed_at, partition=partition)


def _occupancy(sheet: Sheet, state: PartitionState) -> None:
    partition = state.partition
    for group_state, groups in state.groups.items():
        sheet.add(catalogue.PARTITION_GROUPS, groups, partition=partition, state=group_state)
    sheet.add(catalogue.PARTITION_DEPTH, state.groups.get("ready"), partition=partition)
    sheet.add(catalogue.PARTITION_ORPHANED, state.orphaned, partition=partition)
    sheet.add(catalogue.PARTITION_GROUPS_PER_STEP, state.groups_per_step, partition=partition)
    sheet.add(catalogue.PARTITION_KEYS, state.keys, partition=partition)
    sheet.add(catalogue.PARTITION_SIZE, state.size_bytes, partition=partition)
    sheet.add(catalogue.PARTITION_ROWS_MALFORMED, state.malformed_rows, partition=partition)
    sheet.add(catalogue.PARTITION_ROWS_BARE, state.bare_rows, partition=partition)
    for oldest in state.oldest:
        sheet.add(
            catalogue.PARTITION_OLDEST_GROUP,
            oldest.created_at,
            partition=partition,
            state=oldest.state,
            basis=oldest.basis,
        )


def _staleness(sheet: Sheet, state: PartitionState) -> None:
    partition = state.partition
    for version, groups in state.weight_versions:
        sheet.add(catalogue.PARTITION_WEIGHT_VERSION_GROUPS, groups, partition=partition, weight_version=version)
    for lag, groups in state.staleness.items():
        sheet.add(catalogue.PARTITION_STALENESS_GROUPS, groups, partition=partition, lag=lag)
    sheet.add(catalogue.PARTITION_STALENESS_MAX, state.staleness_max, partition=partition)
    sheet.add(catalogue.PARTITION_STALENESS_MEAN, state.staleness_mean, partition=partition)
    if state.reference is not None:
        sheet.add(catalogue.PARTITION_STALENESS_REFERENCE, 1, partition=partition, reference=state.reference)
    sheet.add(catalogue.PARTITION_WEIGHT_VERSION_NEWEST, state.newest_version, partition=partition)
    sheet.add(catalogue.PARTITION_WEIGHT_VERSION_OLDEST, state.oldest_version, partition=partition)
    sheet.add(catalogue.PARTITION_WEIGHT_VERSION_REFERENCE, state.reference_version, partition=partition)


def _flow(sheet: Sheet, flow: PartitionFlow) -> None:
    partition, since = flow.partition, flow.since
    for metric, count in (
        (catalogue.PARTITION_ARRIVED, flow.arrived),
        (catalogue.PARTITION_COMPLETED, flow.completed),
        (catalogue.PARTITION_LOST, flow.lost),
        (catalogue.PARTITION_RESTORED, flow.restored),
    ):
        sheet.add(metric, count, since=since, partition=partition)
    for state, departed in flow.departed_by_state.items():
        sheet.add(catalogue.PARTITION_DEPARTED, departed, since=since, partition=partition, state=state)
    sheet.add_histogram(catalogue.PARTITION_RESIDENCE, flow.residence, since=since, partition=partition)
    sheet.add_histogram(catalogue.PARTITION_DEPARTURE_LAG, flow.departure_lag, since=since, partition=partition)


def _role_flow(sheet: Sheet, flow: RoleFlow) -> None:
    role = flow.role
    sheet.add(catalogue.GROUPS_ARRIVED, flow.arrived, role=role)
    sheet.add(catalogue.GROUPS_COMPLETED, flow.completed, role=role)
    for state, departed in flow.departed.items():
        sheet.add(catalogue.GROUPS_DEPARTED, departed, role=role, state=state)
    sheet.add(catalogue.GROUPS_LOST, flow.lost, role=role)
    sheet.add(catalogue.GROUPS_RESTORED, flow.restored, role=role)


def _training(sheet: Sheet, state: PartitionState | None, flow: RoleFlow) -> None:
    if state is not None:
        sheet.add(catalogue.TRAINING_READY, state.depth)
        sheet.add(catalogue.TRAINING_LAG_MAX, state.staleness_max)
        sheet.add(catalogue.TRAINING_LAG_MEAN, state.staleness_mean)
    sheet.add(catalogue.TRAINING_COMPLETED, flow.completed)
    sheet.add(catalogue.TRAINING_DEPARTED, sum(flow.departed.values()))
    sheet.add(catalogue.TRAINING_EVICTED, sum(flow.departed[state] for state in NEVER_WHOLE))
    sheet.add(catalogue.TRAINING_LOST, flow.lost)


_DECLARED: Final = {metric.name: metric for metric in catalogue.EXPORTER_METRICS}


def _declared(metric: Metric) -> str:
    if _DECLARED.get(metric.name) is not metric:
        raise UndeclaredError(f"{metric.name} is not a metric of the exporter's catalogue")
    return metric.name


def _labels(metric: Metric, attributes: Mapping[str, str | None]) -> dict[str, str]:
    labels = {name: _text(value) for name, value in attributes.items() if value is not None}
    check_attributes(metric, labels)
    return labels


def _key(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(item for name in sorted(labels) for item in (name, labels[name]))


def _text(value: str) -> str:
    """Return *value* as text that can be encoded: a lone surrogate would make the whole exposition fail."""
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _number(value: float | None) -> int | float | None:
    if value is None:
        return None
    if isinstance(value, int):
        if -_MAX_INT64 <= value <= _MAX_INT64:
            return int(value)  # True and False become 1 and 0
        try:
            return float(value)
        except OverflowError:
            return None
    return value if math.isfinite(value) else None
