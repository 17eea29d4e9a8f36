"""The panels about storage units, of the dashboard *Exporter and TQ health*."""

from __future__ import annotations

from dashboards.panels import Builder, Word, series, timeline, value
from dashboards.queries import Query

__all__ = ["storage_panels"]


def storage_panels() -> list[Builder]:
    """Return the panels."""
    return [
        value(
            "Storage units that do not answer",
            "Storage units that discovery named and that did not answer the last poll. Above zero: runbooks "
            "DataPlaneStorageUnitLost and DataPlaneStorageUnitSilent.",
            [
                Query(
                    "count without (storage_unit, unit_id) (dataplane_storage_info{@}) "
                    "- sum without (storage_unit) (dataplane_storage_up{@})"
                )
            ],
            limits=((None, "green"), (1, "red")),
            width=24,
        ),
        series(
            "Keys and capacity",
            "Keys and capacity of each storage unit. A unit that disappears here does not answer.",
            [
                Query("dataplane_storage_keys{@}", "unit {{storage_unit}} keys"),
                Query("dataplane_storage_capacity{@}", "unit {{storage_unit}} capacity"),
            ],
            width=6,
        ),
        series(
            "Utilization",
            "Keys divided by capacity, by unit. Above the line (storage_used_ratio): runbook DataPlaneNearCapacity.",
            [Query("dataplane_storage_utilization_ratio{@}", "unit {{storage_unit}}")],
            unit="percentunit",
            threshold="storage_used_ratio",
            width=6,
        ),
        series(
            "Time until full",
            "Time until a unit is full, at the growth rate of the last 30 minutes, if that is less than a day. No "
            "data: no unit is full within a day. Below the line (storage_full_in_seconds): runbook DataPlaneFullSoon.",
            [Query("tq:storage_full:in_seconds{@} < 86400", "unit {{storage_unit}}")],
            unit="s",
            threshold="storage_full_in_seconds",
            width=6,
        ),
        series(
            "Storage unit memory",
            "Resident memory of each unit's process. Near the node's limit: the kernel soon kills the process, and its "
            "data is lost.",
            [Query("dataplane_storage_memory_bytes{@}", "unit {{storage_unit}}")],
            unit="bytes",
            width=6,
        ),
        timeline(
            "Storage unit up",
            "up: the unit answered the last poll. DOWN: it is gone (runbook DataPlaneStorageUnitLost) or silent, for "
            "example while it writes a checkpoint (runbook DataPlaneStorageUnitSilent).",
            [Query("dataplane_storage_up{@}", "unit {{storage_unit}}")],
            [Word(0, "DOWN", "red"), Word(1, "up", "green")],
            width=6,
        ),
        series(
            "Requests of storage units",
            "Requests per second of all units together, by operation. completed: measured by TransferQueue, only if "
            "metrics.enabled. If arrived stays above completed, requests hang.",
            [
                Query(
                    "sum without (storage_unit) (rate(dataplane_storage_requests_arrived_total{@}[$__rate_interval]))",
                    "{{operation}} arrived",
                ),
                Query(
                    "sum without (storage_unit) "
                    "(rate(dataplane_storage_requests_completed_total{@}[$__rate_interval]))",
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
                    "rate(dataplane_storage_requests_duration_seconds_total{@}[$__rate_interval])"
                    " / rate(dataplane_storage_requests_completed_total{@}[$__rate_interval])",
                    "unit {{storage_unit}} {{operation}}",
                )
            ],
            unit="s",
            width=6,
        ),
        series(
            "Unlisted keys",
            "Keys in all units that no partition lists: samples put without keys, or leaked data. Growing: runbook "
            "DataPlaneStorageLeaking.",
            [Query("dataplane_storage_keys_unlisted{@}")],
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
            "Values on SSD and in memory",
            "Values on SSD, and values that stay in memory because they cannot be encoded. No data: SSD offload is "
            "off.",
            [
                Query("dataplane_storage_ssd_values{@}", "unit {{storage_unit}} on SSD"),
                Query("dataplane_storage_ssd_fallbacks{@}", "unit {{storage_unit}} in memory"),
            ],
            width=6,
        ),
        series(
            "Accept queue peak",
            "Highest occupancy of the accept queue of a unit's socket. Near 100 %: connections are lost. No data: "
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
            "Objects per second that Mooncake evicted (runbook DataPlaneStorageEvicting), that found no room (runbook "
            "DataPlaneStorageAllocationsFailing), or that were missing when they were read. No data: other storage.",
            [
                Query("rate(dataplane_storage_evicted_objects_total{@}[$__rate_interval])", "evicted"),
                Query("rate(dataplane_storage_allocation_failures_total{@}[$__rate_interval])", "no room"),
                Query("rate(dataplane_storage_lookup_misses_total{@}[$__rate_interval])", "missing"),
            ],
            width=8,
        ),
        series(
            "Mooncake evictions",
            "Bytes per second that Mooncake evicted. Above zero: listed rows are lost (runbook "
            "DataPlaneStorageEvicting).",
            [Query("rate(dataplane_storage_evicted_size_bytes_total{@}[$__rate_interval])")],
            unit="Bps",
            width=8,
        ),
        series(
            "Mooncake objects",
            "Objects in the store, one per field of a row, and processes that the master counts as clients. No data: "
            "other storage.",
            [Query("dataplane_storage_objects{@}", "objects"), Query("dataplane_storage_clients{@}", "clients")],
            width=8,
        ),
    ]
