"""The dashboard *Overview*: shows within a minute whether generation, training or the queue is at fault."""

from __future__ import annotations

from typing import Final

from dashboards.boards import board
from dashboards.panels import Builder, Word, labels, series, states, timeline, traces, value
from dashboards.partitions import partitions_table
from dashboards.queries import Query, coded
from exporter.shipped import rules

__all__ = ["DISCOVERY", "DISCOVERY_WORDS", "build"]

_DISCOVERY_STATES: Final = {
    "never_found": Word(1, "never_found", "text"),
    "starting": Word(2, "starting", "yellow"),
    "unreachable": Word(3, "unreachable", "orange"),
    "found": Word(4, "found", "green"),
    "lost": Word(5, "lost", "red"),
    "ended": Word(6, "ended", "blue"),
}
DISCOVERY: Final = Query(coded("dataplane_discovery_state{@}", "state", _DISCOVERY_STATES))
"""The discovery state, as a number."""

DISCOVERY_WORDS: Final = list(_DISCOVERY_STATES.values())
"""What the number means."""

_SEVERITIES: Final = {"critical": "red", "warning": "orange", "notice": "blue", "ok": "green"}
_RUNBOOK: Final = rules.alerts()["DataPlaneLost"]["annotations"]["runbook_url"].replace(
    "DataPlaneLost", "${__data.fields.alertname}"
)
_HALF: Final = 6
"""Height of the panels over time: all of them are on the first screen."""


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-overview",
        "TransferQueue / Overview",
        "Is the data plane up, how full and how stale is the queue, and which stage waits for another.",
        of="dataplane_up",
        rows=[("Now", _now()), ("The last hour", _over_time()), ("Partitions", [partitions_table()])],
    )


def _now() -> list[Builder]:
    return [
        value(
            "Data plane",
            "up: the controller answered the last ping. DOWN: runbook DataPlaneLost if Discovery says lost, else "
            "runbooks DataPlaneTimeouts and DataPlaneUnavailable. no job: no job has started yet, or it has ended.",
            [
                Query(
                    "dataplane_up{@} "
                    '+ 2 * max without (state) (dataplane_discovery_state{@, state=~"never_found|ended"})'
                )
            ],
            words=[Word(0, "DOWN", "red"), Word(1, "up", "green"), Word(2, "no job", "text")],
        ),
        value(
            "Discovery",
            "never_found: no job yet. starting: the controller cannot be used yet; runbook DataPlaneStarting. "
            "unreachable: its address is known, but it has not answered; runbook DataPlaneUnreachable. found: the "
            "controller was found, but it may not answer. lost: the controller is gone and was not stopped on purpose; "
            "runbook DataPlaneLost. ended: the job is over.",
            [DISCOVERY],
            words=DISCOVERY_WORDS,
        ),
        states(
            "Training stalled",
            "YES: enough groups for a step are ready, or groups are taken, and none departed for 15 minutes. This is "
            "normal while a training step takes longer than 15 minutes. The alert DataPlaneQueueStalled also waits for "
            "stalled_seconds. none: a training partition cannot be read.",
            [
                Query(
                    """((tq:train_ready:groups{@} >= bool tq:train_needed:groups{@})
                      + (tq:train_taken:groups{@} > bool 0) > bool 0)
                    * (tq:train_departures:increase15m{@} == bool 0)"""
                )
            ],
            good=0,
            texts=("no", "YES"),
        ),
        states(
            "Generation stalled",
            "YES: fewer groups are ready than a step takes, none is taken, and none was completed for 10 minutes. This "
            "is normal while a rollout takes longer. The alert DataPlaneTrainerStarved also waits for starved_seconds. "
            "If groups leave unfinished: runbook DataPlaneNoGroupCompleted. none: a training partition cannot be read.",
            [
                Query(
                    """(tq:train_ready:groups{@} < bool tq:train_needed:groups{@})
                    * (tq:train_taken:groups{@} <= bool 0)
                    * (tq:train_completions:rate10m{@} <= bool scalar(max(tq:threshold:starved_groups_per_second)))"""
                )
            ],
            good=0,
            texts=("no", "YES"),
        ),
        states(
            "Exporter",
            "up: Prometheus can scrape the exporter. ABSENT: all other panels show old data; runbook TQExporterAbsent. "
            "none: the exporter pushes its metrics, or Prometheus no longer has it as a target.",
            [Query('up{@} and last_over_time(dataplane_up{@}[6h]) or up{@, job=~".*tq-exporter.*"}')],
            good=1,
            texts=("ABSENT", "up"),
        ),
        value(
            "Data age",
            "Longest time since a source was last polled with success. Red: look at the row Polls of the dashboard "
            "Exporter and TQ health.",
            [
                Query(
                    "clamp_min(time() - min without (source) (dataplane_source_last_success_timestamp_seconds"
                    '{@, source=~"ping|metadata|storage|tq_metrics"}), 0)'
                )
            ],
            unit="s",
            limits=((None, "green"), (60, "orange"), (300, "red")),
        ),
        timeline(
            "Conditions",
            "Conditions, as on the exporter's page, that hold or held in the time shown. The most severe come first. A "
            "gap: not known. DataPlaneFlows: groups arrive and depart as usual. docs/concepts.md lists all names.",
            [Query(_condition(severity), "{{condition}} {{stage}}") for severity in _SEVERITIES],
            [Word(0, "no", "#6e6e6e33"), Word(1, "holds")],
            colours=list(_SEVERITIES.values()),
            width=14,
            height=_HALF,
        ),
        labels(
            "Firing alerts",
            "Alerts that fire now. The name of each alert links to its runbook.",
            'ALERTS{@r, alertstate="firing", alertname=~"DataPlane.*|TQExporter.*"}',
            shown=("alertname", "severity", "run", "instance", "namespace", "cluster", "partition", "storage_unit"),
            links={"alertname": ("Runbook", _RUNBOOK)},
            width=10,
            height=_HALF,
        ),
    ]


