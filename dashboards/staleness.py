"""The dashboard *Staleness and flow*: what the queue contains, how stale it is, and how fast groups move."""

from __future__ import annotations

from dashboards.panels import Builder, Query, board, gauge_heatmap, histogram_heatmap, labels, series

__all__ = ["build"]


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-staleness",
        "TransferQueue / Staleness and flow",
        "Groups by weight version, lag and age; their flow, by state; the lag of groups when they leave.",
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
            "Ahead of the reference, or from 0 to 9 and more versions behind. Groups move to higher lags: the rollouts "
            "cannot keep up with the trainer. Many are ahead: the trainer's version stepped back.",
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
            "The trainer's version (reference), and the newest and oldest of groups. The newest stays behind: new "
            "weights do not reach the rollouts. The reference falls: runbook DataPlaneWeightVersionSteppedBack.",
            [
                Query("max by (instance) (dataplane_weight_version_reference{@})", "{{instance}} reference"),
                Query(
                    "round(sum by (instance) (increase(dataplane_weight_version_regressions_total{@}[1h])))",
                    "{{instance}} steps back in an hour",
                ),
                Query(
                    "max by (partition) (dataplane_partition_weight_version_reference{@p})", "{{partition}} reference"
                ),
                Query("max by (partition) (dataplane_partition_weight_version_newest{@p})", "{{partition}} newest"),
                Query("min by (partition) (dataplane_partition_weight_version_oldest{@p})", "{{partition}} oldest"),
            ],
        ),
        series(
            "Age of the reference version",
            "Time since it last changed. Above the line while groups leave: runbook DataPlaneWeightVersionStuck.",
            [
                Query(
                    "time() - max by (instance) (dataplane_weight_version_changed_timestamp_seconds{@})", "{{instance}}"
                )
            ],
            unit="s",
            threshold="version_unchanged_seconds",
        ),
        series(
            "Origin of the reference version",
            "published: lags are exact. rows: rows say which step is finished. newest_seen: lags are lower bounds; let "
            "the trainer publish its version.",
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
            "Flow by partition",
            "Groups per second. Lower bounds: groups that arrive and leave between two polls are not counted. "
            "Completed stays below arrived: groups fail or are given up.",
            [
                Query(
                    "sum by (partition) (rate(dataplane_partition_groups_arrived_total{@p}[$__rate_interval]))",
                    "{{partition}} arrived",
                ),
                Query(
                    "sum by (partition) (rate(dataplane_partition_groups_completed_total{@p}[$__rate_interval]))",
                    "{{partition}} completed",
                ),
                Query(
                    "sum by (partition, state) "
                    "(rate(dataplane_partition_groups_departed_total{@p}[$__rate_interval])) > 0",
                    "{{partition}} departed {{state}}",
                ),
            ],
            unit="cps",
        ),
        series(
            "Completion rate, 10 minutes and 6 hours",
            "Of all partitions that train. 10 min far below 6 h and too few ready groups: the trainer starves (runbook "
            "DataPlaneTrainerStarved).",
            [
                Query("tq:train_completions:rate10m{@}", "{{instance}} 10 min"),
                Query("tq:train_completions:rate10m_avg6h{@}", "{{instance}} 6 h"),
            ],
            unit="cps",
        ),
        series(
            "Groups lost and restored",
            "lost: with their controller, in a restart of TransferQueue (runbook DataPlaneControllerRestarting). "
            "restored: came with a checkpoint.",
            [
                Query("sum by (role) (increase(dataplane_groups_lost_total{@}[$__rate_interval]))", "{{role}} lost"),
                Query(
                    "sum by (role) (increase(dataplane_groups_restored_total{@}[$__rate_interval]))",
                    "{{role}} restored",
                ),
                Query(
                    "sum by (partition) (increase(dataplane_partition_groups_lost_total{@p}[$__rate_interval]))",
                    "{{partition}} lost",
                ),
                Query(
                    "sum by (partition) (increase(dataplane_partition_groups_restored_total{@p}[$__rate_interval]))",
                    "{{partition}} restored",
                ),
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
            "Groups that a trainer can take now, and how many it takes per step. Below that for long: the trainer "
            "starves. Only growing: it does not take them.",
            [
                Query("sum by (partition) (dataplane_partition_depth{@p})", "{{partition}}"),
                Query("max by (partition) (dataplane_partition_groups_per_step{@p})", "{{partition}} per step"),
            ],
        ),
    ]


def _contents() -> list[Builder]:
    return [
        labels(
            "Partitions",
            "What each partition is for, the tag convention of its rows, and whether it can be read. no: it has no "
            "figures, and flow is not judged if it trains; runbook DataPlanePartitionUnreadable.",
            "dataplane_partition_readable{@p} * ignoring (reason, role, convention) group_left (role, convention) "
            "dataplane_partition_info{@p}",
            columns=("instance", "partition", "role", "convention", "reason"),
            width=16,
        ),
        series(
            "Age of the listing",
            "Time since each partition was last listed. Growing: it cannot be read, and its figures are soon gone.",
            [Query("time() - min by (partition) (dataplane_partition_listed_timestamp_seconds{@p})", "{{partition}}")],
            unit="s",
        ),
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
            "Malformed and bare rows",
            "malformed: a tag cannot be read (runbook DataPlaneRowsMalformed). bare: neither tag nor id, so in no "
            "group. They stay: a write failed between its keys and its tags.",
            [
                Query("sum by (partition) (dataplane_partition_rows_malformed{@p})", "{{partition}} malformed"),
                Query("sum by (partition) (dataplane_partition_rows_bare{@p})", "{{partition}} bare"),
            ],
            threshold="malformed_rows",
        ),
        series(
            "Orphaned groups",
            "Taken groups that nobody removes. Above the line: runbook DataPlaneGroupsOrphaned.",
            [Query("sum by (partition) (dataplane_partition_groups_orphaned{@p})", "{{partition}}")],
            threshold="orphaned_groups",
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
