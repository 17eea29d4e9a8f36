"""The dashboard *Exporter and TQ health*: the controller, the storage units, and the exporter itself."""

from __future__ import annotations

from typing import Final

from dashboards.boards import board
from dashboards.overview import DISCOVERY, DISCOVERY_WORDS
from dashboards.panels import Builder, Column, Word, columns, labels, series, timeline, traces
from dashboards.queries import IDENTITY, Query, coded
from dashboards.storage import storage_panels

__all__ = ["SOURCE_STATES", "build"]

SOURCE_STATES: Final = {
    "ok": Word(1, "ok", "green"),
    "budget": Word(2, "budget", "blue"),
    "failing": Word(3, "failing", "red"),
    "stale": Word(4, "stale", "orange"),
    "disabled": Word(5, "disabled", "text"),
    "unsupported": Word(6, "unsupported", "text"),
}
"""The reasons of a source's state, and the word for each."""

_POLLS: Final = traces("Traces of these polls", "span.tq_exporter.source", "source")


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-health",
        "TransferQueue / Exporter and TQ health",
        "Controller pings, storage units, polls and OTLP pushes of the exporter, and TransferQueue's own metrics.",
        of="dataplane_up",
        partitions=None,
        own_metrics=True,
        rows=[
            ("Controller and pings", _controller()),
            ("Storage units", storage_panels()),
            ("Controller's work (TransferQueue's metrics.enabled)", _work()),
            ("Polls", _polls()),
            ("TransferQueue's own metrics (set metrics.enabled and scrape them)", _own()),
        ],
    )


def _controller() -> list[Builder]:
    return [
        labels(
            "Controller",
            "The current controller. none: no controller is known.",
            "dataplane_controller_info{@}",
            shown=("backend", "transfer_queue_version", "ray_version", "address", *IDENTITY),
            width=10,
            height=5,
        ),
        labels(
            "Exporter",
            "Version of the exporter and of Python.",
            "tq_exporter_build_info{@}",
            shown=("version", "commit", "python_version", *IDENTITY),
            width=7,
            height=5,
        ),
        columns(
            "Capabilities",
            "Capabilities that the reader in use reports.",
            ("capability", *IDENTITY),
            [Column("supported", "dataplane_capability{@}", words=[Word(0, "no", "text"), Word(1, "yes", "green")])],
            width=7,
            height=5,
        ),
        series(
            "Ping round-trip time",
            "Duration of successful pings, which wait in the controller's request queue like all other calls. p99 far "
            "above p50: something blocks the controller from time to time.",
            [Query(_ping_quantile(quantile), f"p{quantile * 100:g}") for quantile in (0.5, 0.9, 0.99)],
            unit="s",
        ),
        series(
            "Ping latency at the objective",
            "Ping latency at the quantile ping_slo_objective (default: p90). Above the line (ping_slo_seconds): "
            "runbook DataPlanePingSlow.",
            [Query("tq:ping_duration:objective_seconds_rate10m{@}")],
            unit="s",
            threshold="ping_slo_seconds",
        ),
        series(
            "Ping error ratio",
            "Failed pings divided by all pings, over 5 minutes. Above the line (unavailable_fast_ratio): runbooks "
            "DataPlaneUnavailable and DataPlaneTimeouts.",
            [
                Query("tq:ping_unavailable:ratio_rate5m{@}", "unavailable"),
                Query("tq:ping_timeout:ratio_rate5m{@}", "timeout"),
            ],
            unit="percentunit",
            threshold="unavailable_fast_ratio",
        ),
        series(
            "Controller restarts",
            "New controllers in the last hour. At or above the line (restarts_per_hour): runbook "
            "DataPlaneControllerRestarting.",
            [Query("round(increase(dataplane_controller_restarts_total{@}[1h]))")],
            threshold="restarts_per_hour",
        ),
        series(
            "Controller time spent on the exporter",
            "Share of its time that the controller spends on the exporter. Above the line (controller_busy_ratio): "
            "runbook TQExporterOverBudget.",
            [Query("tq_exporter_controller_busy_ratio{@}")],
            unit="percentunit",
            threshold="controller_busy_ratio",
        ),
        timeline(
            "Discovery",
            "State of discovery over time. lost: runbook DataPlaneLost. starting: runbook DataPlaneStarting. "
            "unreachable: runbook DataPlaneUnreachable.",
            [DISCOVERY],
            DISCOVERY_WORDS,
        ),
    ]


