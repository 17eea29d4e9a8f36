"""The one table that turns what TransferQueue, Ray and ZMQ raise into the errors of :mod:`dataplane.errors`.

Types are matched by their qualified name, so that reading the table imports neither Ray nor TransferQueue. The
messages are those of TransferQueue 0.1.11; most of its failures are a bare RuntimeError or ValueError that only
its message tells apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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

__all__ = ["ATTACH", "ROWS", "Row", "error_class", "unwrap"]

ATTACH: Final = "attach"
"""Name of the operation that looks the controller up."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        types: Qualified names; an error matches when its class or a base class bears one of them.
        error: What to raise; None is the default of the operation that failed.
        phrase: Text that the message must contain, word for word; empty matches any message.
        operation: The only operation that the row holds for; empty holds for all.
    """

    types: tuple[str, ...]
    error: type[DataPlaneError] | None
    phrase: str = ""
    operation: str = ""


# Python 3.10 has three of these; since 3.11 all are the builtin one.
_TIMEOUTS = ("builtins.TimeoutError", "asyncio.exceptions.TimeoutError", "concurrent.futures._base.TimeoutError")

# The first row that matches wins: a type before its bases, a phrase before the bare type.
ROWS: Final[tuple[Row, ...]] = (
    # Nobody answered when the storage manager introduced itself to the controller: it is not there to hang.
    Row(_TIMEOUTS, DataPlaneUnavailable, "Handshake with controller"),
    Row(
        (
            "transfer_queue.storage.managers.simple_storage_manager.StorageUnitTimeout",
            "ray.exceptions.GetTimeoutError",
            "zmq.error.Again",
            *_TIMEOUTS,
        ),
        DataPlaneTimeout,
    ),
    Row(("builtins.ValueError",), DataPlaneUnavailable, "Failed to look up actor", ATTACH),
    Row(
        (
            "ray.exceptions.RayActorError",
            "ray.exceptions.ActorHandleNotFoundError",  # a ValueError too
            "ray.exceptions.RaySystemError",
            "ray.exceptions.RpcError",
            "ray.exceptions.AuthenticationError",
            "ray.exceptions.LocalRayletDiedError",
            "ray.exceptions.NodeDiedError",
            "ray.exceptions.WorkerCrashedError",
            "ray.exceptions.ObjectLostError",
            "zmq.error.ZMQError",
            "builtins.OSError",
        ),
        DataPlaneUnavailable,
    ),
    Row(("builtins.RuntimeError",), DataPlaneUnavailable, "Event loop is closed"),
    Row(("builtins.AssertionError",), DataPlaneUnavailable, "has not been initialized"),
    Row(("builtins.AssertionError",), DataPlaneUnavailable, "Please initialize the TransferQueue first"),
    Row(("builtins.ValueError",), DataPlaneNotReady, "Some fields are not ready in all the requested keys"),
    # The controller's own wait for enough samples; only without its polling mode.
    Row(("builtins.RuntimeError",), DataPlaneNotReady, "GET_META failed: TimeoutError"),
    Row(("transfer_queue.storage.simple_storage.StorageKeyNotFoundError",), DataPlaneReadError),
    Row(("builtins.RuntimeError",), DataPlaneReadError, "Error getting data from storage unit"),
    Row(("builtins.RuntimeError",), DataPlaneWriteError, "Error in put to storage unit"),
    Row(("builtins.RuntimeError",), DataPlaneWriteError, "Storage capacity exceeded"),
    Row(("builtins.RuntimeError",), DataPlaneClearError, "Error in clear"),
    # Nobody's arguments: what a start or an attach trips over is the state of the cluster.
    Row(("builtins.ValueError", "builtins.KeyError", "builtins.TypeError"), None, operation=ATTACH),
    # A ValueError that is not the caller's fault: a reply that could not be decoded.
    Row(("transfer_queue.utils.zmq_utils.ZMQMessageDecodeError",), None),
    Row(
        (
            "builtins.ValueError",
            "builtins.KeyError",
            "builtins.TypeError",
            "builtins.AttributeError",
            "_pickle.PicklingError",
        ),
        DataPlaneBadRequest,
    ),
)


def error_class(error: BaseException, operation: str, default_error: type[DataPlaneError]) -> type[DataPlaneError]:
    """Return the class that *error*, raised by *operation*, translates to.

    What no row matches may be TransferQueue's wrapping of something that one does: its cause decides then, unless
    that is the caller's mistake, since it is TransferQueue that called it. Else it is *default_error*.
    """
    seen: BaseException | None = unwrap(error)
    first = True
    while seen is not None:
        if isinstance(seen, DataPlaneError):  # ours, from another process
            return type(seen)
        row = _row(seen, operation)
        if row is not None and (first or row.error is not DataPlaneBadRequest):
            return row.error or default_error
        seen, first = seen.__cause__, False
    return default_error


def unwrap(error: BaseException) -> BaseException:
    """Return what really failed: Ray raises a failed task's error as the ``cause`` of a RayTaskError."""
    while "ray.exceptions.RayTaskError" in _names(error) and isinstance(getattr(error, "cause", None), BaseException):
        error = error.cause  # type: ignore[attr-defined]
    return error


def _row(error: BaseException, operation: str) -> Row | None:
    names = _names(error)
    message = str(error)
    for row in ROWS:
        if (
            not names.isdisjoint(row.types)
            and row.phrase in message
            and (not row.operation or row.operation == operation)
        ):
            return row
    return None


def _names(error: BaseException) -> frozenset[str]:
    return frozenset(f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__)
