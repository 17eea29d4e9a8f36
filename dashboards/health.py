"""The dashboard *Exporter and TQ health*: the controller, the storage units, and the exporter itself."""

from __future__ import annotations

from dashboards.panels import Builder, Query, board, histogram_heatmap, series, states, value

__all__ = ["build"]


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-health",
        "TransferQueue / Exporter and TQ health",
        "Controller pings, storage units, polls and OTLP pushes of the exporter, and TransferQueue's own metrics.",
        of="dataplane_up",
        partitions=None,
        rows=[
            ("Controller", _controller()),
            ("Storage units", _storage()),
            ("Controller's work (TransferQueue's metrics.enabled)", _work()),
            ("Polls", _polls()),
            ("TransferQueue's own metrics (set metrics.enabled and scrape them)", _own()),
        ],
    )


def _controller() -> list[Builder]:
    return [
        value(
            "Controller",
            "The current controller: backend, TransferQueue version, address. none: no controller is known.",
            [Query("dataplane_controller_info{@}", "{{backend}} {{transfer_queue_version}} at {{address}}")],
            named=True,
            width=8,
        ),
        value(
            "Exporter",
            "Version of the exporter and of Python.",
            [Query("tq_exporter_build_info{@}", "{{version}} on Python {{python_version}}")],
            named=True,
            width=8,
        ),
        states(
            "Capabilities",
            "Capabilities that the reader in use reports.",
            [Query("min by (capability) (dataplane_capability{@})", "{{capability}}")],
            good=1,
            texts=("no", "yes"),
            width=8,
        ),
        histogram_heatmap(
            "Ping round-trip time",
            "Successful pings through the controller's request queue. All other calls wait as long. A second band: "
            "something blocks the controller from time to time.",
            'sum by (le) (rate(dataplane_ping_duration_seconds_bucket{@, error_type=""}[$__rate_interval]))',
            unit="s",
        ),
        series(
            "Ping latency at the objective",
            "Latency at the quantile ping_slo_objective (default: p90). Above the line: runbook DataPlanePingSlow.",
            [Query("tq:ping_duration:objective_seconds_rate10m{@}", "{{instance}}")],
            unit="s",
            threshold="ping_slo_seconds",
        ),
        series(
            "Ping error ratio",
            "Failed pings divided by all pings, over 5 minutes. Above the line: runbooks DataPlaneUnavailable and "
            "DataPlaneTimeouts.",
            [
                Query("tq:ping_unavailable:ratio_rate5m{@}", "{{instance}} unavailable"),
                Query("tq:ping_timeout:ratio_rate5m{@}", "{{instance}} timeout"),
            ],
            unit="percentunit",
            threshold="unavailable_fast_ratio",
        ),
        series(
            "Controller restarts",
            "New controllers in the last hour. At or above the line: runbook DataPlaneControllerRestarting.",
            [Query("round(sum by (instance) (increase(dataplane_controller_restarts_total{@}[1h])))", "{{instance}}")],
            threshold="restarts_per_hour",
        ),
        series(
            "Controller time spent on the exporter",
            "Fraction of the controller's time. Above the line: runbook TQExporterOverBudget.",
            [Query("tq_exporter_controller_busy_ratio{@}", "{{instance}}")],
            unit="percentunit",
            threshold="controller_busy_ratio",
        ),
        series(
            "Discovery",
            "1 for the current state. lost, starting, unreachable: runbooks DataPlaneLost, DataPlaneStarting, "
            "DataPlaneUnreachable.",
            [Query("max by (state) (dataplane_discovery_state{@})", "{{state}}")],
        ),
    ]


