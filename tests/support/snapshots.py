"""Snapshots for tests of the outputs: one in which everything is known, and parts to build others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dataplane.discovery.record import Endpoint, StorageUnitEndpoint
from dataplane.groups import GROUP_STATES, DataPlaneCapabilities
from dataplane.partitions import Role, role_of
from exporter.model.condition import Condition
from exporter.model.estimates import KeyEstimate
from exporter.model.occupancy import merge, nothing
from exporter.model.recording import RecorderState
from exporter.model.snapshot import (
    ALL_PARTITIONS,
    LAG_BOUNDS,
    LAG_BUCKETS,
    RESIDENCE_BOUNDS,
    ROLES,
    Histogram,
    Incident,
    OldestGroup,
    PartitionFlow,
    PartitionState,
    PartitionStatus,
    RoleFlow,
    Snapshot,
    SourceState,
    StorageState,
)
from exporter.model.storage import StorageRequests, StoreState
from exporter.model.tasks import REQUEST_BOUNDS, ControllerRequests, ControllerState, PartitionSamples, TaskState

__all__ = ["ODD_NAME", "STARTED", "TAKEN", "empty_snapshot", "flow", "partition", "rich_snapshot"]

STARTED = 1_700_000_000.0
TAKEN = 1_700_000_060.5
ODD_NAME = 'odd "name"\nwith \\ and\tünïcode 🚂'


def empty_snapshot() -> Snapshot:
    """Return the snapshot right after the start."""
    return Snapshot(taken_at=TAKEN, started_at=STARTED)


def partition(name: str, *, groups: int = 7, newest: int = 41, versions: int = 3) -> PartitionState:
    """Return a partition in which everything is known."""
    labels = tuple((str(newest - age), groups) for age in range(versions))
    return PartitionState(
        partition=name,
        listed_at=TAKEN - 2,
        groups={state: groups + index for index, state in enumerate(GROUP_STATES)},
        keys=groups * 64,
        size_bytes=groups * 1_048_576,
        malformed_rows=2,
        weight_versions=(*labels, ("older", 5), ("unknown", 1)),
        staleness=dict.fromkeys(LAG_BUCKETS, groups),
        staleness_max=12,
        staleness_mean=1.75,
        newest_version=newest,
        oldest_version=newest - 12,
        reference_version=newest,
        reference="newest_seen",
        oldest=(OldestGroup("ready", "tag", STARTED - 30.25), OldestGroup("uncommitted", "first_seen", STARTED + 4)),
        newest_listing=TAKEN - 2,
        role=role_of(name),
        convention="nemo-rl",
        bare_rows=3,
        rows=groups * 64 + 3,
    )


def flow(name: str) -> PartitionFlow:
    """Return a partition's flow with an observation in every bucket."""
    return PartitionFlow(
        partition=name,
        arrived=120,
        completed=110,
        departed=96,
        departed_by_state={"ready": 60, "incomplete": 2, "uncommitted": 4, "failed": 10, "taken": 20},
        lost=8,
        restored=5,
        residence=Histogram(RESIDENCE_BOUNDS, (1,) * (len(RESIDENCE_BOUNDS) + 1), 54321.5),
        departure_lag=Histogram(LAG_BOUNDS, (2,) * (len(LAG_BOUNDS) + 1), 132.0),
    )


def with_totals(snapshot: Snapshot, *, listed: bool = True) -> Snapshot:
    """Return *snapshot* with the sums of its partitions and flows, as the state computes them."""
    parts, flows = snapshot.partitions, snapshot.flows
    total = merge(ALL_PARTITIONS, parts, max_versions=16) if parts else nothing(ALL_PARTITIONS, snapshot.taken_at)
    residence, lag = (
        Histogram(
            bounds,
            tuple(map(sum, zip(*(one.counts for one in histograms), strict=True))) or (0,) * (len(bounds) + 1),
            sum(one.sum for one in histograms),
        )
        for bounds, histograms in (
            (RESIDENCE_BOUNDS, [flow.residence for flow in flows]),
            (LAG_BOUNDS, [flow.departure_lag for flow in flows]),
        )
    )
    everything = summed(flows)
    train = [part for part in parts if part.role == "train"]
    readable = all(status.readable for status in snapshot.statuses if status.role == "train")
    return replace(
        snapshot,
        total=total if parts or listed else None,
        total_flow=PartitionFlow(ALL_PARTITIONS, **everything, residence=residence, departure_lag=lag),
        role_flows=tuple(role_flow(role, [one for one in flows if role_of(one.partition) == role]) for role in ROLES),
        trained=(merge(ALL_PARTITIONS, train, max_versions=16) if train else nothing(ALL_PARTITIONS, snapshot.taken_at))
        if listed and readable
        else None,
    )


def summed(flows: Iterable[PartitionFlow]) -> dict[str, Any]:
    """Return the counts of several flows together."""
    flows = list(flows)
    names = ("arrived", "completed", "departed", "lost", "restored")
    counts: dict[str, Any] = {name: sum(getattr(one, name) for one in flows) for name in names}
    counts["departed_by_state"] = {state: sum(one.departed_by_state[state] for one in flows) for state in GROUP_STATES}
    return counts


