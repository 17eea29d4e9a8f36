"""The configuration as the exporter reads it: typed, frozen and checked. Durations are seconds."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from dataplane.conventions import AUTO, ConventionTags
from dataplane.labels import MAX_PARTITIONS
from dataplane.partitions import Role
from exporter.config.addresses import (
    ControllerAddress,
    HostNames,
    HttpUrl,
    Listen,
    ListenAddress,
    OtlpUrl,
    RayAddress,
    StoreUrl,
    TraceUrl,
    TrackingUri,
)
from exporter.config.values import (
    BadValue,
    Duration,
    FilePath,
    FolderPath,
    Form,
    RecordingSize,
    RunId,
    Size,
    Text,
    show,
    text,
)

__all__ = [
    "MAX_TASKS",
    "Config",
    "ConfigError",
    "Diagnose",
    "DiscoverySettings",
    "History",
    "Log",
    "LogFormat",
    "LogLevel",
    "Metadata",
    "Mlflow",
    "Otlp",
    "OtlpProtocol",
    "Partition",
    "Ping",
    "Reader",
    "Storage",
    "Thresholds",
    "TqMetrics",
    "Traces",
    "Tracking",
    "Wandb",
    "Web",
]

Reader = Literal["wire", "client"]
OtlpProtocol = Literal["http/protobuf", "grpc"]
PollTraces = Literal["all", "notable", "none"]
WandbMode = Literal["shared", "offline"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

MAX_TASKS: Final = 16
"""How many tasks of a partition are kept, and how many the controller may be asked for."""


def _task_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadValue(f"{show(value)} is not a list of tasks", "write - NAME lines below it")
    names = tuple(dict.fromkeys(text(name) for name in value))
    if len(names) > MAX_TASKS:
        raise BadValue(f"names {len(names)} tasks", f"name at most {MAX_TASKS}")
    return names


TaskNames = Annotated[tuple[str, ...], Meta(extra={"form": Form("NAME,NAME", _task_names, list)})]
Count = Annotated[int, Meta(ge=1)]
Interval = Annotated[Duration, Meta(ge=0.1, le=86400)]
Timeout = Annotated[Duration, Meta(ge=0.01, le=3600)]
TrackingInterval = Annotated[Duration, Meta(ge=1, le=86400)]
DiscoveryTimeout = Annotated[Duration, Meta(ge=1, le=600)]
Limit = Annotated[float, Meta(ge=0, le=1e9)]
Share = Annotated[float, Meta(gt=0, le=1)]
Ratio = Annotated[float, Meta(ge=0, le=1)]


class DiscoverySettings(msgspec.Struct, frozen=True):
    """How to find the controller: at a fixed address, from a file, or else through Ray.

    Attributes:
        controller: The controller's request socket, ``tcp://IP:PORT``. Excludes ``file``.
        file: A discovery record, see :mod:`dataplane.discovery.record`. Excludes ``controller``.
        ray_address: The Ray cluster to ask when neither of the others is given.
        timeout: Seconds that one look-up through Ray may take.
    """

    controller: ControllerAddress | None = None
    file: FilePath | None = None
    ray_address: RayAddress = "auto"
    timeout: DiscoveryTimeout = 30.0


class Ping(msgspec.Struct, frozen=True):
    """The liveness check. ``slo``: a ping that takes longer than this many seconds is slow."""

    interval: Interval = 5.0
    timeout: Timeout = 4.0
    slo: Timeout = 0.25


class Metadata(msgspec.Struct, frozen=True):
    """Listing of the partitions, and what it may cost the controller.

    Attributes:
        interval: Seconds between two listings; longer when listings would exceed ``max_controller_share``.
        timeout: Seconds that one request may take.
        max_controller_share: Share of its time that the controller may spend on this exporter, 0..1.
        max_controller_stall: A partition whose listing takes the controller longer than this many seconds is
            listed rarely.
        max_reply_bytes: A longer reply is refused without being read.
        max_rows: A partition with more rows is not listed.
        max_memory: Estimated bytes of memory that the listings of one round may take together. A partition that does
            not fit is not listed.
        incremental: Whether to keep the last reply of each partition, so that only changed rows are decoded.
    """

    interval: Interval = 10.0
    timeout: Timeout = 10.0
    max_controller_share: Share = 0.01
    max_controller_stall: Timeout = 0.25
    max_reply_bytes: Annotated[Size, Meta(le=2**40)] = 32 * 2**20
    max_rows: Count = 1_000_000
    max_memory: Annotated[Size, Meta(le=2**40)] = 64 * 2**20
    incremental: bool = True


class Storage(msgspec.Struct, frozen=True):
    """Polls of the storage units, or of Mooncake's master.

    ``mooncake_url``: where the master serves its metrics, None for port 9003 of the host that the job names.
    """

    enabled: bool = True
    interval: Interval = 15.0
    timeout: Timeout = 3.0
    mooncake_url: StoreUrl | None = None


class TqMetrics(msgspec.Struct, frozen=True):
    """Readings of TransferQueue's own metrics, where ``metrics.enabled`` of TransferQueue is on."""

    enabled: bool = True
    interval: Interval = 15.0
    timeout: Timeout = 3.0


