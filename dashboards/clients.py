"""The dashboard *Client calls*: the data plane as seen by the processes that use the instrumented client."""

from __future__ import annotations

from dashboards.boards import board
from dashboards.panels import Builder, series, traces
from dashboards.queries import Query

__all__ = ["build"]

_CALLS = "messaging_client_operation_duration_seconds"
_BUT_OPERATION = "messaging_system, messaging_destination_name, error_type, $processes"
_BUT_PARTITION = "messaging_system, messaging_operation_name, error_type, $processes"
_TRACES = traces("Traces of this operation", "span.messaging.operation.name", "messaging_operation_name")


def build() -> Builder:
    """Return the dashboard."""
    return board(
        "tq-clients",
        "TransferQueue / Client calls",
        "Rate, errors and latency of data plane calls in trainers and rollouts, by operation and partition.",
        of=f"{_CALLS}_count",
        partitions=(f"{_CALLS}_count", "messaging_destination_name"),
        clients=True,
        rows=[("Calls", _calls()), ("Data", _data()), ("Telemetry of the client", _itself())],
    )


def _calls() -> list[Builder]:
    return [
        series(
            "Calls by operation",
            "Calls per second, failed calls included. Zero while the process is alive: it hangs in a call, or has "
            "nothing to do. py-spy dump --pid PID shows which.",
            [
                Query(
                    f"sum without ({_BUT_OPERATION}) (rate({_CALLS}_count{{@c}}[$__rate_interval]))",
                    "{{messaging_operation_name}}",
                )
            ],
            unit="ops",
            link=_TRACES,
        ),
        series(
            "Calls by partition",
            "Calls per second, by partition. The highest line causes the most load.",
            [
                Query(
                    f"sum without ({_BUT_PARTITION}) (rate({_CALLS}_count{{@c}}[$__rate_interval]))",
                    "{{messaging_destination_name}}",
                )
            ],
            unit="ops",
        ),
        series(
            "Error ratio by operation",
            "Failed calls divided by all calls. Only put_samples and get_samples fail: a storage unit is the cause. "
            "All operations fail: the controller is.",
            [
                Query(
                    f'sum without ({_BUT_OPERATION}) (rate({_CALLS}_count{{@c, error_type!=""}}[$__rate_interval]))'
                    f" / "
                    f"sum without ({_BUT_OPERATION}) (rate({_CALLS}_count{{@c}}[$__rate_interval]))",
                    "{{messaging_operation_name}}",
                )
            ],
            unit="percentunit",
            link=_TRACES,
        ),
        series(
            "Errors by type",
            "Errors per second. Unavailable: the controller or a storage unit is gone. Timeout: no answer in time. "
            "NotReady: the data is not written yet, or its put failed. BadRequest: a mistake of the caller.",
            [
                Query(
                    "sum without (partition, $processes) (rate(dataplane_client_errors_total{@p}[$__rate_interval]))",
                    "{{operation}} {{error_type}}",
                )
            ],
            unit="ops",
        ),
        series(
            "Unavailable ratio",
            "Calls that fail with DataPlaneUnavailable divided by all calls, by process, over 5 minutes. Above the "
            "line: runbook DataPlaneClientUnavailable.",
            [Query("tq:client_unavailable:ratio_rate5m{@}", "")],
            unit="percentunit",
            threshold="unavailable_fast_ratio",
        ),
        series(
            "Timeout ratio",
            "Calls that time out divided by all calls, by process, over 5 minutes. Above the line: runbook "
            "DataPlaneClientTimeouts.",
            [Query("tq:client_timeout:ratio_rate5m{@}", "")],
            unit="percentunit",
            threshold="timeout_fast_ratio",
        ),
        series(
            "Latency p50 (successful calls)",
            "p50 of successful calls, by operation. All operations slow down at once: the controller is busy (runbook "
            "DataPlanePingSlow).",
            [
                Query(
                    f"histogram_quantile(0.5, sum without ({_BUT_OPERATION}) "
                    f'(rate({_CALLS}_bucket{{@c, error_type=""}}[$__rate_interval])))',
                    "{{messaging_operation_name}}",
                )
            ],
            unit="s",
            link=_TRACES,
        ),
        series(
            "Latency p99 (successful calls)",
            "p99 of successful calls, by operation. Close to the client's deadline (timeout_s): calls will time out. "
            "All operations: the controller is slow (runbook DataPlanePingSlow). put_samples and get_samples only: "
            "storage or network.",
            [
                Query(
                    f"histogram_quantile(0.99, sum without ({_BUT_OPERATION}) "
                    f'(rate({_CALLS}_bucket{{@c, error_type=""}}[$__rate_interval])))',
                    "{{messaging_operation_name}}",
                )
            ],
            unit="s",
            link=_TRACES,
        ),
        series(
            "Mean duration (all calls)",
            "Mean duration of all calls, failed calls included, by operation. Far above the p50 of successful calls: "
            "calls time out.",
            [
                Query(
                    f"sum without ({_BUT_OPERATION}) (rate({_CALLS}_sum{{@c}}[$__rate_interval]))"
                    f" / "
                    f"sum without ({_BUT_OPERATION}) (rate({_CALLS}_count{{@c}}[$__rate_interval]))",
                    "{{messaging_operation_name}}",
                )
            ],
            unit="s",
            link=_TRACES,
        ),
    ]


def _data() -> list[Builder]:
    return [
        series(
            "Throughput",
            "Tensor bytes written and read per second. Far more is read than written: samples are fetched more than "
            "once.",
            [
                Query(
                    "sum without (operation, partition, $processes) "
                    "(rate(dataplane_client_io_bytes_total{@p}[$__rate_interval]))",
                    "{{direction}}",
                )
            ],
            unit="Bps",
        ),
        series(
            "Keys",
            "Keys per second, by operation. pop: keys taken for training. evict: keys dropped, for example because "
            "they are too stale.",
            [
                Query(
                    "sum without (partition, $processes) (rate(dataplane_client_keys_total{@p}[$__rate_interval]))",
                    "{{operation}} ({{direction}})",
                )
            ],
            unit="cps",
        ),
        series(
            "Consumed lag p95",
            "Lag of claimed, popped and evicted keys, in weight versions. Above the line: the trainer gets stale "
            "samples, or evicts them.",
            [
                Query(
                    "histogram_quantile(0.95, sum without (partition, $processes) "
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
            "Keys of unknown origin",
            "Keys per second without span link and lag. Normal if another process put them without propagation.",
            [
                Query(
                    "sum without (partition, $processes) "
                    "(rate(dataplane_client_lineage_misses_total{@p}[$__rate_interval]))",
                    "{{operation}}",
                )
            ],
            unit="cps",
            width=12,
        ),
        series(
            "Telemetry failures",
            "Failures per second. They do not affect the calls. Above zero: the process's log has the cause, once.",
            [
                Query(
                    "sum without ($processes) (rate(dataplane_client_observer_failures_total{@}[$__rate_interval]))",
                    "",
                )
            ],
            unit="cps",
            width=12,
        ),
    ]
