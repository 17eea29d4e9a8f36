"""The dashboard *Client calls*: the data plane as seen by the processes that use the instrumented client."""

from __future__ import annotations

from dashboards.panels import Builder, Query, board, series

__all__ = ["build"]

_CALLS = "messaging_client_operation_duration_seconds"
_TRACES = (
    "Traces of this operation",
    "/explore?schemaVersion=1&panes="
    '{"t":{"datasource":"${traces}","queries":[{"refId":"A","datasource":{"type":"tempo","uid":"${traces}"},'
    '"queryType":"traceql","query":"{ span.messaging.operation.name = '
    '\\"${__field.labels.messaging_operation_name}\\" }"}],"range":{"from":"${__from}","to":"${__to}"}}}',
)


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-clients",
        "TransferQueue / Client calls",
        "Rate, errors and latency of the data plane calls of trainers and rollouts, by operation and partition.",
        of=f"{_CALLS}_count",
        partitions="messaging_destination_name",
        partition_metric=f"{_CALLS}_count",
        traces=True,
        rows=[("Calls", _calls()), ("Data", _data()), ("The instrumentation itself", _itself())],
    )


def _calls() -> list[Builder]:
    return [
        series(
            "Calls by operation",
            "Per second, failed ones included. An operation that stops while its process lives: it hangs in that call.",
            [
                Query(
                    f"sum by (messaging_operation_name) (rate({_CALLS}_count{{@c}}[$__rate_interval]))",
                    "{{messaging_operation_name}}",
                )
            ],
            unit="ops",
            link=_TRACES,
        ),
        series(
            "Calls by partition",
            "Per second. Which partition the load comes from.",
            [
                Query(
                    f"sum by (messaging_destination_name) (rate({_CALLS}_count{{@c}}[$__rate_interval]))",
                    "{{messaging_destination_name}}",
                )
            ],
            unit="ops",
        ),
        series(
            "Failed share by operation",
            "Of all its calls. put_samples and get_samples alone: a storage unit. All of them: the controller.",
            [
                Query(
                    f'sum by (messaging_operation_name) (rate({_CALLS}_count{{@c, error_type!=""}}[$__rate_interval]))'
                    f" / on (messaging_operation_name) "
                    f"sum by (messaging_operation_name) (rate({_CALLS}_count{{@c}}[$__rate_interval]))",
                    "{{messaging_operation_name}}",
                )
            ],
            unit="percentunit",
            link=_TRACES,
        ),
        series(
            "Errors by type",
            "Unavailable: gone. Timeout: silent. NotReady: a ghost, a put that failed after its tags were written. "
            "BadRequest: the caller's own mistake.",
            [
                Query(
                    "sum by (operation, error_type) (rate(dataplane_client_errors_total{@p}[$__rate_interval]))",
                    "{{operation}} {{error_type}}",
                )
            ],
            unit="ops",
        ),
        series(
            "Share that finds the data plane gone",
            "By process, over five minutes. Above the line: runbook DataPlaneClientUnavailable.",
            [Query("tq:client_unavailable:ratio_rate5m{@}", "{{instance}}")],
            unit="percentunit",
            threshold="unavailable_fast_ratio",
        ),
        series(
            "Share that times out",
            "By process, over five minutes. Above the line: runbook DataPlaneClientTimeouts.",
            [Query("tq:client_timeout:ratio_rate5m{@}", "{{instance}}")],
            unit="percentunit",
            threshold="timeout_fast_ratio",
        ),
        series(
            "Latency of half of the good calls",
            "By operation. A jump of all operations at once: the controller is busy (runbook DataPlanePingSlow).",
            [
                Query(
                    "histogram_quantile(0.5, sum by (le, messaging_operation_name) "
                    f'(rate({_CALLS}_bucket{{@c, error_type=""}}[$__rate_interval])))',
                    "{{messaging_operation_name}}",
                )
            ],
            unit="s",
            link=_TRACES,
        ),
        series(
            "Latency of 99 % of the good calls",
            "By operation. Close to the client's deadline: raise it, or make the calls smaller.",
            [
                Query(
                    "histogram_quantile(0.99, sum by (le, messaging_operation_name) "
                    f'(rate({_CALLS}_bucket{{@c, error_type=""}}[$__rate_interval])))',
                    "{{messaging_operation_name}}",
                )
            ],
            unit="s",
            link=_TRACES,
        ),
        series(
            "Mean duration, failed calls included",
            "Seconds per call by operation. Far above the good calls' latency: calls wait for their deadline.",
            [
                Query(
                    f"sum by (messaging_operation_name) (rate({_CALLS}_sum{{@c}}[$__rate_interval]))"
                    f" / on (messaging_operation_name) "
                    f"sum by (messaging_operation_name) (rate({_CALLS}_count{{@c}}[$__rate_interval]))",
                    "{{messaging_operation_name}}",
                )
            ],
            unit="s",
        ),
    ]


def _data() -> list[Builder]:
    return [
        series(
            "Bytes",
            "Tensor bytes per second, written and read. Read far above written: samples are fetched more than once.",
            [
                Query(
                    "sum by (direction) (rate(dataplane_client_io_bytes_total{@p}[$__rate_interval]))",
                    "{{direction}}",
                )
            ],
            unit="Bps",
        ),
        series(
            "Keys",
            "Per second, by operation. evict beside pop: what is thrown away for being too stale.",
            [
                Query(
                    "sum by (operation, direction) (rate(dataplane_client_keys_total{@p}[$__rate_interval]))",
                    "{{operation}} ({{direction}})",
                )
            ],
            unit="cps",
        ),
        series(
            "Lag of what is consumed",
            "95 % of what was claimed, popped or evicted was at most so many versions behind the trainer.",
            [
                Query(
                    "histogram_quantile(0.95, sum by (le, operation) "
                    "(rate(dataplane_client_consumed_lag_bucket{@p}[$__rate_interval])))",
                    "{{operation}}",
                )
            ],
            threshold="staleness_versions",
        ),
    ]


def _itself() -> list[Builder]:
    return [
        series(
            "Keys without known origin",
            "Their calls have no span link and no lag. Normal for keys that another process put without propagation.",
            [
                Query(
                    "sum by (operation) (rate(dataplane_client_lineage_misses_total{@p}[$__rate_interval]))",
                    "{{operation}}",
                )
            ],
            unit="cps",
            width=12,
        ),
        series(
            "Failures of telemetry",
            "Calls were shielded from them. Any: the process's log says once what failed.",
            [
                Query(
                    "sum by (instance) (rate(dataplane_client_observer_failures_total{@}[$__rate_interval]))",
                    "{{instance}}",
                )
            ],
            unit="cps",
            width=12,
        ),
    ]