def _work() -> list[Builder]:
    return [
        series(
            "Controller requests (exporter)",
            "Requests per second of all clients to the controller, by operation. More keys or clients: more requests.",
            [
                Query(
                    "rate(dataplane_controller_requests_arrived_total{@}[$__rate_interval])",
                    "{{operation}}",
                )
            ],
            unit="reqps",
            width=6,
        ),
        series(
            "Controller request time p99 (exporter)",
            "p99 of the time in the controller's handler, by operation. While it handles one request, all others wait.",
            [
                Query(
                    "histogram_quantile(0.99, "
                    "rate(dataplane_controller_requests_duration_seconds_bucket{@}[$__rate_interval]))",
                    "{{operation}}",
                )
            ],
            unit="s",
            width=6,
        ),
        series(
            "Failed requests",
            "Requests per second whose handler in the controller failed. No data: none has failed.",
            [
                Query(
                    "rate(dataplane_controller_requests_failed_total{@}[$__rate_interval])",
                    "{{operation}}",
                )
            ],
            unit="reqps",
            width=6,
        ),
        series(
            "Controller memory (exporter)",
            "Resident memory of the controller, which holds all metadata. Near the node's limit: the kernel soon kills "
            "the process, and the run loses its data plane.",
            [Query("dataplane_controller_memory_bytes{@}")],
            unit="bytes",
            width=6,
        ),
    ]


def _polls() -> list[Builder]:
    return [
        timeline(
            "Source state",
            "budget: polled less often to spare the controller. stale: data too old, not shown. disabled: switched "
            "off. unsupported: this storage backend has no figures. failing: the panel Recent failures of the "
            "exporter's page names the cause.",
            [Query(coded("dataplane_source_state{@}", "reason", SOURCE_STATES), "{{source}}")],
            list(SOURCE_STATES.values()),
            link=_POLLS,
        ),
        timeline(
            "Source up",
            "Whether the last poll of each source succeeded.",
            [Query("dataplane_source_up{@}", "{{source}}")],
            [Word(0, "failed", "red"), Word(1, "ok", "green")],
            link=_POLLS,
        ),
        series(
            "Data age by source",
            "Time since the last successful poll. Growing: the metrics of that source are old or not shown.",
            [Query("time() - dataplane_source_last_success_timestamp_seconds{@}", "{{source}}")],
            unit="s",
        ),
        series(
            "Poll duration",
            "Duration of the last poll, by source. metadata grows steadily: clear consumed keys.",
            [Query("dataplane_source_duration_seconds{@}", "{{source}}")],
            unit="s",
            link=_POLLS,
        ),
        series(
            "Poll interval",
            "Time between two polls, by source. Longer than configured, to spare the controller: runbook "
            "TQExporterPollsStretched.",
            [Query("dataplane_source_interval_seconds{@}", "{{source}}")],
            unit="s",
        ),
        series(
            "Poll rate",
            "Polls per second, by source and outcome. failed grows: see Source state.",
            [
                Query(
                    "rate(tq_exporter_polls_total{@}[$__rate_interval])",
                    "{{source}} {{outcome}}",
                )
            ],
            unit="cps",
        ),
        series(
            "Error ratio of metadata polls",
            "Failed metadata polls divided by all metadata polls. Above the line (metadata_failed_ratio): runbook "
            "DataPlaneMetadataFailing.",
            [Query("tq:metadata_failed:ratio_rate10m{@}")],
            unit="percentunit",
            threshold="metadata_failed_ratio",
        ),
        series(
            "Skipped polls",
            "Polls per second that were skipped because the previous one still ran. Often: make the interval longer.",
            [Query("rate(tq_exporter_polls_skipped_total{@}[$__rate_interval])", "{{source}}")],
            unit="cps",
        ),
        series(
            "Full decodes",
            "Listings per second whose rows were all decoded again. High is normal where most rows change between two "
            "polls. Otherwise the exporter uses more CPU than it needs.",
            [Query("rate(tq_exporter_polls_full_decodes_total{@}[$__rate_interval])")],
            unit="cps",
        ),
        series(
            "Refused replies",
            "Replies per second that exceed a limit. Above zero: the panel Recent failures of the exporter's page "
            "names the limit; runbook DataPlanePartitionUnreadable.",
            [Query("rate(tq_exporter_replies_refused_total{@}[$__rate_interval])", "{{limit}}")],
            unit="cps",
        ),
        series(
            "Refused logins",
            "Requests per second with a wrong user name or password. The exporter's log names the address.",
            [Query("rate(tq_exporter_http_refused_logins_total{@}[$__rate_interval])")],
            unit="cps",
        ),
        series(
            "OTLP pushes",
            "OTLP pushes per second, by signal and outcome. No data: OTLP is not configured. failed grows: runbook "
            "TQExporterOTLPFailing.",
            [
                Query(
                    "rate(tq_exporter_otlp_exports_total{@}[$__rate_interval])",
                    "{{signal}} {{outcome}}",
                )
            ],
            unit="cps",
        ),
        series(
            "Error ratio of OTLP pushes",
            "Failed OTLP pushes divided by all OTLP pushes. Above the line (otlp_failed_ratio): runbook "
            "TQExporterOTLPFailing.",
            [Query("tq:otlp_failed:ratio_rate15m{@}", "{{signal}}")],
            unit="percentunit",
            threshold="otlp_failed_ratio",
        ),
        timeline(
            "Recorder up",
            "Whether the exporter can write its recording. DOWN: the disk is full or does not answer; the exporter's "
            "log has the reason. No data: history.file is not set.",
            [Query("tq_exporter_recorder_up{@}")],
            [Word(0, "DOWN", "red"), Word(1, "up", "green")],
        ),
        series(
            "Recording size",
            "Size of the recording's file. No data: history.file is not set.",
            [Query("tq_exporter_recorder_size_bytes{@}")],
            unit="bytes",
        ),
        series(
            "Recording rows dropped",
            "Rows per second that are missing in the recording. Above zero: the disk is too slow, or full. No data: "
            "history.file is not set.",
            [Query("rate(tq_exporter_recorder_dropped_total{@}[$__rate_interval])")],
            unit="cps",
        ),
        series(
            "Tracker points",
            "Points for TensorBoard, Weights & Biases or MLflow per second, by outcome. No data: none is switched on. "
            "Failing or dropped: the exporter's log says why.",
            [Query("rate(tq_exporter_tracker_points_total{@}[$__rate_interval])", "{{tracker}} {{outcome}}")],
            unit="cps",
        ),
        series(
            "Tracker metrics: ready groups and lag",
            "Ready groups and their lag, in all partitions with role train. These metrics have no labels, for "
            "experiment trackers that drop labels.",
            [
                Query("dataplane_training_ready{@}", "ready"),
                Query("dataplane_training_lag_max{@}", "largest lag"),
                Query("dataplane_training_lag_mean{@}", "mean lag"),
            ],
        ),
        series(
            "Tracker metrics: group flow",
            "Groups per second in all partitions with role train. evicted: groups that left before they were complete, "
            "or as failed.",
            [
                Query("rate(dataplane_training_completed_total{@}[$__rate_interval])", "completed"),
                Query("rate(dataplane_training_departed_total{@}[$__rate_interval])", "departed"),
                Query("rate(dataplane_training_evicted_total{@}[$__rate_interval])", "evicted"),
                Query("rate(dataplane_training_lost_total{@}[$__rate_interval])", "lost"),
            ],
            unit="cps",
        ),
    ]


