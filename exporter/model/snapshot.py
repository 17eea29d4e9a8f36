"""The snapshot: everything that the exporter knows at one moment, as one immutable value that every output reads.

A field that is None, or a partition that is not listed, is unknown. Outputs omit it and never show 0 instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import msgspec

from dataplane.discovery.record import Endpoint
from dataplane.groups import DataPlaneCapabilities, GroupState
from dataplane.labels import LAG_BOUNDS, MIXED_CONVENTIONS, OTHER_PARTITION
from dataplane.partitions import ROLES, Role
from exporter.model.condition import SEVERITIES, Condition
from exporter.model.estimates import KeyEstimate
from exporter.model.histogram import Histogram
from exporter.model.recording import RecorderState
from exporter.model.storage import StorageState, StoreState
from exporter.model.tasks import ControllerState, PartitionSamples, TaskState

__all__ = [
    "ALL_PARTITIONS",
    "DISCOVERY_STATES",
    "LAG_BOUNDS",
    "LAG_BUCKETS",
    "MAX_UNFINISHED",
    "ON_DEMAND_SOURCES",
    "MIXED_CONVENTIONS",
    "NEVER_WHOLE",
    "OTHER_PARTITION",
    "REFERENCES",
    "RESIDENCE_BOUNDS",
    "ROLES",
    "SOURCES",
    "SOURCE_REASONS",
    "UNREADABLE_REASONS",
    "Basis",
    "Condition",
    "DiscoveryState",
    "ErrorCount",
    "Histogram",
    "Incident",
    "KeyEstimate",
    "LastKnown",
    "OldestGroup",
    "PartitionFlow",
    "PartitionState",
    "PartitionStatus",
    "Reference",
    "Role",
    "RoleFlow",
    "Snapshot",
    "SourceReason",
    "SourceState",
    "StorageState",
    "UnreadableReason",
    "encode_conditions",
    "encode_snapshot",
]

DiscoveryState = Literal["never_found", "starting", "unreachable", "found", "lost", "ended"]
SourceReason = Literal["ok", "failing", "budget", "stale", "disabled", "unsupported"]
Reference = Literal["published", "rows", "newest_seen"]
UnreadableReason = Literal["timeout", "unavailable", "refused", "held", "pending", "not_listable", "error"]
Basis = Literal["tag", "first_seen"]

DISCOVERY_STATES: Final[tuple[DiscoveryState, ...]] = get_args(DiscoveryState)
SOURCES: Final = ("discovery", "ping", "metadata", "storage", "tq_metrics")
ON_DEMAND_SOURCES: Final = ("discovery",)
"""The sources that are polled on demand, not at an interval."""
SOURCE_REASONS: Final[tuple[SourceReason, ...]] = get_args(SourceReason)
REFERENCES: Final[tuple[Reference, ...]] = get_args(Reference)
UNREADABLE_REASONS: Final[tuple[UnreadableReason, ...]] = get_args(UnreadableReason)
NEVER_WHOLE: Final[tuple[GroupState, ...]] = ("uncommitted", "incomplete", "failed")
"""Last states of groups that were given up."""
LAG_BUCKETS: Final = ("ahead", "0", "1", "2", "3", "4", "5-8", "9+", "unknown")
RESIDENCE_BOUNDS: Final = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0)
"""Upper bounds of the residence histogram, seconds: from below one poll interval to four hours."""

MAX_UNFINISHED: Final = 3
"""How many unfinished groups of a partition are named."""

ALL_PARTITIONS: Final = "all"
"""The label of :attr:`Snapshot.total`."""


@dataclass(frozen=True, slots=True)
class OldestGroup:
    """The oldest group of one state, or one of the oldest that are unfinished.

    Attributes:
        state: Its state.
        basis: Where the time comes from.
        created_at: Seconds since the epoch.
        group_id: Its id, cut to the length of a label. For display only: never a label.
    """

    state: GroupState
    basis: Basis
    created_at: float
    group_id: str = ""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The groups and keys in one partition.

    Attributes:
        partition: Its name, or :data:`OTHER_PARTITION` for the sum of those past the limit.
        listed_at: When it was last listed, seconds since the epoch; of a sum, when the oldest of its listings was made.
        groups: Number of groups by state; every state is present.
        keys: Number of keys in those groups.
        size_bytes: Declared bytes, None when no row declares any.
        malformed_rows: Rows with a tag that could not be read.
        weight_versions: ``(label, groups)`` for the newest versions, newest first, then ``older`` and
            ``unknown`` where they occur.
        staleness: Number of groups by lag bucket; every one of :data:`LAG_BUCKETS` is present. Failed groups
            are not counted here nor below.
        staleness_max: Largest lag in versions, None when no version is known.
        staleness_mean: Mean lag in versions, None when no version is known.
        newest_version: Newest resident version, None when unknown.
        oldest_version: Oldest resident version, None when unknown.
        newest_finished_version: Newest version of a group that is ready or taken: the newest weights that have made a
            whole group. None when unknown.
        reference_version: The version that lags are counted from, None when unknown.
        reference: Where that version comes from, None when unknown.
        oldest: The oldest group per state and basis.
        unfinished: The oldest of the groups that are uncommitted or incomplete, oldest first, at most
            :data:`MAX_UNFINISHED`.
        newest_listing: When the newest of a sum's listings was made: its counters may have grown until then. Seconds
            since the epoch; that of a single partition is ``listed_at``.
        role: What it is for; of a sum over several roles ``train`` if a part has it.
        convention: The tag convention by which its rows were read, :data:`MIXED_CONVENTIONS` for a sum over several.
        bare_rows: Rows with neither a tag nor an id: they are in no group yet.
        rows: All rows, those included that belong to no group.
        orphaned: Groups that stay taken although the trainer's version has increased. None while groups are taken and
            that version is unknown.
        groups_per_step: How many groups the trainer takes per step, None when unknown.
    """

    partition: str
    listed_at: float
    groups: Mapping[GroupState, int]
    keys: int
    size_bytes: int | None = None
    malformed_rows: int = 0
    weight_versions: tuple[tuple[str, int], ...] = ()
    staleness: Mapping[str, int] = field(default_factory=dict)
    staleness_max: int | None = None
    staleness_mean: float | None = None
    newest_version: int | None = None
    oldest_version: int | None = None
    newest_finished_version: int | None = None
    reference_version: int | None = None
    reference: Reference | None = None
    oldest: tuple[OldestGroup, ...] = ()
    unfinished: tuple[OldestGroup, ...] = ()
    newest_listing: float = 0.0
    role: Role = "train"
    convention: str = ""
    bare_rows: int = 0
    rows: int = 0
    orphaned: int | None = 0
    groups_per_step: int | None = None

    @property
    def depth(self) -> int:
        """Ready groups: what ``depth()`` returns."""
        return self.groups["ready"]


