"""The errors that a data plane client raises; it raises no others.

Every class derives from :class:`DataPlaneError`, so one ``except`` catches all of them, and says which
operation failed and on which partition. They pickle, because Ray carries exceptions between processes.
"""

from __future__ import annotations

from collections.abc import Callable

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


class DataPlaneError(RuntimeError):
    """Base class of every error that a data plane client raises.

    Args:
        message: What failed and, where there is one, the remedy.
        operation: Name of the public method that failed, for example ``"put_samples"``.
        partition_id: The partition that it was called on, or None when it concerns none.
    """

    def __init__(self, message: str = "", *, operation: str | None = None, partition_id: str | None = None) -> None:
        super().__init__(message)
        self.operation = operation
        self.partition_id = partition_id

    # A subclass may also derive from KeyError or OSError, whose __str__ would show repr(message) or an errno.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(
        self,
    ) -> tuple[Callable[..., DataPlaneError], tuple[type[DataPlaneError], str, str | None, str | None]]:
        return _rebuild, (type(self), str(self), self.operation, self.partition_id)


def _rebuild(
    cls: type[DataPlaneError], message: str, operation: str | None, partition_id: str | None
) -> DataPlaneError:
    return cls(message, operation=operation, partition_id=partition_id)


class DataPlaneUnavailable(DataPlaneError):
    """The controller or a storage unit is gone: dead actor, refused, reset, or the client is closed."""


class DataPlaneTimeout(DataPlaneError, TimeoutError):
    """The data plane is there and did not answer in time. The outcome of a timed-out mutation is unknown."""


class DataPlaneReadError(DataPlaneError):
    """A read or a listing failed."""


class DataPlaneWriteError(DataPlaneError):
    """A write failed."""


class DataPlaneClearError(DataPlaneError):
    """A clear, pop or evict failed."""


class DataPlaneNotReady(DataPlaneError, KeyError):
    """The data was announced but is not produced yet, or its write failed and left only its key."""


class DataPlaneBadRequest(DataPlaneError, ValueError):
    """The caller's keys, fields, partition, arguments or configuration are wrong; a retry gives the same error."""


OTHER_ERROR_TYPE = "_OTHER"
"""The ``error.type`` of an exception that is not a :class:`DataPlaneError`, as OpenTelemetry's conventions name it."""

ERROR_TYPES: tuple[str, ...] = tuple(
    cls.__name__
    for cls in (
        DataPlaneUnavailable,
        DataPlaneTimeout,
        DataPlaneReadError,
        DataPlaneWriteError,
        DataPlaneClearError,
        DataPlaneNotReady,
        DataPlaneBadRequest,
        DataPlaneError,
    )
)
"""Every ``error.type`` that one of our errors can have: a closed list, safe as a metric attribute."""

_NAMES = frozenset(ERROR_TYPES)


def error_type(error: BaseException | type[BaseException]) -> str:
    """Return the ``error.type`` of *error*: the nearest class of :data:`ERROR_TYPES`, else ``_OTHER``."""
    cls = error if isinstance(error, type) else type(error)
    for base in cls.__mro__:
        if base.__module__ == __name__ and base.__name__ in _NAMES:
            return base.__name__
    return OTHER_ERROR_TYPE
