"""The sources: each asks the data plane one kind of question and returns ``Ok`` or ``Failed``.

A source never raises, never keeps a result, and knows nothing of schedules. A file per source.
"""

from exporter.polling.sources.discovery import DiscoverySource
from exporter.polling.sources.metadata import MetadataSource
from exporter.polling.sources.ping import PingSource
from exporter.polling.sources.storage import StorageSource

__all__ = ["DiscoverySource", "MetadataSource", "PingSource", "StorageSource"]