@dataclass(frozen=True, slots=True)
class PartitionFlow:
    """Flow through one partition since :attr:`since`. Lower bounds: polls miss groups that live briefly.

    Attributes:
        partition: Its name, or :data:`OTHER_PARTITION`.
        arrived: Groups that appeared.
        completed: Groups that became ready for the first time.
        departed: Groups that disappeared while the controller was alive.
        departed_by_state: The same by the last state that they were in; every state is present.
        lost: Groups that disappeared with their controller, or when a checkpoint was loaded.
        restored: Groups that came with a checkpoint.
        residence: Seconds from creation (or first sight) to departure.
        departure_lag: Lag at departure, from the reference version in force when the group was last seen.
        since: When all counts were 0, seconds since the epoch: the counters of a partition that comes back long after
            it was gone start again at 0. None for the exporter's start.
    """

    partition: str
    arrived: int
    completed: int
    departed: int
    departed_by_state: Mapping[GroupState, int]
    lost: int
    restored: int
    residence: Histogram
    departure_lag: Histogram
    since: float | None = None


@dataclass(frozen=True, slots=True)
class RoleFlow:
    """Flow through all partitions of one role since the exporter started. See :class:`PartitionFlow`."""

    role: Role
    arrived: int
    completed: int
    departed: Mapping[GroupState, int]
    lost: int
    restored: int


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Whether a partition that exists could be read. Of a label for several partitions: whether all of them could.

    Attributes:
        partition: Its label.
        readable: Whether its last listing succeeded.
        reason: Why not, None when it did.
        listed_at: When it was last listed, seconds since the epoch, None when never; of several, the oldest time.
        role: What it is for; of several ``train`` if one has it. Known even if it was never listed.
    """

    partition: str
    readable: bool
    reason: UnreadableReason | None = None
    listed_at: float | None = None
    role: Role = "train"


@dataclass(frozen=True, slots=True)
class SourceState:
    """The health of one source.

    Attributes:
        source: Its name.
        reason: ``ok``, ``failing`` (the last poll failed), ``budget`` (polls are stretched to spare the
            controller), ``stale`` (its data is too old and no longer shown), ``disabled`` (nothing to poll) or
            ``unsupported`` (what there is cannot be asked).
        up: Whether the last poll succeeded, None before the first.
        last_success: When it last succeeded, seconds since the epoch, None when never.
        duration: Seconds that the last poll took, None before the first.
        interval: Seconds between polls at present, None when it is not scheduled.
        detail: Why the last poll failed or the interval is longer than configured, else empty.
    """

    source: str
    reason: SourceReason
    up: bool | None = None
    last_success: float | None = None
    duration: float | None = None
    interval: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """One failure, for display: when (seconds since the epoch), which operation, its type, and its text."""

    at: float
    source: str
    operation: str
    error_type: str
    detail: str


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often an operation failed with an error type since the exporter started; equals ``dataplane.errors``."""

    operation: str
    error_type: str
    count: int


