"""The typed client API of the data plane: see :mod:`dataplane.interfaces`.

Importing this package loads neither Ray, torch nor TransferQueue.
"""

from dataplane.discovery.publish import publish_endpoint
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneClearError,
    DataPlaneError,
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    DataPlaneWriteError,
)
from dataplane.factory import build_data_plane_client
from dataplane.groups import DataPlaneCapabilities, DataPlaneGroupMeta
from dataplane.interfaces import DataPlaneClient, KVBatchMeta, MetadataReader

__all__ = [
    "DataPlaneBadRequest",
    "DataPlaneCapabilities",
    "DataPlaneClearError",
    "DataPlaneClient",
    "DataPlaneError",
    "DataPlaneGroupMeta",
    "DataPlaneNotReady",
    "DataPlaneReadError",
    "DataPlaneTimeout",
    "DataPlaneUnavailable",
    "DataPlaneWriteError",
    "KVBatchMeta",
    "MetadataReader",
    "build_data_plane_client",
    "publish_endpoint",
]
