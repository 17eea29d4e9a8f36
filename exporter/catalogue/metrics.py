"""Every metric of the exporter, declared once. Instruments, exposition, docs, dashboards and rules derive from it.

An attribute value is either in the closed set that is declared here or bounded by construction (see
:class:`dataplane.metrics.Metric`). Rendering or recording anything that is not declared is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from dataplane.groups import GROUP_STATES
from dataplane.metrics import CLIENT_METRICS, ERROR_TYPE_VALUES, Metric
from dataplane.semconv import ERROR_TYPE
from exporter.conditions import CONDITIONS
from exporter.model.condition import SEVERITIES, STAGES
from exporter.model.estimates import BASES
from exporter.model.snapshot import (
    DISCOVERY_STATES,
    LAG_BOUNDS,
    LAG_BUCKETS,
    REFERENCES,
    RESIDENCE_BOUNDS,
    ROLES,
    SOURCE_REASONS,
    SOURCES,
    UNREADABLE_REASONS,
)
from exporter.model.storage import STORAGE_OPERATIONS
from exporter.model.tasks import CONTROLLER_OPERATIONS, REQUEST_BOUNDS

__all__ = [
    "CAPABILITIES",
    "EXPORTER_METRICS",
    "EXPORTER_OPERATIONS",
    "METRICS",
    "OTHER_OPERATION",
    "UndeclaredError",
    "check_attributes",
    "ping_bounds",
    "prometheus_label",
    "prometheus_name",
]

EXPORTER_OPERATIONS: Final = (
    "discover",
    "ping",
    "list_partitions",
    "list_metadata",
    "get_consumption",
    "storage_metrics",
    "tq_metrics",
)
"""What the exporter does with the data plane: the closed value set of ``operation`` in ``dataplane.errors``."""

OTHER_OPERATION: Final = "_OTHER"
"""Stands in for an operation that is not in the list: a defect, which must still be counted."""

CAPABILITIES: Final = (
    "supports_persistent_recovery",
    "supports_server_side_filtering",
    "supports_atomic_batch_put",
    "supports_verified_clear",
)
"""The fields of ``DataPlaneCapabilities``, in order."""

_PING_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class UndeclaredError(ValueError):
    """A metric, an attribute or an attribute value that the catalogue does not declare."""


def ping_bounds(slo_s: float) -> tuple[float, ...]:
    """Return the ping histogram's upper bounds in seconds, with one at the service level objective *slo_s*."""
    return tuple(sorted({*_PING_BOUNDS, float(slo_s)}))


# The data plane as a whole.

UP = Metric(
    "dataplane.up",
    "gauge",
    "",
    "1 if the controller answered the last ping. 0 if it did not, or if no controller is known.",
)
DISCOVERY_STATE = Metric(
    "dataplane.discovery.state",
    "gauge",
    "",
    "1 for the current discovery state, 0 for the others: never_found (no controller seen yet), starting (its actor "
    "is there and cannot be used yet), unreachable (its address is known, and it has not answered a ping yet), found, "
    "lost (a controller was found and is gone), ended (the controller was stopped on purpose).",
    {"state": DISCOVERY_STATES},
)
CONDITION = Metric(
    "dataplane.condition",
    "gauge",
    "",
    "1 while the condition holds, 0 while it does not. Absent while that is unknown: nothing answers, or a partition "
    "that it needs cannot be read. The conditions are those of the live page and of /api/v1/conditions.",
    {"condition": tuple(rule.name for rule in CONDITIONS), "stage": STAGES, "severity": SEVERITIES},
)
PING_DURATION = Metric(
    "dataplane.ping.duration",
    "histogram",
    "s",
    "Round-trip time of one ping through the controller's request queue. Failed pings have an error.type.",
    {ERROR_TYPE: ERROR_TYPE_VALUES},
    ping_bounds(0.25),
)
ERRORS = Metric(
    "dataplane.errors",
    "counter",
    "{error}",
    "Failed operations of the exporter on the data plane. Nothing is counted in the discovery states never_found and "
    "ended. A look-up that finds a starting controller counts as DataPlaneNotReady.",
    {"operation": (*EXPORTER_OPERATIONS, OTHER_OPERATION), ERROR_TYPE: ERROR_TYPE_VALUES},
)
CONTROLLER_RESTARTS = Metric(
    "dataplane.controller.restarts",
    "counter",
    "{restart}",
    "Number of times that a new controller replaced one seen before.",
)
CONTROLLER_INFO = Metric(
    "dataplane.controller.info",
    "gauge",
    "",
    "Always 1. The labels describe the current controller; a label is left out if its value is unknown. controller_id "
    "is the id in the controller's replies. After it loads a checkpoint, this is the id stored in the checkpoint. "
    "Absent if there is no controller.",
    {
        "controller_id": None,
        "address": None,
        "backend": None,
        "run": None,
        "transfer_queue_version": None,
        "ray_version": None,
    },
)
CAPABILITY = Metric(
    "dataplane.capability",
    "gauge",
    "",
    "1 if the reader reports support for the capability, 0 if not.",
    {"capability": CAPABILITIES},
)