def _storage() -> list[Builder]:
    return [
        series(
            "Keys and capacity",
            "By unit. A unit that disappears here does not answer.",
            [
                Query("dataplane_storage_keys{@}", "unit {{storage_unit}} keys"),
                Query("dataplane_storage_capacity{@}", "unit {{storage_unit}} capacity"),
            ],
            width=6,
        ),
        series(
            "Utilization",
            "Keys divided by capacity. Above the line: runbook DataPlaneNearCapacity.",
            [Query("dataplane_storage_utilization_ratio{@}", "unit {{storage_unit}}")],
            unit="percentunit",
            threshold="storage_used_ratio",
            width=6,
        ),
        series(
            "Time until full",
            "At the growth rate of the last 30 minutes. No data: the unit does not grow. Below the line: runbook "
            "DataPlaneFullSoon.",
            [Query("tq:storage_full:in_seconds{@}", "unit {{storage_unit}}")],
            unit="s",
            threshold="storage_full_in_seconds",
            width=6,
        ),
        series(
            "Storage unit memory",
            "Resident memory of each unit's process. Near the node's limit: the process is soon killed and its data "
            "lost.",
            [Query("dataplane_storage_memory_bytes{@}", "unit {{storage_unit}}")],
            unit="bytes",
            width=6,
        ),
        series(
            "Storage unit up",
            "1: the unit answered the last poll. 0: it is gone (runbook DataPlaneStorageUnitLost) or silent, as while "
            "it writes a checkpoint (runbook DataPlaneStorageUnitSilent).",
            [Query("dataplane_storage_up{@}", "unit {{storage_unit}} of {{instance}}")],
            width=6,
        ),
        series(
            "Requests of storage units",
            "Requests per second, by operation, all units together. completed: measured by TransferQueue, only if "
            "metrics.enabled. Arrived grows faster than completed: requests hang.",
            [
                Query(
                    "sum by (operation) (rate(dataplane_storage_requests_arrived_total{@}[$__rate_interval]))",
                    "{{operation}} arrived",
                ),
                Query(
                    "sum by (operation) (rate(dataplane_storage_requests_completed_total{@}[$__rate_interval]))",
                    "{{operation}} completed",
                ),
            ],
            unit="reqps",
            width=6,
        ),
        series(
            "Request time of storage units",
            "Mean time that a unit spends on a request, by operation. No data: no requests, or metrics.enabled is off.",
            [
                Query(
                    "sum by (storage_unit, operation) "
                    "(rate(dataplane_storage_requests_duration_seconds_total{@}[$__rate_interval]))"
                    " / sum by (storage_unit, operation) "
                    "(rate(dataplane_storage_requests_completed_total{@}[$__rate_interval]))",
                    "unit {{storage_unit}} {{operation}}",
                )
            ],
            unit="s",
            width=6,
        ),
        series(
            "Unlisted keys",
            "Keys in all units that no partition lists: samples put without keys, or leaked data. Growing: it is never "
            "cleared.",
            [Query("dataplane_storage_keys_unlisted{@}", "{{instance}}")],
            width=6,
        ),
        series(
            "SSD offload",
            "Size of the values on SSD. No data: SSD offload is off.",
            [Query("dataplane_storage_ssd_size_bytes{@}", "unit {{storage_unit}}")],
            unit="bytes",
            width=6,
        ),
        series(
            "Values and SSD",
            "Values on SSD, and values that stay in memory as they cannot be encoded. No data: SSD offload is off.",
            [
                Query("dataplane_storage_ssd_values{@}", "unit {{storage_unit}} on SSD"),
                Query("dataplane_storage_ssd_fallbacks{@}", "unit {{storage_unit}} in memory"),
            ],
            width=6,
        ),
        series(
            "Accept queue peak",
            "Highest occupancy of the accept queue of a unit's socket. Near 100 %: connections get lost. No data: "
            "TransferQueue's probe is off.",
            [Query("dataplane_storage_accept_queue_peak_utilization_ratio{@}", "unit {{storage_unit}}")],
            unit="percentunit",
            width=6,
        ),
        series(
            "Dropped connections",
            "Connections that a unit's socket dropped since TransferQueue's probe started. No data: the probe is off.",
            [Query("dataplane_storage_socket_drops{@}", "unit {{storage_unit}}")],
            width=6,
        ),
        series(
            "Mooncake store",
            "Objects per second that were evicted (runbook DataPlaneStorageEvicting), found no room (runbook "
            "DataPlaneStorageAllocationsFailing), or were not there when they were read. No data: other storage.",
            [
                Query("rate(dataplane_storage_evicted_objects_total{@}[$__rate_interval])", "evicted"),
                Query("rate(dataplane_storage_allocation_failures_total{@}[$__rate_interval])", "no room"),
                Query("rate(dataplane_storage_lookup_misses_total{@}[$__rate_interval])", "not there"),
            ],
            width=8,
        ),
        series(
            "Mooncake evictions",
            "Bytes per second that were evicted. Above 0: listed rows are lost (runbook DataPlaneStorageEvicting).",
            [Query("rate(dataplane_storage_evicted_size_bytes_total{@}[$__rate_interval])", "{{instance}}")],
            unit="Bps",
            width=8,
        ),
        series(
            "Mooncake objects",
            "Objects in the store, one per field of a row, and processes that the master counts as clients.",
            [Query("dataplane_storage_objects{@}", "objects"), Query("dataplane_storage_clients{@}", "clients")],
            width=8,
        ),
        value(
            "Storage units up",
            "Units that answer, of all. Fewer: runbooks DataPlaneStorageUnitLost and DataPlaneStorageUnitSilent.",
            [Query("sum(dataplane_storage_up{@})", "up"), Query("count(dataplane_storage_info{@})", "of")],
        ),
    ]


