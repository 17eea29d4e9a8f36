"""The errors that a data plane client raises (:mod:`.types`), and what becomes which (:mod:`.translation`)."""

from dataplane.errors.types import (
    ERROR_TYPES,
    OTHER_ERROR_TYPE,
    DataPlaneBadRequest,
    DataPlaneClearError,
    DataPlaneError,
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    DataPlaneWriteError,
    error_type,
)

__all__ = [
    "ERROR_TYPES",
    "OTHER_ERROR_TYPE",
    "DataPlaneBadRequest",
    "DataPlaneClearError",
    "DataPlaneError",
    "DataPlaneNotReady",
    "DataPlaneReadError",
    "DataPlaneTimeout",
    "DataPlaneUnavailable",
    "DataPlaneWriteError",
    "error_type",
]