# The exporter's sources.

SOURCE_UP = Metric(
    "dataplane.source.up",
    "gauge",
    "",
    "1 if the source's last poll succeeded, 0 if it failed. Absent before the first poll.",
    {"source": SOURCES},
)
SOURCE_LAST_SUCCESS = Metric(
    "dataplane.source.last_success.timestamp",
    "gauge",
    "s",
    "Unix time at which the source's last successful poll ended. Absent before the first success.",
    {"source": SOURCES},
)
SOURCE_DURATION = Metric(
    "dataplane.source.duration",
    "gauge",
    "s",
    "Duration of the source's last poll.",
    {"source": SOURCES},
)
SOURCE_INTERVAL = Metric(
    "dataplane.source.interval",
    "gauge",
    "s",
    "Current time between two polls of the source. Longer than configured while polls are stretched to limit the "
    "load on the controller.",
    {"source": SOURCES},
)
SOURCE_STATE = Metric(
    "dataplane.source.state",
    "gauge",
    "",
    "1 for the current state of the source, 0 for the others: ok, failing (the last poll failed), budget (polls "
    "are stretched to limit the load on the controller), stale (its data is too old and not shown), disabled "
    "(nothing to poll), unsupported (the storage backend has no figures that can be requested).",
    {"source": SOURCES, "reason": SOURCE_REASONS},
)

# Partitions. A partition has these series as long as it exists, also while it cannot be read.

PARTITION_INFO = Metric(
    "dataplane.partition.info",
    "gauge",
    "",
    "Always 1. What the partition is for (role) and the tag convention by which its rows are read: unknown until it "
    "was listed. Partitions that share a label and differ in the convention show mixed.",
    {"partition": None, "role": ROLES, "convention": None},
)
PARTITION_READABLE = Metric(
    "dataplane.partition.readable",
    "gauge",
    "",
    "1 if the partition's last listing succeeded (reason ok). 0 if not, because: timeout, unavailable (the "
    "controller did not answer), refused (too large), error (the reply cannot be read), held (backing off after a "
    "failed listing), pending (not listed yet), not_listable (its samples were put without keys, so no "
    "listing shows them). While it is 0, sums over all partitions lack this one.",
    {"partition": None, "reason": ("ok", *UNREADABLE_REASONS)},
)
PARTITION_LISTED = Metric(
    "dataplane.partition.listed.timestamp",
    "gauge",
    "s",
    "Unix time at which the partition was last listed; of partitions that share a label, the oldest one.",
    {"partition": None},
)

# Occupancy. A partition that is gone, or that could not be read for three polls, has no series here.

