"""The dashboard *Staleness and flow*: what the queue contains, how stale it is, and how fast groups move."""

from __future__ import annotations

from dashboards.panels import Builder, Query, board, gauge_heatmap, histogram_heatmap, series

__all__ = ["build"]


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-staleness",
        "TransferQueue / Staleness and flow",
        "Groups by weight version, lag and age; arrivals and departures; the lag of groups when they leave.",
        of="dataplane_up",
        rows=[
            ("Staleness", _staleness()),
            ("Flow", _flow()),
            ("Contents", _contents()),
            ("Samples and tasks (TransferQueue's metrics.enabled, or partitions.NAME.tasks)", _tasks()),
        ],
    )


def _staleness() -> list[Builder]:
    return [
        series(
            "Groups by weight version",
            "Old versions stay: nothing evicts them. Only one version: rollouts do not get the trainer's new weights.",
            [Query("sum by (weight_version) (dataplane_partition_weight_version_groups{@p})", "{{weight_version}}")],
            stacked=True,
        ),
        gauge_heatmap(
            "Groups by lag",
            "From 0 to 9 and more versions behind. Groups move to higher lags: the rollouts cannot keep up with the "
            "trainer.",
            "sum by (lag) (dataplane_partition_staleness_groups{@p})",
            label="lag",
            unit="short",
        ),
        series(
            "Lag",
            "Largest and mean lag, in weight versions. Above the line: runbook DataPlaneStalenessAboveWindow.",
            [
                Query("max by (partition) (dataplane_partition_staleness_max{@p})", "{{partition}} largest"),
                Query("avg by (partition) (dataplane_partition_staleness_mean{@p})", "{{partition}} mean"),
            ],
            threshold="staleness_versions",
        ),
        series(
            "Weight versions",
            "Reference, newest and oldest version. The reference does not change: the trainer does not train or does "
            "not publish its version.",
            [
                Query(
                    "max by (partition) (dataplane_partition_weight_version_reference{@p})", "{{partition}} reference"
                ),
                Query("max by (partition) (dataplane_partition_weight_version_newest{@p})", "{{partition}} newest"),
                Query("min by (partition) (dataplane_partition_weight_version_oldest{@p})", "{{partition}} oldest"),
            ],
        ),
        series(
            "Origin of the reference version",
            "published: lags are exact. newest_seen: lags are lower bounds; let the trainer publish its version.",
            [
                Query(
                    "max by (partition, reference) (dataplane_partition_staleness_reference{@p})",
                    "{{partition}} {{reference}}",
                )
            ],
        ),
        histogram_heatmap(
            "Lag at departure",
            "Lag of groups that left, trained or evicted. High lags: the trainer trains on stale groups, unless it "
            "evicts them (see Client calls).",
            "sum by (le) (rate(dataplane_partition_departure_lag_bucket{@p}[$__rate_interval]))",
            unit="short",
        ),
    ]


def _flow() -> list[Builder]:
    return [
        series(
            "Arrivals and departures",
            "Groups per second, by partition. Lower bounds: groups that arrive and leave between two polls are not "
            "counted.",
            [
                Query(
                    "sum by (partition) (rate(dataplane_partition_groups_arrived_total{@p}[$__rate_interval]))",
                    "{{partition}} arrivals",
                ),
                Query(
                    "sum by (partition) (rate(dataplane_partition_groups_departed_total{@p}[$__rate_interval]))",
                    "{{partition}} departures",
                ),
            ],
            unit="cps",
        ),
        series(
            "Arrival rate, 10 minutes and 6 hours",
            "10 min far below 6 h and an empty queue: the trainer starves (runbook DataPlaneTrainerStarved).",
            [
                Query("tq:partition_arrivals:rate10m{@p}", "{{partition}} 10 min"),
                Query("tq:partition_arrivals:rate10m_avg6h{@p}", "{{partition}} 6 h"),
            ],
            unit="cps",
        ),
        series(
            "Groups lost with their controller",
            "Groups lost in a restart of TransferQueue. Above zero: runbook DataPlaneControllerRestarting.",
            [
                Query(
                    "sum by (partition) (increase(dataplane_partition_groups_lost_total{@p}[$__rate_interval]))",
                    "{{partition}}",
                )
            ],
        ),
        series(
            "Residence time",
            "p50 and p95 of the time from creation to departure. Growing: the trainer is the bottleneck. Very short: "
            "generation is.",
            [
                Query(
                    "histogram_quantile(0.5, sum by (le) "
                    "(rate(dataplane_partition_residence_duration_seconds_bucket{@p}[$__rate_interval])))",
                    "p50",
                ),
                Query(
                    "histogram_quantile(0.95, sum by (le) "
                    "(rate(dataplane_partition_residence_duration_seconds_bucket{@p}[$__rate_interval])))",
                    "p95",
                ),
            ],
            unit="s",
        ),
        series(
            "Age of the oldest group, by state",
            "An uncommitted or incomplete group that only gets older is an orphan: runbooks "
            "DataPlaneUncommittedLeaking and DataPlaneIncompleteOrphaned.",
            [Query("tq:partition_oldest_group:age_seconds{@p}", "{{partition}} {{state}}")],
            unit="s",
            threshold="stalled_seconds",
        ),
        series(
            "Ready groups",
            "Groups that a trainer can take now. Zero for long: the trainer starves. Only growing: it does not take "
            "them.",
            [Query("sum by (partition) (dataplane_partition_depth{@p})", "{{partition}}")],
        ),
    ]


def _contents() -> list[Builder]:
    return [
        series(
            "Keys",
            "Samples in the queue. The cost of a listing grows with this number.",
            [Query("sum by (partition) (dataplane_partition_keys{@p})", "{{partition}}")],
            stacked=True,
        ),
        series(
            "Declared size",
            "Bytes that producers declare in tags. No data: they declare none.",
            [Query("sum by (partition) (dataplane_partition_size_bytes{@p})", "{{partition}}")],
            unit="bytes",
            stacked=True,
        ),
        series(
            "Malformed rows",
            "Rows with a tag that cannot be read. Above zero: runbook DataPlaneRowsMalformed.",
            [Query("sum by (partition) (dataplane_partition_rows_malformed{@p})", "{{partition}}")],
            threshold="malformed_rows",
        ),
    ]


def _tasks() -> list[Builder]:
    return [
        series(
            "Samples",
            "Samples in each partition, with keys or without. Growing: the program does not clear what its tasks have "
            "consumed.",
            [Query("max by (partition) (dataplane_partition_samples{@p})", "{{partition}}")],
        ),
        series(
            "Consumed by task",
            "Share of the samples in a partition that each task has consumed. One task stays behind: it is the "
            "slow one.",
            [Query("min by (partition, task) (dataplane_partition_task_consumed_ratio{@p})", "{{partition}} {{task}}")],
            unit="percentunit",
        ),
        series(
            "Produced",
            "Share of the samples in a partition that have data. Low: producers have announced samples that they have "
            "not written yet.",
            [Query('min by (partition) (dataplane_partition_task_produced_ratio{@p, task="all"})', "{{partition}}")],
            unit="percentunit",
        ),
    ]
