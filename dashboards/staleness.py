"""The dashboard *Staleness and flow*: what the queue contains, how stale it is, and how fast groups move."""

from __future__ import annotations

from typing import Final

from dashboards.boards import board
from dashboards.panels import Builder, Word, series, timeline, traces
from dashboards.partitions import partitions_table
from dashboards.queries import Query, coded

__all__ = ["build"]

_LAGS: Final = {
    "lag ahead": "blue",
    "lag 0": "dark-green",
    "lag 1": "green",
    "lag 2": "light-green",
    "lag 3": "yellow",
    "lag 4": "light-orange",
    "lag 5-8": "orange",
    "lag 9+": "red",
    "lag unknown": "text",
}
_ORIGINS: Final = {
    "published": Word(1, "published", "green"),
    "rows": Word(2, "rows", "blue"),
    "newest_seen": Word(3, "newest_seen", "yellow"),
}
_CALLS: Final = traces("Traces of the calls on this partition", "span.messaging.destination.name", "partition")


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
            [
                Query(
                    "sum without (partition) (dataplane_partition_weight_version_groups{@p})",
                    "version {{weight_version}}",
                )
            ],
            bars={},
        ),
        series(
            "Groups by lag",
            "Groups by the number of weight versions that they are behind the reference. Groups move to higher lags: "
            "the rollouts cannot keep up with the trainer. Many are ahead: the trainer's version stepped back.",
            [Query("sum without (partition) (dataplane_partition_staleness_groups{@p})", "lag {{lag}}")],
            bars=_LAGS,
        ),
        series(
            "Lag",
            "Largest and mean lag, in weight versions. Above the line (staleness_versions): runbook "
            "DataPlaneStalenessAboveWindow.",
            [
                Query("dataplane_partition_staleness_max{@p}", "{{partition}} largest"),
                Query("dataplane_partition_staleness_mean{@p}", "{{partition}} mean"),
            ],
            threshold="staleness_versions",
        ),
        series(
            "Weight versions",
            "The trainer's version (reference), and the newest and oldest version of groups. The newest stays behind: "
            "new weights do not reach the rollouts. The reference falls: runbook DataPlaneWeightVersionSteppedBack.",
            [
                Query("dataplane_weight_version_reference{@}", "reference"),
                Query("dataplane_partition_weight_version_reference{@p}", "{{partition}} reference"),
                Query("dataplane_partition_weight_version_newest{@p}", "{{partition}} newest"),
                Query("dataplane_partition_weight_version_oldest{@p}", "{{partition}} oldest"),
            ],
            from_zero=False,
        ),
        series(
            "Steps back of the reference version",
            "Steps back of the reference version in the last hour. Above zero: runbook "
            "DataPlaneWeightVersionSteppedBack.",
            [Query("round(increase(dataplane_weight_version_regressions_total{@}[1h]))")],
        ),
        series(
            "Age of the reference version",
            "Time since the reference version last changed. Above the line (version_unchanged_seconds) while groups "
            "leave: runbook DataPlaneWeightVersionStuck.",
            [Query("time() - dataplane_weight_version_changed_timestamp_seconds{@}")],
            unit="s",
            threshold="version_unchanged_seconds",
        ),
        timeline(
            "Origin of the reference version",
            "published: lags are exact. rows: rows say which step is finished. newest_seen: lags are lower bounds; let "
            "the trainer publish its version.",
            [Query(coded("dataplane_partition_staleness_reference{@p}", "reference", _ORIGINS), "{{partition}}")],
            list(_ORIGINS.values()),
        ),
        series(
            "Lag at departure",
            "p50 and p95 of the lag of groups that left, trained or evicted. High: the trainer trains on stale groups, "
            "unless it evicts them (see Client calls). No data: none left.",
            _quantiles("dataplane_partition_departure_lag"),
            threshold="staleness_versions",
        ),
    ]