PARTITION_GROUPS = Metric(
    "dataplane.partition.groups",
    "gauge",
    "{group}",
    "Groups in the partition by state: ready (a trainer can take it), incomplete (committed, some keys are missing), "
    "uncommitted (still being written, or the write failed), failed (marked as failed by the producer), taken (a "
    "trainer has taken it, its rows are still there).",
    {"partition": None, "state": GROUP_STATES},
)
PARTITION_DEPTH = Metric(
    "dataplane.partition.depth",
    "gauge",
    "{group}",
    "Groups that a trainer can take: committed, complete and not taken. The same number as depth() returns. If a "
    "partition's samples have no keys: samples with data that its task (partitions.NAME.task, else the slowest) has "
    "not consumed.",
    {"partition": None},
)
PARTITION_ORPHANED = Metric(
    "dataplane.partition.groups.orphaned",
    "gauge",
    "{group}",
    "Taken groups that were not removed although the trainer's weight version has increased. A run that resumes "
    "leaves them behind, and no process ever removes them. Absent while groups are taken and the trainer's weight "
    "version is unknown.",
    {"partition": None},
)
PARTITION_GROUPS_PER_STEP = Metric(
    "dataplane.partition.groups_per_step",
    "gauge",
    "{group}",
    "Groups that the trainer takes per step, as configured or as published by the trainer. Absent if unknown.",
    {"partition": None},
)
PARTITION_KEYS = Metric(
    "dataplane.partition.keys",
    "gauge",
    "{key}",
    "Keys (samples) of the groups in the partition.",
    {"partition": None},
)
PARTITION_KEYS_ESTIMATED = Metric(
    "dataplane.partition.keys.estimated",
    "gauge",
    "{key}",
    "Estimated number of keys in the partition. Present only if its last listing is older than four intervals, or "
    "if there is none. basis is the origin of the estimate: TransferQueue's own metrics (tq_metrics), the keys in "
    "storage, or what clients publish of their puts and clears since the last listing.",
    {"partition": None, "basis": BASES},
)
PARTITION_KEYS_ESTIMATED_AT = Metric(
    "dataplane.partition.keys.estimated.timestamp",
    "gauge",
    "s",
    "Unix time of the reading from which dataplane_partition_keys_estimated was made.",
    {"partition": None},
)
PARTITION_SIZE = Metric(
    "dataplane.partition.size",
    "gauge",
    "By",
    "Sum of the sizes that producers declare in tags. Absent if they declare none.",
    {"partition": None},
)
PARTITION_ROWS_MALFORMED = Metric(
    "dataplane.partition.rows.malformed",
    "gauge",
    "{row}",
    "Rows whose tag has a field that cannot be read. Such a field counts as unknown.",
    {"partition": None},
)
PARTITION_ROWS_BARE = Metric(
    "dataplane.partition.rows.bare",
    "gauge",
    "{row}",
    "Rows with neither a tag nor an id: keys are listed before their tags are written, and stay so if the write fails. "
    "They are in no group.",
    {"partition": None},
)
PARTITION_OLDEST_GROUP = Metric(
    "dataplane.partition.oldest_group.created.timestamp",
    "gauge",
    "s",
    "Unix time at which the oldest group in this state was created: from its tag (basis tag), or when the "
    "exporter first saw it (basis first_seen).",
    {"partition": None, "state": GROUP_STATES, "basis": ("tag", "first_seen")},
)

# Staleness (lag): the reference version minus the group's version. Failed groups are not counted.