def _work() -> list[Builder]:
    return [
        series(
            "Requests to the controller",
            "Requests per second of all clients, by operation.",
            [
                Query(
                    "sum by (operation) (rate(dataplane_controller_requests_arrived_total{@}[$__rate_interval]))",
                    "{{operation}}",
                )
            ],
            unit="reqps",
            width=6,
        ),
        series(
            "Time per request p99",
            "Time in the controller's handler, by operation. While one request is handled, all others wait.",
            [
                Query(
                    "histogram_quantile(0.99, sum by (le, operation) "
                    "(rate(dataplane_controller_requests_duration_seconds_bucket{@}[$__rate_interval])))",
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
                    "sum by (operation) (rate(dataplane_controller_requests_failed_total{@}[$__rate_interval]))",
                    "{{operation}}",
                )
            ],
            unit="reqps",
            width=6,
        ),
        series(
            "Memory of the controller",
            "Resident memory; it holds all metadata. Near the node's limit: the process is soon killed, and the run "
            "loses its data plane.",
            [Query("dataplane_controller_memory_bytes{@}", "{{instance}}")],
            unit="bytes",
            width=6,
        ),
    ]


def _polls() -> list[Builder]:
    return [
        series(
            "Source state",
            "1 for the current state. budget: polled less often to spare the controller. stale: data too old, not "
            "shown. failing: the cause is under incidents in /api/v1/snapshot.",
            [Query("max by (source, reason) (dataplane_source_state{@}) == 1", "{{source}} {{reason}}")],
        ),
        series(
            "Source up",
            "1: the last poll succeeded. 0: it failed.",
            [Query("min by (source) (dataplane_source_up{@})", "{{source}}")],
        ),
        series(
            "Age of the data",
            "Time since the last successful poll. Growing: the metrics of that source are old or not shown.",
            [Query("time() - max by (source) (dataplane_source_last_success_timestamp_seconds{@})", "{{source}}")],
            unit="s",
        ),
        series(
            "Poll duration",
            "Last poll of each source. metadata grows steadily: clear consumed keys.",
            [Query("max by (source) (dataplane_source_duration_seconds{@})", "{{source}}")],
            unit="s",
        ),
        series(
            "Poll interval",
            "Current interval. Longer than configured, to spare the controller: runbook TQExporterPollsStretched.",
            [Query("max by (source) (dataplane_source_interval_seconds{@})", "{{source}}")],
            unit="s",
        ),
        series(
            "Polls",
            "Polls per second, by outcome.",
            [
                Query(
                    "sum by (source, outcome) (rate(tq_exporter_polls_total{@}[$__rate_interval]))",
                    "{{source}} {{outcome}}",
                )
            ],
            unit="cps",
        ),
        series(
            "Error ratio of metadata polls",
            "Failed polls divided by all polls. Above the line: runbook DataPlaneMetadataFailing.",
            [Query("tq:metadata_failed:ratio_rate10m{@}", "{{instance}}")],
            unit="percentunit",
            threshold="metadata_failed_ratio",
        ),
        series(
            "Skipped polls",
            "Polls per second that were skipped because the previous one still ran. Often: make the interval longer.",
            [Query("sum by (source) (rate(tq_exporter_polls_skipped_total{@}[$__rate_interval]))", "{{source}}")],
            unit="cps",
        ),
        series(
            "Refused replies",
            "Replies per second that exceed a limit. Above zero: incidents in /api/v1/snapshot name the limit.",
            [Query("sum(rate(tq_exporter_replies_refused_total{@}[$__rate_interval]))", "refused")],
            unit="cps",
        ),
        series(
            "Refused logins",
            "Requests per second with a wrong user name or password. The exporter's log names the address.",
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
            "Pushes per second, by outcome. No data: OTLP is not configured. Failing: runbook TQExporterOTLPFailing.",
            [
                Query(
                    "sum by (signal, outcome) (rate(tq_exporter_otlp_exports_total{@}[$__rate_interval]))",
                    "{{signal}} {{outcome}}",
                )
            ],
            unit="cps",
        ),
        series(
            "Error ratio of OTLP pushes",
            "Failed pushes divided by all pushes. Above the line: runbook TQExporterOTLPFailing.",
            [Query("tq:otlp_failed:ratio_rate15m{@}", "{{signal}}")],
            unit="percentunit",
            threshold="otlp_failed_ratio",
        ),
    ]


def _own() -> list[Builder]:
    return [
        series(
            "Controller requests",
            "Requests per second of all clients, by type, as counted by TransferQueue.",
            [Query("sum by (op_type) (rate(tq_controller_request_total[$__rate_interval]))", "{{op_type}}")],
            unit="reqps",
            width=6,
        ),
        series(
            "Controller request time p99",
            "Time in the controller's handler, by type. Encoding is not included (about half). A type that grows "
            "blocks all others.",
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
            "Controller memory",
            "Resident memory; it holds all metadata. Near the node's limit: the process is soon killed, and the run "
            "loses its data plane.",
            [Query("tq_controller_memory_rss_bytes", "{{instance}}")],
            unit="bytes",
            width=6,
        ),
        series(
            "Storage unit latency p99",
            "By operation. A value that stays exactly the same: the unit times out.",
            [Query("tq_storage_request_latency_p99", "{{storage_unit_id}} {{op_type}}")],
            unit="s",
            width=6,
        ),
    ]