def role_flow(role: Role, flows: Iterable[PartitionFlow]) -> RoleFlow:
    """Return the flow of a role whose partitions have these *flows*."""
    counts = summed(flows)
    counts["departed"] = counts.pop("departed_by_state")
    return RoleFlow(role, **counts)


def rich_snapshot() -> Snapshot:
    """Return a snapshot in which everything is known."""
    return with_totals(
        Snapshot(
            taken_at=TAKEN,
            started_at=STARTED,
            discovery="found",
            up=True,
            ready=True,
            generation=2,
            recorder=RecorderState(True, STARTED - 3600, 1_048_576, 3),
            endpoint=Endpoint(
                address="tcp://10.0.0.7:40123",
                controller_id="TQ_CONTROLLER_5a1f",
                actor_id="ab12",
                backend="SimpleStorage",
                capacity=20_000,
                versions={"transfer_queue": "0.1.11", "ray": "2.60.0"},
                run="grpo-7b",
                storage_units=tuple(
                    StorageUnitEndpoint(
                        index,
                        f"TQ_STORAGE_UNIT_{index}",
                        f"tcp://10.0.0.{8 + index}:40200",
                        f"cd3{index}",
                        "f0e1",
                        500 + index,
                    )
                    for index in range(3)
                ),
                node_id="f0e0",
                pid=4711,
            ),
            capabilities=DataPlaneCapabilities(supports_persistent_recovery=True),
            partitions=(
                replace(partition("train"), groups_per_step=16),
                partition("val", groups=0),
                partition(ODD_NAME),
            ),
            statuses=tuple(
                PartitionStatus(name, True, None, TAKEN - 2, role_of(name)) for name in ("train", "val", ODD_NAME)
            ),
            flows=(flow("train"), flow("gone")),
            reference_version=41,
            reference="newest_seen",
            reference_changed_at=TAKEN - 20,
            version_regressions=1,
            storage=(
                StorageState(
                    0,
                    "TQ_STORAGE_UNIT_0",
                    capacity=10_000,
                    keys=2_500,
                    memory_bytes=987_654_321,
                    requests=(
                        StorageRequests("PUT_DATA", 120, 120, 1.5),
                        StorageRequests("GET_DATA", 61, 60, 0.25),
                        StorageRequests("GET_METRICS", 9),
                    ),
                    ssd_bytes=3_221_225_472,
                    ssd_values=640,
                    ssd_fallbacks=3,
                    accept_queue_peak_ratio=0.125,
                    socket_drops=2,
                ),
                StorageState(1, "TQ_STORAGE_UNIT_1", capacity=None, keys=2_400),
                StorageState(2, "TQ_STORAGE_UNIT_2", error_type="DataPlaneTimeout", detail="storage unit 2: silent"),
                StorageState(3, "10.0.0.7:13224", memory_bytes=200_000_000, memory_limit_bytes=268_435_456),
            ),
            store=StoreState(37, 1, 55, 57_671_680, 40, 7),
            estimates=(KeyEstimate("huge", 1_000_064, "storage", TAKEN - 4),),
            unlisted_keys=12,
            samples=(
                PartitionSamples("stream", 200, task="ref", tasks_left_out=2),
                PartitionSamples("train", 448),
            ),
            tasks=(
                TaskState("stream", "all", None, 0.75),
                TaskState("stream", "ref", 0.25, 0.75),
                TaskState("stream", "train", 0.6, 0.75),
            ),
            controller=ControllerState(
                345_678_901,
                (
                    ControllerRequests(
                        "GET_META", 90, 1, Histogram(REQUEST_BOUNDS, (80, 5, 2, 1, 0, 1, 0, 0, 0, 0, 0), 0.375)
                    ),
                    ControllerRequests("other", 3),
                ),
            ),
            sources=(
                SourceState("discovery", "ok", up=True, last_success=STARTED + 1.5, duration=2.75),
                SourceState("ping", "ok", up=True, last_success=TAKEN - 1, duration=0.0009, interval=5.0),
                SourceState("metadata", "budget", up=True, last_success=TAKEN - 2, duration=0.061, interval=12.5),
                SourceState("storage", "failing", up=False, last_success=TAKEN - 31, duration=3.0, interval=15.0),
                SourceState("tq_metrics", "ok", up=True, last_success=TAKEN - 5, duration=0.004, interval=15.0),
            ),
            controller_busy_ratio=0.0061,
            conditions=(
                Condition("DataPlaneQueueStalled", "training", "critical", False, degrades=True),
                Condition("DataPlaneTimeouts", "data_plane", "critical", None, degrades=True),
            ),
            incidents=(Incident(TAKEN - 1, "storage", "storage_metrics", "DataPlaneTimeout", "unit 1 is silent"),),
            version="1.2.3",
        )
    )