WEIGHT_VERSION_REFERENCE = Metric(
    "dataplane.weight_version.reference",
    "gauge",
    "",
    "Reference version: the trainer's weight version, from which lags are counted. Absent if none is known.",
)
WEIGHT_VERSION_CHANGED = Metric(
    "dataplane.weight_version.changed.timestamp",
    "gauge",
    "s",
    "Unix time at which the exporter saw the reference version change. Absent if none is known.",
)
WEIGHT_VERSION_REGRESSIONS = Metric(
    "dataplane.weight_version.regressions",
    "counter",
    "{regression}",
    "How often the reference version has stepped back, for example because the trainer failed over. A "
    "change because of a new controller or a loaded checkpoint is not counted.",
)
PARTITION_WEIGHT_VERSION_GROUPS = Metric(
    "dataplane.partition.weight_version.groups",
    "gauge",
    "{group}",
    "Groups by weight version: the newest versions in the partition by number, all others as older or unknown.",
    {"partition": None, "weight_version": None},
)
PARTITION_STALENESS_GROUPS = Metric(
    "dataplane.partition.staleness.groups",
    "gauge",
    "{group}",
    "Groups by lag: the reference version minus the group's version. The value ahead counts newer groups.",
    {"partition": None, "lag": LAG_BUCKETS},
)
PARTITION_STALENESS_MAX = Metric(
    "dataplane.partition.staleness.max",
    "gauge",
    "{version}",
    "Largest lag of a group in the partition. Groups ahead of the reference do not count. Absent if none is left.",
    {"partition": None},
)
PARTITION_STALENESS_MEAN = Metric(
    "dataplane.partition.staleness.mean",
    "gauge",
    "{version}",
    "Mean lag of the groups in the partition. Groups ahead of the reference do not count. Absent if none is left.",
    {"partition": None},
)
PARTITION_STALENESS_REFERENCE = Metric(
    "dataplane.partition.staleness.reference",
    "gauge",
    "",
    "1 for the origin of the reference version: published (by the trainer), rows (rows say which step the trainer "
    "has finished) or newest_seen (the newest version seen in a train partition; lags are then lower bounds). "
    "Absent if there is no reference version.",
    {"partition": None, "reference": REFERENCES},
)
PARTITION_WEIGHT_VERSION_NEWEST = Metric(
    "dataplane.partition.weight_version.newest",
    "gauge",
    "",
    "Newest weight version of a group in the partition. Absent if none is known.",
    {"partition": None},
)
PARTITION_WEIGHT_VERSION_OLDEST = Metric(
    "dataplane.partition.weight_version.oldest",
    "gauge",
    "",
    "Oldest weight version of a group in the partition. Absent if none is known.",
    {"partition": None},
)
PARTITION_WEIGHT_VERSION_REFERENCE = Metric(
    "dataplane.partition.weight_version.reference",
    "gauge",
    "",
    "Reference version when the partition was last listed: the weight version from which its lags are counted. "
    "Absent if none is known.",
    {"partition": None},
)

# Flow. Lower bounds: a group that arrives and leaves between two polls is not counted.

PARTITION_ARRIVED = Metric(
    "dataplane.partition.groups.arrived",
    "counter",
    "{group}",
    "Groups that appeared since the exporter started. Groups seen by its first poll are not counted.",
    {"partition": None},
)
PARTITION_COMPLETED = Metric(
    "dataplane.partition.groups.completed",
    "counter",
    "{group}",
    "Groups that became ready for the first time, including groups that were ready when they were first seen.",
    {"partition": None},
)
PARTITION_DEPARTED = Metric(
    "dataplane.partition.groups.departed",
    "counter",
    "{group}",
    "Groups that left the partition while their controller was alive, by the last state that they were seen in. A "
    "trained group leaves as ready or taken, an evicted one in any state.",
    {"partition": None, "state": GROUP_STATES},
)
PARTITION_LOST = Metric(
    "dataplane.partition.groups.lost",
    "counter",
    "{group}",
    "Groups that were lost together with their controller, or replaced when it loaded a checkpoint.",
    {"partition": None},
)
PARTITION_RESTORED = Metric(
    "dataplane.partition.groups.restored",
    "counter",
    "{group}",
    "Groups that appeared because the controller loaded a checkpoint.",
    {"partition": None},
)
# The train partitions, together and without labels: for readers that lose labels, as Weights & Biases does.

TRAINING_READY = Metric(
    "dataplane.training.ready",
    "gauge",
    "{group}",
    "Ready groups in all train partitions, without labels. Absent while one of these partitions is not known.",
)
TRAINING_LAG_MAX = Metric(
    "dataplane.training.lag.max",
    "gauge",
    "{version}",
    "Largest lag of a group in the train partitions, without labels. Absent while one of them is not known.",
)
TRAINING_LAG_MEAN = Metric(
    "dataplane.training.lag.mean",
    "gauge",
    "{version}",
    "Mean lag of the groups in the train partitions, without labels. Absent while one of them is not known.",
)
TRAINING_COMPLETED = Metric(
    "dataplane.training.completed",
    "counter",
    "{group}",
    "Groups that became ready for the first time in train partitions, without labels.",
)
TRAINING_DEPARTED = Metric(
    "dataplane.training.departed",
    "counter",
    "{group}",
    "Groups that left train partitions while their controller was alive, without labels.",
)
TRAINING_EVICTED = Metric(
    "dataplane.training.evicted",
    "counter",
    "{group}",
    "Groups that left train partitions in the state uncommitted, incomplete or failed. A group that was evicted while "
    "it was ready is not counted.",
)
TRAINING_LOST = Metric(
    "dataplane.training.lost",
    "counter",
    "{group}",
    "Groups of train partitions that were lost with their controller, without labels.",
)

