"""Snapshots of partitions that are filled evenly, for benchmarks of the outputs."""

from __future__ import annotations

from dataplane.groups import DataPlaneGroupMeta
from dataplane.partitions import ByName
from exporter.clock import SystemClock
from exporter.config import Partition
from exporter.model.partitions import Partitions
from exporter.model.results import MetadataPoll, PartitionListing
from exporter.model.snapshot import Snapshot

__all__ = ["GROUP_KEYS", "PARTITIONS", "VERSIONS", "filled", "groups_of", "partitions_of", "snapshot_of"]

PARTITIONS = 4
VERSIONS = 16
GROUP_KEYS = 16


def groups_of(keys: int, *, newest: int, partitions: int = PARTITIONS) -> dict[str, list[DataPlaneGroupMeta]]:
    """Return *keys* keys in groups, spread evenly over the partitions and the newest versions."""
    by_partition: dict[str, list[DataPlaneGroupMeta]] = {f"p{index}": [] for index in range(partitions)}
    for index in range(keys // GROUP_KEYS):
        partition = f"p{index % partitions}"
        version = newest - (index // partitions) % VERSIONS
        group_id = f"v{version}-{index}"
        members = [f"{group_id}_g{member}" for member in range(GROUP_KEYS)]
        group = DataPlaneGroupMeta(
            partition, group_id, members, version, created_at=1.7e9, committed=True, size_bytes=4096
        )
        by_partition[partition].append(group)
    return by_partition


def partitions_of(count: int = PARTITIONS) -> Partitions:
    """Return the state of as many partitions, each with a label of its own."""
    settings = ByName({f"p{index}": Partition() for index in range(count)})
    return Partitions(SystemClock(), settings=settings, max_partitions=100, max_versions=VERSIONS)


def snapshot_of(groups: dict[str, list[DataPlaneGroupMeta]], partitions: Partitions | None = None) -> Snapshot:
    """Return the snapshot after a listing of these groups."""
    partitions = partitions or partitions_of(len(groups))
    listings = tuple(PartitionListing(name, members, 0.0, "recovery", GROUP_KEYS) for name, members in groups.items())
    partitions.take_in(MetadataPoll(tuple(groups), listings, (), None, 0.0, None), keep_s=60.0)
    return Snapshot(
        1.7e9,
        1.7e9 - 60,
        "found",
        True,
        True,
        partitions=partitions.states(),
        statuses=partitions.statuses(),
        flows=partitions.flows(),
        role_flows=partitions.role_flows(),
    )


def filled(partitions: int) -> Snapshot:
    """Return a snapshot of partitions with one group of each weight version."""
    keys = partitions * VERSIONS * GROUP_KEYS
    return snapshot_of(groups_of(keys, newest=VERSIONS - 1, partitions=partitions))
