"""The dashboard *Staleness and flow*: the groups in the queue, their age and lag, arrivals and departures."""

from __future__ import annotations

from dashboards.panels import Builder, Query, board, gauge_heatmap, histogram_heatmap, series

__all__ = ["build"]


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-staleness",
        "TransferQueue / Staleness and flow",
        "Groups by weight version, their lag and age, arrivals against departures, and with which lag they leave.",
        of="dataplane_up",
        rows=[("Staleness", _staleness()), ("Flow", _flow()), ("What is there", _contents())],
    )


def _staleness() -> list[Builder]:
    return [
        series(
            "Groups by weight version",
            "Old versions that stay: nobody evicts them. One version only: generation does not follow the trainer.",
            [Query("sum by (weight_version) (dataplane_partition_weight_version_groups{@p})", "{{weight_version}}")],
            stacked=True,
        ),
        gauge_heatmap(
            "Groups by lag",
            "Where the groups sit, from 0 versions behind to 9 and more. Mass that wanders up: the trainer leaves the "
            "rollouts behind.",
            "sum by (lag) (dataplane_partition_staleness_groups{@p})",
            label="lag",
            unit="short",
        ),
        series(
            "Lag",
            "Largest and mean. Above the line: runbook DataPlaneStalenessAboveWindow.",
            [
                Query("max by (partition) (dataplane_partition_staleness_max{@p})", "{{partition}} largest"),
                Query("avg by (partition) (dataplane_partition_staleness_mean{@p})", "{{partition}} mean"),
            ],
            threshold="staleness_versions",
        ),
        series(
            "Weight versions",
            "Reference, newest and oldest. The reference stands still: the trainer does not train, or publish.",
            [
                Query(
                    "max by (partition) (dataplane_partition_weight_version_reference{@p})", "{{partition}} reference"
                ),
                Query("max by (partition) (dataplane_partition_weight_version_newest{@p})", "{{partition}} newest"),
                Query("min by (partition) (dataplane_partition_weight_version_oldest{@p})", "{{partition}} oldest"),
            ],
        ),
        series(
            "Where the reference comes from",
            "published: lags are exact. newest_seen: they are lower bounds; let the trainer publish its version.",
            [
                Query(
                    "max by (partition, reference) (dataplane_partition_staleness_reference{@p})",
                    "{{partition}} {{reference}}",
                )
            ],
        ),
        histogram_heatmap(
            "Lag of groups that left",
            "Trained or evicted. High lags here are what the trainer really uses, unless it evicts (see Client calls).",
            "sum by (le) (rate(dataplane_partition_departure_lag_bucket{@p}[$__rate_interval]))",
            unit="short",
        ),
    ]


def _flow() -> list[Builder]:
    return [
        series(
            "Arrivals and departures",
            "Groups per second, by partition. Lower bounds: what comes and goes between two polls is not seen.",
            [
                Query(
                    "sum by (partition) (rate(dataplane_partition_groups_arrived_total{@p}[$__rate_interval]))",
                    "{{partition}} in",
                ),
                Query(
                    "sum by (partition) (rate(dataplane_partition_groups_departed_total{@p}[$__rate_interval]))",
                    "{{partition}} out",
                ),
            ],
            unit="cps",
        ),
        series(
            "Arrivals of ten minutes against six hours",
            "Far below its usual rate with an empty queue: the trainer starves (runbook DataPlaneTrainerStarved).",
            [
                Query("tq:partition_arrivals:rate10m{@p}", "{{partition}} 10 min"),
                Query("tq:partition_arrivals:rate10m_avg6h{@p}", "{{partition}} 6 h"),
            ],
            unit="cps",
        ),
        series(
            "Groups lost with their controller",
            "What a restart of TransferQueue cost. Any: see the runbook DataPlaneControllerRestarting.",
            [
                Query(
                    "sum by (partition) (increase(dataplane_partition_groups_lost_total{@p}[$__rate_interval]))",
                    "{{partition}}",
                )
            ],
        ),
        series(
            "Residence time",
            "From creation to departure. Growing: the trainer is the bottleneck. Very short: generation is.",
            [
                Query(
                    "histogram_quantile(0.5, sum by (le) "
                    "(rate(dataplane_partition_residence_duration_seconds_bucket{@p}[$__rate_interval])))",
                    "half",
                ),
                Query(
                    "histogram_quantile(0.95, sum by (le) "
                    "(rate(dataplane_partition_residence_duration_seconds_bucket{@p}[$__rate_interval])))",
                    "95 %",
                ),
            ],
            unit="s",
        ),
        series(
            "Age of the oldest group, by state",
            "Uncommitted or incomplete ones that only grow older are orphans: runbooks DataPlaneUncommittedLeaking and "
            "DataPlaneIncompleteOrphaned.",
            [Query("tq:partition_oldest_group:age_seconds{@p}", "{{partition}} {{state}}")],
            unit="s",
            threshold="stalled_seconds",
        ),
        series(
            "Ready groups",
            "What a trainer can take now. Zero for long: it starves. Only growing: it does not take them.",
            [Query("sum by (partition) (dataplane_partition_depth{@p})", "{{partition}}")],
        ),
    ]


def _contents() -> list[Builder]:
    return [
        series(
            "Keys",
            "Samples in the queue. Listing costs the controller in proportion to them.",
            [Query("sum by (partition) (dataplane_partition_keys{@p})", "{{partition}}")],
            stacked=True,
        ),
        series(
            "Declared size",
            "Bytes that producers declared in tags; nothing when they declare none.",
            [Query("sum by (partition) (dataplane_partition_size_bytes{@p})", "{{partition}}")],
            unit="bytes",
            stacked=True,
        ),
        series(
            "Malformed rows",
            "Rows with a tag that cannot be read. Any: runbook DataPlaneRowsMalformed.",
            [Query("sum by (partition) (dataplane_partition_rows_malformed{@p})", "{{partition}}")],
            threshold="malformed_rows",
        ),
    ]