GROUPS_ARRIVED = Metric(
    "dataplane.groups.arrived",
    "counter",
    "{group}",
    "Groups that appeared in all partitions of a role. The counter exists from the exporter's start, "
    "at 0. So increase() misses nothing, even if partitions live for a short time only.",
    {"role": ROLES},
)
GROUPS_COMPLETED = Metric(
    "dataplane.groups.completed",
    "counter",
    "{group}",
    "Groups that became ready for the first time in all partitions of a role. 0 from the exporter's start.",
    {"role": ROLES},
)
GROUPS_DEPARTED = Metric(
    "dataplane.groups.departed",
    "counter",
    "{group}",
    "Groups that left all partitions of a role, by the last state that they were seen in. 0 from the exporter's start.",
    {"role": ROLES, "state": GROUP_STATES},
)
GROUPS_LOST = Metric(
    "dataplane.groups.lost",
    "counter",
    "{group}",
    "Groups of all partitions of a role that were lost with their controller or replaced by a checkpoint. 0 from the "
    "exporter's start.",
    {"role": ROLES},
)
GROUPS_RESTORED = Metric(
    "dataplane.groups.restored",
    "counter",
    "{group}",
    "Groups of all partitions of a role that came with a checkpoint. 0 from the exporter's start.",
    {"role": ROLES},
)
PARTITION_RESIDENCE = Metric(
    "dataplane.partition.residence.duration",
    "histogram",
    "s",
    "Time from a group's creation (or from when the exporter first saw it) to its departure.",
    {"partition": None},
    RESIDENCE_BOUNDS,
)
PARTITION_DEPARTURE_LAG = Metric(
    "dataplane.partition.departure.lag",
    "histogram",
    "{version}",
    "Lag of groups that left the partition, from the reference version in force when they were last seen.",
    {"partition": None},
    LAG_BOUNDS,
)

# Samples and tasks. From TransferQueue's own metrics, or from questions about the configured tasks.

PARTITION_SAMPLES = Metric(
    "dataplane.partition.samples",
    "gauge",
    "{sample}",
    "Samples in the partition, with keys or without. Absent unless TransferQueue's metrics are on or tasks of the "
    "partition are configured.",
    {"partition": None},
)
PARTITION_TASK_CONSUMED = Metric(
    "dataplane.partition.task.consumed_ratio",
    "gauge",
    "1",
    "Samples that the task has consumed divided by the samples in the partition. At most 16 tasks per partition. "
    "Absent if the partition is empty.",
    {"partition": None, "task": None},
)
PARTITION_TASK_PRODUCED = Metric(
    "dataplane.partition.task.produced_ratio",
    "gauge",
    "1",
    "Samples with data in any field divided by the samples in the partition, as TransferQueue reports it for each "
    "task and for all tasks. Absent unless TransferQueue's metrics are on.",
    {"partition": None, "task": None},
)

# The controller, from TransferQueue's own metrics. Absent unless they are on.

CONTROLLER_MEMORY = Metric(
    "dataplane.controller.memory",
    "gauge",
    "By",
    "Resident memory of the controller's process, from TransferQueue's metrics. Absent unless they are on.",
)
CONTROLLER_REQUESTS_ARRIVED = Metric(
    "dataplane.controller.requests.arrived",
    "counter",
    "{request}",
    "Requests of all clients that the controller has begun since its process started, by TransferQueue's name of the "
    "operation. Absent unless TransferQueue's metrics are on.",
    {"operation": CONTROLLER_OPERATIONS},
)
CONTROLLER_REQUESTS_FAILED = Metric(
    "dataplane.controller.requests.failed",
    "counter",
    "{request}",
    "Requests whose handler in the controller failed. Absent until a request of that operation has failed.",
    {"operation": CONTROLLER_OPERATIONS},
)
CONTROLLER_REQUESTS_DURATION = Metric(
    "dataplane.controller.requests.duration",
    "histogram",
    "s",
    "Time of requests in the controller's handler, without waiting and encoding. While it handles one request, all "
    "others wait. Absent unless TransferQueue's metrics are on.",
    {"operation": CONTROLLER_OPERATIONS},
    REQUEST_BOUNDS,
)

