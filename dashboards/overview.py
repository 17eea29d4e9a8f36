"""The dashboard *Overview*: shows at a glance whether generation, training or the queue is the bottleneck."""

from __future__ import annotations

from dashboards.panels import Builder, Query, board, series, states, value

__all__ = ["build"]


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-overview",
        "TransferQueue / Overview",
        "Is the data plane up, how full, how stale, how fast, and who waits for whom.",
        of="dataplane_up",
        rows=[("Now", _now()), ("The last hour", _over_time())],
    )


def _now() -> list[Builder]:
    return [
        states(
            "Data plane",
            "Whether the last ping was answered. DOWN: runbook DataPlaneLost or DataPlaneTimeouts, whichever fires.",
            [Query("min(dataplane_up{@})", "")],
            good=1,
            texts=("DOWN", "up"),
        ),
        value(
            "Discovery",
            "never_found: no job yet. found: all well, or the controller is silent. lost: it is gone and nobody ended "
            "it. ended: the job is over.",
            [Query("dataplane_discovery_state{@} == 1", "{{state}}")],
            named=True,
            width=4,
        ),
        states(
            "Training is stuck",
            "Ready groups are old and none departs. Look at the trainer: runbook DataPlaneQueueStalled.",
            [
                Query(
                    """max(
                      (tq:partition_oldest_group:age_seconds{@p, state="ready"}
                        > bool scalar(tq:threshold:stalled_seconds))
                      * on (job, instance, run, partition) (tq:partition_departures:increase15m{@p} == bool 0)
                    )""",
                    "",
                )
            ],
            good=0,
            texts=("no", "YES"),
        ),
        states(
            "Generation is stuck",
            "Nothing is ready or has come for ten minutes. Look at the rollouts: runbook DataPlaneTrainerStarved.",
            [
                Query(
                    """max(
                      (sum by (job, instance, run) (dataplane_partition_depth{@}) == bool 0)
                      * on (job, instance, run) (
                        sum by (job, instance, run) (tq:partition_arrivals:rate10m{@})
                        <= bool scalar(tq:threshold:starved_groups_per_second)
                      )
                    )""",
                    "",
                )
            ],
            good=0,
            texts=("no", "YES"),
        ),
        states(
            "Exporter",
            "Whether Prometheus can scrape it. ABSENT: nothing else here is true now; runbook TQExporterAbsent.",
            [Query("min(up{@})", "")],
            good=1,
            texts=("ABSENT", "up"),
        ),
        value(
            "Firing",
            "Alerts that fire. Each has a runbook of its name in docs/runbooks.",
            [
                Query(
                    'count by (alertname) (ALERTS{alertstate="firing", alertname=~"DataPlane.*|TQExporter.*", @})',
                    "{{alertname}}",
                )
            ],
            named=True,
            width=4,
        ),
    ]


def _over_time() -> list[Builder]:
    return [
        series(
            "Groups by state",
            "How full the queue is. Ready that only grows: the trainer is behind. Uncommitted or incomplete that "
            "only grow: writers fail halfway.",
            [Query("sum by (state) (dataplane_partition_groups{@p})", "{{state}}")],
            stacked=True,
        ),
        series(
            "In and out",
            "Groups per second. In above out for long: the queue fills. Out at zero with ready groups: training is "
            "stuck. In at zero: generation is.",
            [
                Query("sum(rate(dataplane_partition_groups_arrived_total{@p}[$__rate_interval]))", "in"),
                Query("sum(rate(dataplane_partition_groups_departed_total{@p}[$__rate_interval]))", "out"),
            ],
            unit="cps",
        ),
        series(
            "Largest lag",
            "Weight versions between the trainer and its stalest group. Above the line: evict, or raise the window "
            "(runbook DataPlaneStalenessAboveWindow).",
            [Query("max by (partition) (dataplane_partition_staleness_max{@p})", "{{partition}}")],
            threshold="staleness_versions",
        ),
        series(
            "Age of the oldest ready group",
            "Above the line while nothing departs, training is stuck.",
            [Query('tq:partition_oldest_group:age_seconds{@p, state="ready"}', "{{partition}}")],
            unit="s",
            threshold="stalled_seconds",
        ),
        series(
            "Errors of the exporter's own calls",
            "Unavailable: the controller or a storage unit is gone. Timeout: it is there and silent. Read: its answer "
            "could not be used; the snapshot's incidents say why.",
            [
                Query(
                    "sum by (operation, error_type) (rate(dataplane_errors_total{@}[$__rate_interval])) > 0",
                    "{{operation}} {{error_type}}",
                )
            ],
            unit="cps",
        ),
        series(
            "Storage in use",
            "Share of its capacity that each unit holds; nothing when it is unlimited. Above the line puts will soon "
            "fail (runbook DataPlaneNearCapacity).",
            [Query("dataplane_storage_utilization_ratio{@}", "unit {{storage_unit}}")],
            unit="percentunit",
            threshold="storage_used_ratio",
        ),
    ]