def _condition(severity: str) -> str:
    """Return a query for the conditions of *severity* that held in the time shown: 1, 0, or a gap while unknown."""
    selected = f'dataplane_condition{{@, severity="{severity}"}}'
    return (
        f"max without (severity) ({selected}) "
        f"and max without (severity) (max_over_time({selected}[$__range] @ end())) == 1"
    )


def _over_time() -> list[Builder]:
    return [
        series(
            "Groups by state",
            "Groups in the queue. ready only grows: the trainer is too slow. uncommitted or incomplete only grow: "
            "writes fail before they are complete. taken does not fall: the trainer hangs in its step, or it left the "
            "groups behind (runbook DataPlaneGroupsOrphaned).",
            [Query("sum without (partition) (dataplane_partition_groups{@p})", "{{state}}")],
            stacked=True,
            height=_HALF,
        ),
        series(
            "Group flow (training partitions)",
            "Groups per second in all partitions with role train. Arrivals without completions: generation is slow or "
            "fails. Completions stay above departures: the queue fills up. Departures as failed, uncommitted or "
            "incomplete: runbooks DataPlaneNoGroupCompleted and DataPlaneGroupsGivenUp.",
            [
                Query(_rate('dataplane_groups_arrived_total{@, role="train"}'), "arrived"),
                Query(_rate('dataplane_groups_completed_total{@, role="train"}'), "completed"),
                Query(_rate('dataplane_groups_departed_total{@, role="train"}') + " > 0", "departed {{state}}"),
            ],
            unit="cps",
            height=_HALF,
        ),
        series(
            "Largest lag",
            "Weight versions by which the stalest group is behind the trainer. Above the line (staleness_versions): "
            "runbook DataPlaneStalenessAboveWindow.",
            [Query("dataplane_partition_staleness_max{@p}", "{{partition}}")],
            threshold="staleness_versions",
            height=_HALF,
        ),
        series(
            "Age of the oldest ready and taken group",
            "Age of the oldest group that is ready or taken, by partition. Above the line (stalled_seconds) and no "
            "departures: training has stalled (runbook DataPlaneQueueStalled).",
            [Query('tq:partition_oldest_group:age_seconds{@p, state=~"ready|taken"}', "{{partition}} {{state}}")],
            unit="s",
            threshold="stalled_seconds",
            height=_HALF,
        ),
        series(
            "Errors of the exporter's calls",
            "Errors per second. Unavailable: the controller or a storage unit is gone. Timeout: it does not answer in "
            "time. ReadError: its reply cannot be used; the panel Recent failures of the exporter's page names the "
            "cause.",
            [Query("rate(dataplane_errors_total{@}[$__rate_interval]) > 0", "{{operation}} {{error_type}}")],
            unit="cps",
            height=_HALF,
            link=traces("Traces of these calls", "span.messaging.operation.name", "operation"),
        ),
        series(
            "Storage utilization",
            "Keys divided by capacity, by storage unit. No data: the capacity is unlimited. Above the line "
            "(storage_used_ratio): puts will fail soon (runbook DataPlaneNearCapacity).",
            [Query("dataplane_storage_utilization_ratio{@}", "unit {{storage_unit}}")],
            unit="percentunit",
            threshold="storage_used_ratio",
            height=_HALF,
        ),
    ]


def _rate(counter: str) -> str:
    return f"max without (role) (rate({counter}[$__rate_interval]))"