class Partition(msgspec.Struct, frozen=True):
    """Settings of one partition, or of all whose names match a regular expression, for what the rows do not declare.

    Attributes:
        convention: How its tags are read. From a file, ``default_convention`` unless the partition has its own.
        group_size: Keys of a complete group at least, None when its rows declare it or groups may have any size.
        role: What it is for; None: by its name.
        label: The label ``partition`` of its metrics; None for its name.
        groups_per_step: How many groups its trainer takes per step, None when unknown.
        take_failed: Whether its trainer takes failed groups as well; None: only with the role ``eval``.
        committed_by_default: False if a row without the mark of a committed row is never committed.
        tasks: Tasks whose consumption the controller is asked for, where TransferQueue's own metrics are off. Asking
            for a task that does not exist creates it.
        task: The task that counts for depth, stalls and starvation; None for the slowest.
    """

    convention: Text = AUTO
    group_size: Count | None = None
    role: Role | None = None
    label: Text | None = None
    groups_per_step: Count | None = None
    take_failed: bool | None = None
    committed_by_default: bool = True
    tasks: TaskNames = ()
    task: Text | None = None


class Thresholds(msgspec.Struct, frozen=True):
    """Limits of the conditions that depend on the run. The alerts have thresholds of the same names.

    Attributes:
        staleness_versions: Largest acceptable lag.
        stalled_seconds: Time without a departure after which a trainer that has groups is stuck.
        uncommitted_age_seconds: Age above which an uncommitted group counts as abandoned.
        incomplete_age_seconds: Age above which an incomplete group counts as abandoned.
        starved_seconds: Time without a completed group after which a trainer that lacks groups starves.
        version_unchanged_seconds: Time without a new weight version, used until its usual interval is known.
        given_up_ratio: Groups that failed or departed before they were complete, divided by all departures.
        storage_used_ratio: Above this utilization a storage unit is nearly full.
        storage_full_time_ratio: Share of half an hour in which a storage unit was nearly full. See ``storage_changes``.
        storage_down_ratio: Share of half an hour in which a storage unit did not answer. See ``storage_changes``.
        storage_changes: Changes of a storage unit (full, not full, up, down) in half an hour that both need as well.
        unlisted_ratio: Keys that no partition lists, divided by all keys in storage.
    """

    staleness_versions: Limit = 4.0
    stalled_seconds: Limit = 900.0
    uncommitted_age_seconds: Limit = 3600.0
    incomplete_age_seconds: Limit = 1800.0
    starved_seconds: Limit = 600.0
    version_unchanged_seconds: Limit = 3600.0
    given_up_ratio: Ratio = 0.3
    storage_used_ratio: Ratio = 0.9
    storage_full_time_ratio: Ratio = 0.1
    storage_down_ratio: Ratio = 0.1
    storage_changes: Limit = 4.0
    unlisted_ratio: Ratio = 0.1


class Otlp(msgspec.Struct, frozen=True):
    """OTLP push. For what is None, the standard ``OTEL_*`` variables decide.

    Attributes:
        endpoint: Base URL of the receiver, without ``/v1/metrics``.
        protocol: How to talk to it.
        interval: Seconds between two pushes of the metrics.
        timeout: Seconds that one push may take; also bounds the exporter's shutdown.
    """

    endpoint: OtlpUrl | None = None
    protocol: OtlpProtocol | None = None
    interval: Interval = 15.0
    timeout: Timeout = 2.0


class Traces(msgspec.Struct, frozen=True):
    """Traces over OTLP. ``polls``: which of the exporter's own polls are pushed.

    A poll is ``notable`` if it failed, was slow, or was the first after a change of state or of the controller.
    """

    polls: PollTraces = "notable"


class Wandb(msgspec.Struct, frozen=True):
    """The run of Weights & Biases that gets the queue's metrics, in addition to the training's own.

    Attributes:
        run_id: The training's run, None for no run.
        project: Its project, None for the one that ``WANDB_PROJECT`` names.
        entity: Its user or team, None for the API key's own.
        mode: ``shared`` adds to the run on the server; ``offline`` writes a file for ``wandb sync``.
    """

    run_id: RunId | None = None
    project: Text | None = None
    entity: Text | None = None
    mode: WandbMode = "shared"


class Mlflow(msgspec.Struct, frozen=True):
    """The MLflow store that gets the queue's metrics.

    Attributes:
        uri: The tracking store: a folder, ``sqlite:///FILE`` or a server's URL. None for none.
        run_id: The training's run, None for a new one.
        experiment: Name of a new run's experiment.
    """

    uri: TrackingUri | None = None
    run_id: RunId | None = None
    experiment: Text = "tq-exporter"


