"""The typed client API of the data plane: see :mod:`dataplane.interfaces`.

Importing this package loads neither Ray, torch, TransferQueue nor OpenTelemetry.
"""

from typing import TYPE_CHECKING, Any

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
from dataplane.interfaces import (
    DataPlaneClient,
    DataPlaneConfig,
    KVBatchMeta,
    MetadataReader,
    MooncakeCpuConfig,
    ObservabilityConfig,
    SimpleStorageConfig,
)
from dataplane.layout import materialize

if TYPE_CHECKING:
    from dataplane.observability import MetricsDataPlaneClient, log_event

__all__ = [
    "DataPlaneBadRequest",
    "DataPlaneCapabilities",
    "DataPlaneClearError",
    "DataPlaneClient",
    "DataPlaneConfig",
    "DataPlaneError",
    "DataPlaneGroupMeta",
    "DataPlaneNotReady",
    "DataPlaneReadError",
    "DataPlaneTimeout",
    "DataPlaneUnavailable",
    "DataPlaneWriteError",
    "KVBatchMeta",
    "MetadataReader",
    "MetricsDataPlaneClient",
    "MooncakeCpuConfig",
    "ObservabilityConfig",
    "SimpleStorageConfig",
    "build_data_plane_client",
    "log_event",
    "materialize",
    "publish_endpoint",
]

_LAZY = frozenset({"MetricsDataPlaneClient", "log_event"})


def __getattr__(name: str) -> Any:
    """Import what needs OpenTelemetry when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dataplane import observability

    return getattr(observability, name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | _LAZY)