@dataclass(frozen=True, slots=True)
class LastKnown:
    """What was known when the data plane last answered. For display only.

    Attributes:
        at: When that was, seconds since the epoch.
        partitions: See :attr:`Snapshot.partitions`.
        statuses: See :attr:`Snapshot.statuses`.
        storage: See :attr:`Snapshot.storage`.
    """

    at: float
    partitions: tuple[PartitionState, ...] = ()
    statuses: tuple[PartitionStatus, ...] = ()
    storage: tuple[StorageState, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the outputs need.

    Attributes:
        taken_at: When it was made, seconds since the epoch.
        started_at: When the exporter started, seconds since the epoch.
        discovery: Whether a data plane was found.
        up: Whether the last ping succeeded. False until the first one does.
        ready: Whether the first round of polls is done.
        generation: How many controllers have been seen; 0 before the first.
        endpoint: The controller in use, with the id that it answers under. None when there is none.
        capabilities: What the reader supports, None without a controller.
        partitions: State of each partition that is fresh, ordered by name.
        statuses: Whether each partition that exists could be read, ordered by label.
        total: All partitions together, None while the partitions are not known. The age of a sum is that of its oldest
            part.
        flows: Flow of each partition, including those that disappeared less than ten minutes ago.
        total_flow: Flow through all partitions since the exporter started; never falls. None before the first poll.
        role_flows: The same by role.
        trained: The partitions that train together, for judging whether the trainer gets enough. None while one of them
            is not known.
        reference_version: The trainer's weight version, from which lags are counted, None while unknown.
        reference: Where that version comes from.
        reference_changed_at: When it last changed, seconds since the epoch.
        version_regressions: How often it has stepped back since the exporter started.
        storage: Every storage unit that discovery named, or segment of a Mooncake store, as of the last poll; empty
            while that is not known.
        store: A Mooncake store as a whole, None while unknown and of other storage.
        samples: The samples of each partition, where TransferQueue's own metrics or configured tasks tell.
        tasks: The tasks of those partitions, ordered by partition and task.
        controller: What TransferQueue's own metrics tell of the controller, None while unknown.
        estimates: About how many keys those partitions have whose last listing is old or missing, ordered by name.
        unlisted_keys: Keys in the storage units that no partition lists, None while unknown.
        sources: State of every source.
        controller_busy_ratio: Share of its time that the controller spent on this exporter, 0..1, None before
            the first metadata poll.
        incidents: The last failures, newest first.
        errors: Failures by operation and type, most frequent first.
        conditions: Every condition, causes before what follows from them; empty while nothing was judged.
        last_known: What was last known, None while the data plane answers.
        recorder: How the recording on disk is doing, None without one.
        version: The version of this exporter.
    """

    taken_at: float
    started_at: float
    discovery: DiscoveryState = "never_found"
    up: bool = False
    ready: bool = False
    generation: int = 0
    endpoint: Endpoint | None = None
    capabilities: DataPlaneCapabilities | None = None
    partitions: tuple[PartitionState, ...] = ()
    statuses: tuple[PartitionStatus, ...] = ()
    total: PartitionState | None = None
    trained: PartitionState | None = None
    flows: tuple[PartitionFlow, ...] = ()
    total_flow: PartitionFlow | None = None
    role_flows: tuple[RoleFlow, ...] = ()
    reference_version: int | None = None
    reference: Reference | None = None
    reference_changed_at: float | None = None
    version_regressions: int = 0
    storage: tuple[StorageState, ...] = ()
    store: StoreState | None = None
    estimates: tuple[KeyEstimate, ...] = ()
    unlisted_keys: int | None = None
    samples: tuple[PartitionSamples, ...] = ()
    tasks: tuple[TaskState, ...] = ()
    controller: ControllerState | None = None
    sources: tuple[SourceState, ...] = ()
    controller_busy_ratio: float | None = None
    incidents: tuple[Incident, ...] = ()
    errors: tuple[ErrorCount, ...] = ()
    conditions: tuple[Condition, ...] = ()
    last_known: LastKnown | None = None
    recorder: RecorderState | None = None
    version: str = ""

    @property
    def held(self) -> tuple[Condition, ...]:
        """The conditions that hold, except the one that says that all is well."""
        return tuple(one for one in self.conditions if one.holds and one.severity != "ok")

    @property
    def degraded(self) -> bool:
        """Whether the controller answers, and a part of the data plane, or what runs on it, does not work."""
        return self.up and any(one.degrades for one in self.held)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return *snapshot* as one line of JSON."""
    return msgspec.json.encode(snapshot, enc_hook=_to_builtin)


def encode_conditions(snapshot: Snapshot) -> bytes:
    """Return the conditions of *snapshot* as one line of JSON: ``conditions``, and of which snapshot they are.

    ``severity`` is the worst of those that hold, ``ok`` when none does.
    """
    worst = max((one.severity for one in snapshot.held), key=SEVERITIES.index, default="ok")
    fields = {
        "taken_at": snapshot.taken_at,
        "discovery": snapshot.discovery,
        "up": snapshot.up,
        "degraded": snapshot.degraded,
        "severity": worst,
        "conditions": snapshot.conditions,
    }
    return msgspec.json.encode(fields, enc_hook=_to_builtin)


def _to_builtin(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"cannot encode {type(value).__name__} as JSON")
