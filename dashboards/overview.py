"""The dashboard *Overview*: shows within a minute whether generation, training or the queue is at fault."""

from __future__ import annotations

from dashboards.panels import Builder, Query, board, series, states, value

__all__ = ["build"]


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-overview",
        "TransferQueue / Overview",
        "Is the data plane up, how full and how stale is the queue, and which stage waits for another.",
        of="dataplane_up",
        rows=[("Now", _now()), ("The last hour", _over_time())],
    )


def _now() -> list[Builder]:
    return [
        states(
            "Data plane",
            "up: the controller answered the last ping. DOWN: runbook DataPlaneLost or DataPlaneTimeouts, whichever "
            "fires.",
            [Query("min(dataplane_up{@})", "")],
            good=1,
            texts=("DOWN", "up"),
        ),
        value(
            "Discovery",
            "never_found: no job yet. starting: the controller cannot be used yet; runbook DataPlaneStarting. "
            "unreachable: its address is known, but it has not answered; runbook DataPlaneUnreachable. found: the "
            "controller was found, but it may not answer. lost: the controller is gone and was not stopped on purpose. "
            "ended: the job is over.",
            [Query("dataplane_discovery_state{@} == 1", "{{state}}")],
            named=True,
            width=4,
        ),
        states(
            "Training is stuck",
            "YES: enough groups for a step are ready, or groups are taken, and none departed for 15 minutes. Check the "
            "trainer: runbook DataPlaneQueueStalled. none: a partition that trains cannot be read.",
            [
                Query(
                    """max(
                      ((tq:train_ready:groups{@} >= bool tq:train_needed:groups{@})
                        + (tq:train_taken:groups{@} > bool 0) > bool 0)
                      * (tq:train_departures:increase15m{@} == bool 0)
                    )""",
                    "",
                )
            ],
            good=0,
            texts=("no", "YES"),
        ),
        states(
            "Generation is stuck",
            "YES: fewer groups are ready than a step takes, none is taken, and none was completed for 10 minutes. "
            "Check the rollouts: runbooks DataPlaneTrainerStarved and DataPlaneNoGroupCompleted. none: a partition "
            "that trains cannot be read.",
            [
                Query(
                    """max(
                      (tq:train_ready:groups{@} < bool tq:train_needed:groups{@})
                      * (tq:train_taken:groups{@} <= bool 0)
                      * (
                        tq:train_completions:rate10m{@} <= bool scalar(max(tq:threshold:starved_groups_per_second))
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
            "up: Prometheus can scrape the exporter. ABSENT: all other panels show old data; runbook TQExporterAbsent.",
            [Query("min(up{@})", "")],
            good=1,
            texts=("ABSENT", "up"),
        ),
        value(
            "Firing alerts",
            "Each alert has a runbook with its name in docs/runbooks.",
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
            "How full the queue is. ready only grows: the trainer is too slow. uncommitted or incomplete only grow: "
            "writes fail before they are complete. taken stays: the trainer hangs, or left them behind (orphaned).",
            [Query("sum by (state) (dataplane_partition_groups{@p})", "{{state}}")],
            stacked=True,
        ),
        series(
            "Flow of the groups that train",
            "Groups per second in all partitions that train. Arrivals without completions: generation is slow or "
            "fails. Completions stay above departures: the queue fills up. Departures as failed, uncommitted or "
            "incomplete: runbook DataPlaneNoGroupCompleted.",
            [
                Query('sum(rate(dataplane_groups_arrived_total{@, role="train"}[$__rate_interval]))', "arrived"),
                Query('sum(rate(dataplane_groups_completed_total{@, role="train"}[$__rate_interval]))', "completed"),
                Query(
                    'sum by (state) (rate(dataplane_groups_departed_total{@, role="train"}[$__rate_interval])) > 0',
                    "departed {{state}}",
                ),
            ],
            unit="cps",
        ),
        series(
            "Largest lag",
            "Weight versions that the stalest group is behind the trainer. Above the line: evict, or raise the "
            "threshold (runbook DataPlaneStalenessAboveWindow).",
            [Query("max by (partition) (dataplane_partition_staleness_max{@p})", "{{partition}}")],
            threshold="staleness_versions",
        ),
        series(
            "Age of the oldest ready and taken group",
            "Above the line and no departures: training is stuck (runbook DataPlaneQueueStalled).",
            [Query('tq:partition_oldest_group:age_seconds{@p, state=~"ready|taken"}', "{{partition}} {{state}}")],
            unit="s",
            threshold="stalled_seconds",
        ),
        series(
            "Errors of the exporter's calls",
            "Errors per second. Unavailable: the controller or a storage unit is gone. Timeout: it does not answer in "
            "time. ReadError: its reply cannot be used; incidents in /api/v1/snapshot have the cause.",
            [
                Query(
                    "sum by (operation, error_type) (rate(dataplane_errors_total{@}[$__rate_interval])) > 0",
                    "{{operation}} {{error_type}}",
                )
            ],
            unit="cps",
        ),
        series(
            "Storage utilization",
            "Keys divided by capacity, by storage unit. No data: the capacity is unlimited. Above the line: puts will "
            "fail soon (runbook DataPlaneNearCapacity).",
            [Query("dataplane_storage_utilization_ratio{@}", "unit {{storage_unit}}")],
            unit="percentunit",
            threshold="storage_used_ratio",
        ),
    ]
