"""The dashboard *Exporter and TQ health*: the controller, the storage units, and the health of the exporter."""

from __future__ import annotations

from dashboards.panels import Builder, Query, board, histogram_heatmap, series, states, value

__all__ = ["build"]


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-health",
        "TransferQueue / Exporter and TQ health",
        "The controller's answers, the storage units, the exporter's polls and pushes, TransferQueue's own metrics.",
        of="dataplane_up",
        partitions=None,
        rows=[
            ("Controller", _controller()),
            ("Storage units", _storage()),
            ("Polls", _polls()),
            ("TransferQueue's own metrics, where metrics.enabled is set and they are scraped", _own()),
        ],
    )


def _controller() -> list[Builder]:
    return [
        value(
            "Controller",
            "The controller in use; none while there is none.",
            [Query("dataplane_controller_info{@}", "{{backend}} {{transfer_queue_version}} at {{address}}")],
            named=True,
            width=8,
        ),
        value(
            "Exporter",
            "Its version and Python.",
            [Query("tq_exporter_build_info{@}", "{{version}} on Python {{python_version}}")],
            named=True,
            width=8,
        ),
        states(
            "Claims",
            "What the reader in use claims to support.",
            [Query("min by (capability) (dataplane_capability{@})", "{{capability}}")],
            good=1,
            texts=("no", "yes"),
            width=8,
        ),
        histogram_heatmap(
            "Round trip of pings",
            "Through the controller's one request queue: everybody's calls wait as long. A second band: something "
            "blocks it now and then.",
            'sum by (le) (rate(dataplane_ping_duration_seconds_bucket{@, error_type=""}[$__rate_interval]))',
            unit="s",
        ),
        series(
            "Ping at the objective",
            "What one must allow to count as many pings as the objective asks for. Above the line: runbook "
            "DataPlanePingSlow.",
            [Query("tq:ping_duration:objective_seconds_rate10m{@}", "{{instance}}")],
            unit="s",
            threshold="ping_slo_seconds",
        ),
        series(
            "Failed share of pings",
            "Gone, and silent. Above the line: runbooks DataPlaneUnavailable and DataPlaneTimeouts.",
            [
                Query("tq:ping_unavailable:ratio_rate5m{@}", "{{instance}} gone"),
                Query("tq:ping_timeout:ratio_rate5m{@}", "{{instance}} silent"),
            ],
            unit="percentunit",
            threshold="unavailable_fast_ratio",
        ),
        series(
            "New controllers",
            "Within an hour. At the line: runbook DataPlaneControllerRestarting.",
            [Query("round(sum by (instance) (increase(dataplane_controller_restarts_total{@}[1h])))", "{{instance}}")],
            threshold="restarts_per_hour",
        ),
        series(
            "The exporter's share of the controller",
            "Of the controller's time. Above the line: runbook TQExporterOverBudget.",
            [Query("tq_exporter_controller_busy_ratio{@}", "{{instance}}")],
            unit="percentunit",
            threshold="controller_busy_ratio",
        ),
        series(
            "Discovery",
            "1 for the state that it is in. lost: runbook DataPlaneLost.",
            [Query("max by (state) (dataplane_discovery_state{@})", "{{state}}")],
        ),
    ]


def _storage() -> list[Builder]:
    return [
        series(
            "Keys and capacity",
            "By unit. A unit that vanishes does not answer: runbook DataPlaneStorageUnitLost.",
            [
                Query("dataplane_storage_keys{@}", "unit {{storage_unit}} keys"),
                Query("dataplane_storage_capacity{@}", "unit {{storage_unit}} capacity"),
            ],
            width=6,
        ),
        series(
            "In use",
            "Share of the capacity. Above the line: runbook DataPlaneNearCapacity.",
            [Query("dataplane_storage_utilization_ratio{@}", "unit {{storage_unit}}")],
            unit="percentunit",
            threshold="storage_used_ratio",
            width=6,
        ),
        series(
            "Full in",
            "At the growth of the last 30 minutes; nothing while it does not grow. Below the line: runbook "
            "DataPlaneFullSoon.",
            [Query("tq:storage_full:in_seconds{@}", "unit {{storage_unit}}")],
            unit="s",
            threshold="storage_full_in_seconds",
            width=6,
        ),
        series(
            "Memory of the storage units",
            "Resident memory of each unit's process. Near the node's limit: it will be killed, with its data.",
            [Query("dataplane_storage_memory_bytes{@}", "unit {{storage_unit}}")],
            unit="bytes",
            width=6,
        ),
        value(
            "Units that answer",
            "Fewer than there should be: runbook DataPlaneStorageUnitLost.",
            [Query("count(dataplane_storage_info{@})", "")],
        ),
    ]


