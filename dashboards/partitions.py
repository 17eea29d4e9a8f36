"""The table of partitions: a row each, and what is in it now."""

from __future__ import annotations

from dashboards.panels import Builder, Column, Word, columns

__all__ = ["partitions_table"]

_STATES = ("ready", "taken", "incomplete", "uncommitted", "failed")


def partitions_table() -> Builder:
    """Return the panel."""
    return columns(
        "Partitions",
        "Role of each partition, the tag convention of its rows, whether it can be read, and its contents. A row "
        "without figures cannot be read. If its role is train, no alert evaluates flow: runbook "
        "DataPlanePartitionUnreadable.",
        ("run", "instance", "namespace", "cluster", "partition", "role", "convention", "reason"),
        [
            Column(
                "readable",
                "max without () (dataplane_partition_readable{@p} * ignoring (reason, role, convention) "
                "group_left (role, convention) dataplane_partition_info{@p})",
                words=[Word(0, "no", "red"), Word(1, "yes", "green")],
            ),
            *(
                Column(state, f'max without (state) (dataplane_partition_groups{{@p, state="{state}"}})')
                for state in _STATES
            ),
            Column("keys", "max without () (dataplane_partition_keys{@p})"),
            Column("keys, estimated", "max without (basis) (dataplane_partition_keys_estimated{@p})"),
            Column(
                "estimated",
                "time() - max without () (dataplane_partition_keys_estimated_timestamp_seconds{@p})",
                "s",
            ),
            Column("largest lag", "max without () (dataplane_partition_staleness_max{@p})"),
            Column("newest version", "max without () (dataplane_partition_weight_version_newest{@p})", "none"),
            Column(
                "oldest group",
                "time() - min without (state, basis) (dataplane_partition_oldest_group_created_timestamp_seconds{@p})",
                "s",
            ),
            Column("listed", "time() - dataplane_partition_listed_timestamp_seconds{@p}", "s"),
        ],
        link=(
            "partition",
            "http://${__data.fields.instance}/?partition=${__data.fields.partition:percentencode}",
        ),
    )