# Storage units. A figure that a unit does not report is absent.

STORAGE_INFO = Metric(
    "dataplane.storage.info",
    "gauge",
    "",
    "Always 1. The label unit_id is TransferQueue's id of the storage unit, or the name of the Mooncake segment. One "
    "series per unit that discovery named, or per segment.",
    {"storage_unit": None, "unit_id": None},
)
STORAGE_CAPACITY = Metric(
    "dataplane.storage.capacity",
    "gauge",
    "{key}",
    "Maximum number of keys in the storage unit. Absent if unlimited.",
    {"storage_unit": None},
)
STORAGE_KEYS = Metric(
    "dataplane.storage.keys",
    "gauge",
    "{key}",
    "Number of keys in the storage unit.",
    {"storage_unit": None},
)
STORAGE_MEMORY = Metric(
    "dataplane.storage.memory",
    "gauge",
    "By",
    "Resident memory of the storage unit's process; for a Mooncake segment, the bytes in use.",
    {"storage_unit": None},
)
STORAGE_MEMORY_LIMIT = Metric(
    "dataplane.storage.memory.limit",
    "gauge",
    "By",
    "Size of the Mooncake segment. Absent for other storage.",
    {"storage_unit": None},
)
STORAGE_UTILIZATION = Metric(
    "dataplane.storage.utilization_ratio",
    "gauge",
    "1",
    "Keys in the storage unit divided by its capacity; for a Mooncake segment, bytes in use divided by its size. "
    "Absent if there is no limit or it is unknown.",
    {"storage_unit": None},
)
STORAGE_UP = Metric(
    "dataplane.storage.up",
    "gauge",
    "",
    "1 if the storage unit answered the last poll, 0 if not. One series per unit that discovery named. For "
    "Mooncake, one per segment: 0 while the master does not answer, and for half an hour after a segment with rows has "
    "left. A unit that writes a checkpoint or is busy with a long request is silent: the value is 0, but the unit is "
    "not lost. dataplane.errors with the operation storage_metrics shows the reason: DataPlaneUnavailable means gone, "
    "DataPlaneTimeout means silent.",
    {"storage_unit": None},
)
STORAGE_KEYS_UNLISTED = Metric(
    "dataplane.storage.keys.unlisted",
    "gauge",
    "{key}",
    "Keys in all storage units minus the rows that the partitions list, as a lower bound: samples put without keys, or "
    "keys that nothing refers to. Counts only keys that stay between two complete listings. Absent while a unit or a "
    "partition cannot be read.",
)
STORAGE_REQUESTS_ARRIVED = Metric(
    "dataplane.storage.requests.arrived",
    "counter",
    "{request}",
    "Requests that the storage unit has started since its process started, by TransferQueue's name of the operation. "
    "A client's request that timed out and is not counted here never arrived. GET_METRICS includes the exporter's "
    "polls.",
    {"storage_unit": None, "operation": STORAGE_OPERATIONS},
)
STORAGE_REQUESTS_COMPLETED = Metric(
    "dataplane.storage.requests.completed",
    "counter",
    "{request}",
    "Requests that TransferQueue measured in the storage unit: put, get and clear, including failed ones. If arrived "
    "minus completed grows, requests hang. If the difference is constant, it is the requests before TransferQueue's "
    "metrics started. A unit of TransferQueue 0.1.11 handles one request at a time: while that request hangs, the unit "
    "is silent and dataplane.storage.up is 0. Absent unless TransferQueue's metrics are on.",
    {"storage_unit": None, "operation": STORAGE_OPERATIONS},
)
STORAGE_REQUESTS_DURATION = Metric(
    "dataplane.storage.requests.duration",
    "counter",
    "s",
    "Time that the storage unit spent on the completed requests. Its rate divided by the rate of completed requests is "
    "their mean duration. Absent unless TransferQueue's metrics are on.",
    {"storage_unit": None, "operation": STORAGE_OPERATIONS},
)
STORAGE_SSD_SIZE = Metric(
    "dataplane.storage.ssd.size",
    "gauge",
    "By",
    "Size of the values that the storage unit keeps on SSD. Absent if SSD offload is off.",
    {"storage_unit": None},
)
STORAGE_SSD_VALUES = Metric(
    "dataplane.storage.ssd.values",
    "gauge",
    "{value}",
    "Values (one field of one sample each) that the storage unit keeps on SSD. Absent if SSD offload is off.",
    {"storage_unit": None},
)
STORAGE_SSD_FALLBACKS = Metric(
    "dataplane.storage.ssd.fallbacks",
    "gauge",
    "{value}",
    "Values that stayed in memory since the storage unit started, because TransferQueue cannot encode them for the "
    "SSD. Absent if SSD offload is off.",
    {"storage_unit": None},
)
STORAGE_ACCEPT_QUEUE_PEAK = Metric(
    "dataplane.storage.accept_queue.peak_utilization_ratio",
    "gauge",
    "1",
    "Highest occupancy of the accept queue of the storage unit's socket since TransferQueue's probe started, as a "
    "share of its length. Near 1, connections are lost. Absent unless the probe runs (TQ_ACCEPT_PROBE_INTERVAL).",
    {"storage_unit": None},
)
STORAGE_SOCKET_DROPS = Metric(
    "dataplane.storage.socket_drops",
    "gauge",
    "{connection}",
    "Connections that the storage unit's socket dropped since TransferQueue's probe started. Absent unless it runs.",
    {"storage_unit": None},
)
STORAGE_OBJECTS = Metric(
    "dataplane.storage.objects",
    "gauge",
    "{object}",
    "Objects in the Mooncake store: one per field of a row. Absent for other storage.",
)
STORAGE_CLIENTS = Metric(
    "dataplane.storage.clients",
    "gauge",
    "{client}",
    "Processes that the Mooncake master counts as its clients, because they contribute a segment.",
)
STORAGE_EVICTED_OBJECTS = Metric(
    "dataplane.storage.evicted.objects",
    "counter",
    "{object}",
    "Objects that the Mooncake master evicted since it started, to make room. Their rows are still listed and can no "
    "longer be read.",
)
STORAGE_EVICTED_SIZE = Metric(
    "dataplane.storage.evicted.size",
    "counter",
    "By",
    "Size of the objects that the Mooncake master evicted since it started.",
)
STORAGE_ALLOCATION_FAILURES = Metric(
    "dataplane.storage.allocation.failures",
    "counter",
    "{object}",
    "Objects for which the Mooncake store had no room since the master started, counted again with each retry. Their "
    "puts fail.",
)
STORAGE_LOOKUP_MISSES = Metric(
    "dataplane.storage.lookup.misses",
    "counter",
    "{object}",
    "Objects that a read requested and the Mooncake store did not have, since the master started, counted again with "
    "each retry. They were evicted, were lost with a segment, or belong to another job.",
)