class Tracking(msgspec.Struct, frozen=True):
    """The experiment trackers that get the queue's metrics.

    Attributes:
        interval: Seconds between two points while the trainer's version does not change.
        tensorboard: The training's log folder; event files go into a folder below it. None for none.
        wandb: A run of Weights & Biases.
        mlflow: An MLflow store.
        rl_insight: The RL-Insight server where the exporter registers as a target; None for
            ``RL_INSIGHT_SERVER_URL``.
    """

    interval: TrackingInterval = 30.0
    tensorboard: FolderPath | None = None
    wandb: Wandb = Wandb()
    mlflow: Mlflow = Mlflow()
    rl_insight: HttpUrl | None = None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The trackers that are switched on, by the names of their extras."""
        given = {"tensorboard": self.tensorboard, "wandb": self.wandb.run_id, "mlflow": self.mlflow.uri}
        return tuple(name for name, value in given.items() if value is not None)


class Web(msgspec.Struct, frozen=True):
    """Access over HTTP, and the live page.

    Attributes:
        config_file: TLS, users and headers, in the web configuration format of Prometheus's exporters.
        disable_page: Leave out the live page at ``/``.
        disable_groups: Hide all groups, over HTTP and on the page. Keys and ids may be private.
        trace_url: URL of a trace, with ``{trace_id}`` in it.
        allowed_hosts: Further host names that clients may use. Loopback, IP addresses, the machine's own name and the
            name in ``listen`` always work.
    """

    config_file: FilePath | None = None
    disable_page: bool = False
    disable_groups: bool = False
    trace_url: TraceUrl | None = None
    allowed_hosts: HostNames = ()


class History(msgspec.Struct, frozen=True):
    """The flight recorder.

    Attributes:
        file: Where the run is kept on disk, None for nowhere.
        max_size: Largest size of the file with its write-ahead log, bytes.
    """

    file: FilePath | None = None
    max_size: Annotated[RecordingSize, Meta(le=2**40)] = 64 * 2**20


class Diagnose(msgspec.Struct, frozen=True):
    """Diagnoses that SIGUSR1 writes.

    ``directory``: where they are written; None for a private folder in the system's folder of temporary files.
    """

    directory: FilePath | None = None


class Log(msgspec.Struct, frozen=True):
    """The exporter's own log, on standard error."""

    format: LogFormat = "text"
    level: LogLevel = "info"


class Config(msgspec.Struct, frozen=True):
    """All settings, checked.

    Attributes:
        listen: Where to serve HTTP.
        run: Name of the training run, which distinguishes runs in one Prometheus.
        reader: ``wire`` reads TransferQueue's protocol itself; ``client`` uses TransferQueue's public client.
        discovery: How to find the controller.
        ping: The liveness check.
        metadata: Listing of the partitions.
        storage: Polls of the storage units.
        tq_metrics: Readings of TransferQueue's own metrics.
        conventions: Tag conventions of your own, by name.
        partitions: Settings of partitions, by name or a regular expression of names.
        default_convention: The tag convention of every partition without one of its own.
        max_partitions: Partitions beyond this number are summed as ``other``.
        weight_versions: How many weight versions of a partition have their own series, 0..16.
        thresholds: Limits of the conditions.
        otlp: OTLP push.
        traces: Traces over OTLP.
        tracking: Experiment trackers.
        web: Access over HTTP, and the live page.
        history: The flight recorder.
        diagnose: Diagnoses that SIGUSR1 writes.
        log: The exporter's own log.
    """

    listen: ListenAddress = Listen()
    run: Text | None = None
    reader: Reader = "wire"
    discovery: DiscoverySettings = DiscoverySettings()
    ping: Ping = Ping()
    metadata: Metadata = Metadata()
    storage: Storage = Storage()
    tq_metrics: TqMetrics = TqMetrics()
    conventions: dict[str, ConventionTags] = {}
    partitions: dict[str, Partition] = {}
    default_convention: Text = AUTO
    max_partitions: Annotated[int, Meta(ge=1, le=1000)] = MAX_PARTITIONS
    weight_versions: Annotated[int, Meta(ge=0, le=16)] = 16
    thresholds: Thresholds = Thresholds()
    otlp: Otlp = Otlp()
    traces: Traces = Traces()
    tracking: Tracking = Tracking()
    web: Web = Web()
    history: History = History()
    diagnose: Diagnose = Diagnose()
    log: Log = Log()


class ConfigError(Exception):
    """The configuration cannot be used. ``str()`` is one line that names the key, the problem and the remedy.

    Args:
        key: Where the value was given: a flag, a variable, or file, line and key.
        problem: What is wrong with it.
        remedy: What to write instead.
    """

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        super().__init__(key, problem, remedy)
        self.key, self.problem, self.remedy = key, problem, remedy

    def __str__(self) -> str:
        return " ".join(f"{self.key}: {self.problem}; {self.remedy}".split())