def _flow() -> list[Builder]:
    return [
        series(
            "Flow by partition",
            "Groups per second, a lower bound: groups that arrive and leave between two polls are not counted. "
            "Completed stays below arrived: groups fail, or are evicted unfinished.",
            [
                Query(
                    "rate(dataplane_partition_groups_arrived_total{@p}[$__rate_interval])",
                    "{{partition}} arrived",
                ),
                Query(
                    "rate(dataplane_partition_groups_completed_total{@p}[$__rate_interval])",
                    "{{partition}} completed",
                ),
                Query(
                    "rate(dataplane_partition_groups_departed_total{@p}[$__rate_interval]) > 0",
                    "{{partition}} departed {{state}}",
                ),
            ],
            unit="cps",
        ),
        series(
            "Completion rate, 10 minutes and 6 hours",
            "Groups completed per second in all partitions with role train. 10 min far below 6 h and too few ready "
            "groups: the trainer starves (runbook DataPlaneTrainerStarved).",
            [
                Query("tq:train_completions:rate10m{@}", "10 min"),
                Query("tq:train_completions:rate10m_avg6h{@}", "6 h"),
            ],
            unit="cps",
        ),
        series(
            "Groups lost and restored",
            "lost: groups that a restart of TransferQueue lost with its controller (runbook "
            "DataPlaneControllerRestarting). restored: groups that came with a checkpoint.",
            [
                Query(f"increase({scope}_groups_{what}_total{{{of}}}[$__rate_interval])", f"{of_what} {what}")
                for scope, of, of_what in (
                    ("dataplane", "@", "role {{role}}"),
                    ("dataplane_partition", "@p", "{{partition}}"),
                )
                for what in ("lost", "restored")
            ],
        ),
        series(
            "Residence time",
            "p50 and p95 of the time from creation to departure. Growing: the trainer is the bottleneck. Very short: "
            "generation is the bottleneck.",
            _quantiles("dataplane_partition_residence_duration_seconds"),
            unit="s",
            width=12,
        ),
        series(
            "Ready groups",
            "Groups that a trainer can take now, and how many it takes per step. Fewer than a step takes, for many "
            "minutes: the trainer starves (runbook DataPlaneTrainerStarved). Only growing: it takes none (runbook "
            "DataPlaneQueueStalled).",
            [
                Query("dataplane_partition_depth{@p}", "{{partition}}"),
                Query("dataplane_partition_groups_per_step{@p}", "{{partition}} per step"),
            ],
            width=12,
        ),
        series(
            "Age of the oldest ready or taken group",
            "Age of the oldest group that is ready or taken, by partition. Above the line (stalled_seconds) and no "
            "departures: training has stalled (runbook DataPlaneQueueStalled).",
            [Query('tq:partition_oldest_group:age_seconds{@p, state=~"ready|taken"}', "{{partition}} {{state}}")],
            unit="s",
            threshold="stalled_seconds",
            width=12,
        ),
        series(
            "Age of the oldest unfinished group",
            "A group that only gets older was abandoned by its producer: runbooks DataPlaneUncommittedLeaking (above "
            "uncommitted_age_seconds) and DataPlaneIncompleteOrphaned (above incomplete_age_seconds).",
            [
                Query(
                    'tq:partition_oldest_group:age_seconds{@p, state=~"uncommitted|incomplete|failed"}',
                    "{{partition}} {{state}}",
                )
            ],
            unit="s",
            threshold=("uncommitted_age_seconds", "incomplete_age_seconds"),
            width=12,
        ),
    ]


def _contents() -> list[Builder]:
    return [
        partitions_table(),
        series(
            "Age of the listing",
            "Time since each partition was last listed. Growing: it cannot be read, and its figures will disappear "
            "(runbook DataPlanePartitionUnreadable).",
            [Query("time() - dataplane_partition_listed_timestamp_seconds{@p}", "{{partition}}")],
            unit="s",
        ),
        series(
            "Keys",
            "Samples in the queue. The cost of a listing grows with this number.",
            [Query("dataplane_partition_keys{@p}", "{{partition}}")],
        ),
        series(
            "Declared size",
            "Bytes that producers declare in tags. No data: they declare none.",
            [Query("dataplane_partition_size_bytes{@p}", "{{partition}}")],
            unit="bytes",
        ),
        series(
            "Malformed and bare rows",
            "malformed: rows with a tag that cannot be read (runbook DataPlaneRowsMalformed). bare: rows with neither "
            "tag nor id, which belong to no group. Bare rows stay: a write failed after its keys were listed.",
            [
                Query("dataplane_partition_rows_malformed{@p}", "{{partition}} malformed"),
                Query("dataplane_partition_rows_bare{@p}", "{{partition}} bare"),
            ],
            threshold="malformed_rows",
        ),
        series(
            "Orphaned groups",
            "Taken groups that nobody removes. Above the line: runbook DataPlaneGroupsOrphaned.",
            [Query("dataplane_partition_groups_orphaned{@p}", "{{partition}}")],
            threshold="orphaned_groups",
        ),
    ]


def _tasks() -> list[Builder]:
    return [
        series(
            "Samples",
            "Samples in each partition, with keys or without. Growing: the program does not clear the samples that its "
            "tasks have consumed.",
            [Query("dataplane_partition_samples{@p}", "{{partition}}")],
        ),
        series(
            "Consumed by task",
            "Share of the samples in a partition that each task has consumed. One task stays behind: runbook "
            "DataPlaneTaskStalled.",
            [Query("dataplane_partition_task_consumed_ratio{@p}", "{{partition}} {{task}}")],
            unit="percentunit",
        ),
        series(
            "Produced",
            "Share of the samples in a partition that have data. Low: producers have announced samples that they have "
            "not written yet.",
            [Query('max without (task) (dataplane_partition_task_produced_ratio{@p, task="all"})', "{{partition}}")],
            unit="percentunit",
        ),
    ]


def _quantiles(histogram: str) -> list[Query]:
    return [
        Query(
            f"histogram_quantile({quantile}, rate({histogram}_bucket{{@p}}[$__rate_interval]))",
            f"{{{{partition}}}} p{quantile * 100:g}",
        )
        for quantile in (0.5, 0.95)
    ]