# The exporter about itself.

POLLS = Metric(
    "tq_exporter.polls",
    "counter",
    "{poll}",
    "Finished polls, by source and outcome.",
    {"source": SOURCES, "outcome": ("ok", "failed")},
)
POLLS_SKIPPED = Metric(
    "tq_exporter.polls.skipped",
    "counter",
    "{poll}",
    "Polls that were skipped because the previous poll of the same source was still running.",
    {"source": SOURCES},
)
POLLS_FULL_DECODES = Metric(
    "tq_exporter.polls.full_decodes",
    "counter",
    "{listing}",
    "Listings whose rows were all decoded although the listing before was kept: more than half of it changed, or "
    "the changed rows could not be identified for certain.",
)
REPLIES_REFUSED = Metric(
    "tq_exporter.replies.refused",
    "counter",
    "{reply}",
    "Replies of the controller that were refused because they exceed a limit: metadata.max_reply_bytes, "
    "metadata.max_rows or metadata.max_memory. The partition then has no metrics.",
    {"limit": ("reply_bytes", "rows", "memory")},
)
HTTP_REFUSED_LOGINS = Metric(
    "tq_exporter.http.refused_logins",
    "counter",
    "{request}",
    "HTTP requests to the exporter that were refused for a wrong user name or password.",
)
CONTROLLER_BUSY = Metric(
    "tq_exporter.controller.busy_ratio",
    "gauge",
    "1",
    "Share of its time that the controller spends on this exporter, 0 to 1, over five minutes: its estimated work for "
    "the exporter's requests, without waiting for a CPU. Absent before the first metadata poll.",
)
RECORDER_UP = Metric(
    "tq_exporter.recorder.up",
    "gauge",
    "",
    "1 if the recording of the run was written the last time, 0 if it was not: the disk is full or does not answer, or "
    "the file cannot be used. Absent without history.file, and before the first write.",
)
RECORDER_SIZE = Metric(
    "tq_exporter.recorder.size",
    "gauge",
    "By",
    "Size of the recording with its write-ahead log. At most history.max_size.",
)
RECORDER_DROPPED = Metric(
    "tq_exporter.recorder.dropped",
    "counter",
    "{row}",
    "Rows that are missing in the recording, because the disk accepted none for too long.",
)
BUILD_INFO = Metric(
    "tq_exporter.build.info",
    "gauge",
    "",
    "Always 1. The labels give the version and commit of the exporter and the version of Python.",
    {"version": None, "commit": None, "python_version": None},
)
OTLP_EXPORTS = Metric(
    "tq_exporter.otlp.exports",
    "counter",
    "{export}",
    "Batches pushed over OTLP, by signal and outcome. Absent for a signal that is not pushed.",
    {"signal": ("metrics", "traces"), "outcome": ("ok", "failed")},
)