def _polls() -> list[Builder]:
    return [
        series(
            "Sources",
            "1 for how each source is doing. budget: polls are stretched. stale: what it said is withdrawn. failing: "
            "see the snapshot's incidents.",
            [Query("max by (source, reason) (dataplane_source_state{@}) == 1", "{{source}} {{reason}}")],
        ),
        series(
            "Sources that answer",
            "0: its last poll failed.",
            [Query("min by (source) (dataplane_source_up{@})", "{{source}}")],
        ),
        series(
            "Age of what is shown",
            "Since the last good poll. Growing: the figures of that source are old or gone.",
            [Query("time() - max by (source) (dataplane_source_last_success_timestamp_seconds{@})", "{{source}}")],
            unit="s",
        ),
        series(
            "Duration of polls",
            "Metadata that takes longer and longer: clear consumed keys.",
            [Query("max by (source) (dataplane_source_duration_seconds{@})", "{{source}}")],
            unit="s",
        ),
        series(
            "Effective interval",
            "Longer than configured when it spares the controller: runbook TQExporterPollsStretched.",
            [Query("max by (source) (dataplane_source_interval_seconds{@})", "{{source}}")],
            unit="s",
        ),
        series(
            "Polls",
            "Per second, by outcome.",
            [
                Query(
                    "sum by (source, outcome) (rate(tq_exporter_polls_total{@}[$__rate_interval]))",
                    "{{source}} {{outcome}}",
                )
            ],
            unit="cps",
        ),
        series(
            "Failed share of metadata polls",
            "Above the line: runbook DataPlaneMetadataFailing.",
            [Query("tq:metadata_failed:ratio_rate10m{@}", "{{instance}}")],
            unit="percentunit",
            threshold="metadata_failed_ratio",
        ),
        series(
            "Skipped polls",
            "The last one was still running. Often: the source is slower than its interval; make that longer.",
            [Query("sum by (source) (rate(tq_exporter_polls_skipped_total{@}[$__rate_interval]))", "{{source}}")],
            unit="cps",
        ),
        series(
            "Refused replies",
            "Per second: too many rows, too large, or not understood. Any: the snapshot's incidents say which limit.",
            [Query("sum(rate(tq_exporter_replies_refused_total{@}[$__rate_interval]))", "refused")],
            unit="cps",
        ),
        series(
            "Refused logins",
            "Per second: requests to the exporter with a wrong user name or password. The log names the address.",
            [
                Query(
                    "sum by (instance) (rate(tq_exporter_http_refused_logins_total{@}[$__rate_interval]))",
                    "{{instance}}",
                )
            ],
            unit="cps",
        ),
        series(
            "OTLP pushes",
            "Per second, by outcome; nothing when nothing is pushed. Failing: runbook TQExporterOTLPFailing.",
            [
                Query(
                    "sum by (signal, outcome) (rate(tq_exporter_otlp_exports_total{@}[$__rate_interval]))",
                    "{{signal}} {{outcome}}",
                )
            ],
            unit="cps",
        ),
        series(
            "Failed share of OTLP pushes",
            "Above the line: runbook TQExporterOTLPFailing.",
            [Query("tq:otlp_failed:ratio_rate15m{@}", "{{signal}}")],
            unit="percentunit",
            threshold="otlp_failed_ratio",
        ),
    ]


def _own() -> list[Builder]:
    return [
        series(
            "Requests to the controller",
            "By type, as TransferQueue counts them, of all its users.",
            [Query("sum by (op_type) (rate(tq_controller_request_total[$__rate_interval]))", "{{op_type}}")],
            unit="reqps",
            width=6,
        ),
        series(
            "Time per request, 99 %",
            "In the controller's handler, without encoding (about half). The type that grows blocks the rest.",
            [
                Query(
                    "histogram_quantile(0.99, sum by (le, op_type) "
                    "(rate(tq_controller_request_duration_seconds_bucket[$__rate_interval])))",
                    "{{op_type}}",
                )
            ],
            unit="s",
            width=6,
        ),
        series(
            "Memory of the controller",
            "It holds all metadata. Near the node's limit: it will be killed, and with it the run's data plane.",
            [Query("tq_controller_memory_rss_bytes", "{{instance}}")],
            unit="bytes",
            width=6,
        ),
        series(
            "Latency of the storage units, 99 %",
            "By operation. It freezes when a unit times out.",
            [Query("tq_storage_request_latency_p99", "{{storage_unit_id}} {{op_type}}")],
            unit="s",
            width=6,
        ),
    ]
