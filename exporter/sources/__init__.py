"""The sources: each asks the data plane one kind of question and returns ``Ok`` or ``Failed``.

A source never raises, never keeps a result, and knows nothing of schedules. A file per source.
"""

from exporter.sources.discovery import DiscoverySource
from exporter.sources.metadata import MetadataPoll, MetadataSource, PartitionFailure, PartitionListing
from exporter.sources.ping import PingSource
from exporter.sources.storage import StorageFailure, StoragePoll, StorageSource

__all__ = [
    "DiscoverySource",
    "MetadataPoll",
    "MetadataSource",
    "PartitionFailure",
    "PartitionListing",
    "PingSource",
    "StorageFailure",
    "StoragePoll",
    "StorageSource",
]