TRACKER_POINTS = Metric(
    "tq_exporter.tracker.points",
    "counter",
    "{point}",
    "Points for an experiment tracker: written (ok), not written (failed), or not tried (dropped), because the tracker "
    "was slow or could not be started. Absent for a tracker that is not switched on.",
    {"tracker": ("mlflow", "tensorboard", "wandb"), "outcome": ("ok", "failed", "dropped")},
)

EXPORTER_METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""What the exporter emits, in the order of this file."""

METRICS: Final = (*EXPORTER_METRICS, *CLIENT_METRICS)
"""Every metric of the project: the exporter's and the instrumented client's."""

_NAME_SUFFIX = {"s": "seconds", "By": "bytes"}


def prometheus_name(metric: Metric) -> str:
    """Return the metric's name in Prometheus, for a histogram without ``_bucket``, ``_sum`` or ``_count``.

    The rules are those by which an OpenTelemetry Collector translates names: dots become underscores, then the
    unit's suffix (``s``, ``By``; ``1`` gives ``ratio`` on a gauge; annotations in braces give none), then
    ``total`` on counters.
    """
    words = _words(metric.name)
    suffix = _NAME_SUFFIX.get(metric.unit, "ratio" if metric.unit == "1" and metric.kind == "gauge" else "")
    if suffix and words[-1] != suffix:
        words.append(suffix)
    if metric.kind == "counter":
        words.append("total")
    return "_".join(words)


def prometheus_label(attribute: str) -> str:
    """Return the label name of *attribute* in Prometheus."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", attribute)


def check_attributes(metric: Metric, attributes: Mapping[str, str]) -> None:
    """Check attributes against a metric's declaration.

    Raises:
        UndeclaredError: An attribute is not declared, or its value is not in its closed set.
    """
    for name, value in attributes.items():
        if name not in metric.attributes:
            raise UndeclaredError(f"{metric.name} declares no attribute {name!r}")
        allowed = metric.attributes[name]
        if allowed is not None and value not in allowed:
            raise UndeclaredError(f"{metric.name}: {value!r} is not a declared value of {name}")


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-zA-Z0-9]+", name) if word]