def _own() -> list[Builder]:
    return [
        series(
            "Controller requests (tq_*)",
            "Requests per second of all clients to the controller, by type, as TransferQueue counts them.",
            [Query("rate(tq_controller_request_total{@t}[$__rate_interval])", "{{op_type}}")],
            unit="reqps",
            width=6,
        ),
        series(
            "Controller request time p99 (tq_*)",
            "p99 of the time in the controller's handler, by type. Encoding is not included (about half). A type that "
            "grows blocks all others.",
            [
                Query(
                    "histogram_quantile(0.99, "
                    "rate(tq_controller_request_duration_seconds_bucket{@t}[$__rate_interval]))",
                    "{{op_type}}",
                )
            ],
            unit="s",
            width=6,
        ),
        series(
            "Controller memory (tq_*)",
            "Resident memory of the controller, as TransferQueue measures it. Near the node's limit: the kernel soon "
            "kills the process, and the run loses its data plane.",
            [Query("tq_controller_memory_rss_bytes{@t}")],
            unit="bytes",
            width=6,
        ),
        series(
            "Storage unit latency p99",
            "p99 of the latency of a storage unit, by operation. A value that stays exactly the same: the unit times "
            "out.",
            [Query("tq_storage_request_latency_p99{@t}", "{{storage_unit_id}} {{op_type}}")],
            unit="s",
            width=6,
        ),
    ]


def _ping_quantile(quantile: float) -> str:
    return (
        f"histogram_quantile({quantile}, sum without (error_type) "
        '(rate(dataplane_ping_duration_seconds_bucket{@, error_type=""}[$__rate_interval])))'
    )
