"""A snapshot as flat figures, for trainers' loggers and experiment trackers."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from dataplane.groups import GROUP_STATES, GroupState
from dataplane.tracking import PREFIX, Readings
from exporter.model.counters import FlowCounters
from exporter.model.histogram import Histogram
from exporter.model.snapshot import NEVER_WHOLE, PartitionFlow, PartitionState, Snapshot

__all__ = ["TRAINING", "encode_readings", "histograms", "readings"]

TRAINING: Final = "training"
"""Stands for all partitions that train together, whatever they are called."""

_RESERVED: Final = frozenset(
    {
        *(TRAINING, "up", "exporter_up", "ping_s", "trainer_version", "controllers", "storage_used_max"),
        *("critical_conditions", "warning_conditions"),
    }
)
"""Names that keys have where others have that of a partition."""
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_.-]")
_NOTHING: Final = FlowCounters().of_label("")


def readings(snapshot: Snapshot) -> Readings:
    """Return the figures of *snapshot*. Those of a partition that is not known at present are missing."""
    gauges: dict[str, float | None] = {
        "up": snapshot.up,
        "ping_s": next((one.duration for one in snapshot.sources if one.source == "ping" and one.up), None),
        "trainer_version": snapshot.reference_version,
        "controllers": snapshot.generation,
        "critical_conditions": _held(snapshot, "critical"),
        "warning_conditions": _held(snapshot, "warning"),
    }
    counters: dict[str, float | None] = {}
    if snapshot.up:
        gauges["storage_used_max"] = max(
            (unit.fill for unit in snapshot.storage if unit.fill is not None), default=None
        )
        flows = {flow.partition: flow for flow in snapshot.flows}
        for state in snapshot.partitions:
            name = _name(state.partition)
            gauges.update(_state(name, state, snapshot.taken_at))
            flow = flows.get(state.partition, _NOTHING)  # a label has a flow from its first event on
            gauges[f"{name}/lost"] = flow.lost
            counters.update(_flow(name, flow))
        train = next((flow for flow in snapshot.role_flows if flow.role == "train"), None)
        if snapshot.trained is not None and train is not None:
            gauges.update(_state(TRAINING, snapshot.trained, snapshot.taken_at))
            gauges[f"{TRAINING}/lost"] = train.lost
            counters.update(_counts(TRAINING, train.arrived, train.completed, train.departed))
    return Readings(
        snapshot.taken_at, snapshot.started_at, snapshot.reference_version, _known(gauges), _known(counters)
    )


def histograms(snapshot: Snapshot) -> dict[str, Histogram]:
    """Return the histograms of the groups that left since the exporter started: their lag and residence, by key."""
    found: dict[str, Histogram] = {}
    for flow in snapshot.flows:
        found[f"{PREFIX}{_name(flow.partition)}/departed_lag"] = flow.departure_lag
        found[f"{PREFIX}{_name(flow.partition)}/residence_s"] = flow.residence
    return found


def encode_readings(snapshot: Snapshot) -> bytes:
    """Return the figures as one line of JSON, for :class:`dataplane.tracking.QueueMetrics`."""
    return msgspec.json.encode(readings(snapshot))


def _state(name: str, state: PartitionState, now: float) -> dict[str, float | None]:
    figures: dict[str, float | None] = {f"{name}/{one}": state.groups.get(one) for one in GROUP_STATES}
    ready = min((oldest.created_at for oldest in state.oldest if oldest.state == "ready"), default=None)
    figures.update(
        {
            f"{name}/keys": state.keys,
            f"{name}/size_bytes": state.size_bytes,
            f"{name}/lag_max": state.staleness_max,
            f"{name}/lag_mean": state.staleness_mean,
            f"{name}/orphaned": state.orphaned,
            f"{name}/malformed_rows": state.malformed_rows,
            f"{name}/oldest_ready_age_s": None if ready is None else max(now - ready, 0.0),
            f"{name}/listed_age_s": max(now - state.listed_at, 0.0),
        }
    )
    return figures


def _flow(name: str, flow: PartitionFlow) -> dict[str, float]:
    counts = _counts(name, flow.arrived, flow.completed, flow.departed_by_state)
    for key, histogram in (("departed_lag", flow.departure_lag), ("residence_s", flow.residence)):
        counts[f"{name}/{key}.sum"] = histogram.sum
        counts[f"{name}/{key}.count"] = histogram.count
    return counts


def _counts(name: str, arrived: int, completed: int, departed: Mapping[GroupState, int]) -> dict[str, float]:
    return {
        f"{name}/arrived": arrived,
        f"{name}/completed": completed,
        f"{name}/departed": sum(departed.values()),
        f"{name}/evicted": sum(departed.get(state, 0) for state in NEVER_WHOLE),
    }


def _held(snapshot: Snapshot, severity: str) -> int | None:
    """Return how many conditions of that severity hold, None while nothing was judged."""
    return sum(one.severity == severity for one in snapshot.held) if snapshot.conditions else None


def _name(label: str) -> str:
    """Return the name of a partition in keys, which every tracker accepts and no other partition has."""
    name = _FOREIGN.sub("_", label)
    if name != label or name in _RESERVED or not name.strip("."):
        name = f"{name}_{zlib.crc32(label.encode('utf-8', 'backslashreplace')):08x}"
    return name


def _known(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {PREFIX + key: float(value) for key, value in figures.items() if value is not None and math.isfinite(value)}
