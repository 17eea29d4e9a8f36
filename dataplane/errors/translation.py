"""The one table that turns what TransferQueue, Ray and ZMQ raise into the errors of :mod:`dataplane.errors`.

Types are matched by their qualified name, so that reading the table imports neither Ray nor TransferQueue. The
messages are those of TransferQueue 0.1.11; most of its failures are a bare RuntimeError or ValueError that only
its message tells apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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

__all__ = ["ATTACH", "ROWS", "STORE_CODES", "Row", "error_class", "store_code", "unwrap"]

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
        wrapper: TransferQueue says this of any failure: if the error has a cause in the table, that one decides.
    """

    types: tuple[str, ...]
    error: type[DataPlaneError] | None
    phrase: str = ""
    operation: str = ""
    wrapper: bool = False


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
    Row(("builtins.RuntimeError",), DataPlaneUnavailable, "[RPC unavailable]"),  # Yuanrong's worker is gone
    Row(("builtins.AssertionError",), DataPlaneUnavailable, "has not been initialized"),
    Row(("builtins.AssertionError",), DataPlaneUnavailable, "Please initialize the TransferQueue first"),
    Row(("builtins.ValueError",), DataPlaneNotReady, "Some fields are not ready in all the requested keys"),
    # The controller's own wait for enough samples; only without its polling mode.
    Row(("builtins.RuntimeError",), DataPlaneNotReady, "GET_META failed: TimeoutError"),
    Row(("transfer_queue.storage.simple_storage.StorageKeyNotFoundError",), DataPlaneReadError),
    Row(("builtins.RuntimeError",), DataPlaneReadError, "Error getting data from storage unit", wrapper=True),
    Row(("builtins.RuntimeError",), DataPlaneWriteError, "Error in put to storage unit", wrapper=True),
    Row(("builtins.RuntimeError",), DataPlaneWriteError, "Storage capacity exceeded"),
    Row(("builtins.RuntimeError",), DataPlaneClearError, "Error in clear", wrapper=True),
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


STORE_CODES: Final[Mapping[int, tuple[type[DataPlaneError], str]]] = {
    -900: (DataPlaneUnavailable, "the store's master is gone"),
    -800: (DataPlaneUnavailable, "a transfer failed: the segment that holds or takes the values is gone"),
    -901: (DataPlaneTimeout, "the store's master did not answer"),
    -200: (DataPlaneWriteError, "no segment of the store has room left"),
    -704: (
        DataPlaneReadError,
        "lost: the store no longer has these values, because a segment left or they were evicted",
    ),
    -600: (DataPlaneBadRequest, "the store refused them as invalid"),
}
"""What Mooncake's error codes mean (mooncake-transfer-engine 0.3.13). Of several in one error the first here decides.

TransferQueue raises them as a bare RuntimeError.
"""

_CODES: Final = re.compile(r"\berror codes? \[?(-?\d+(?:, -?\d+)*)")


def store_code(error: BaseException) -> int | None:
    """Return the code of the store that *error* is about, None if it names none of :data:`STORE_CODES`."""
    found = _CODES.search(str(error)) if isinstance(error, RuntimeError) else None
    codes = {int(code) for code in found[1].split(", ")} if found else set()
    return next((code for code in STORE_CODES if code in codes), None)


def error_class(error: BaseException, operation: str, default_error: type[DataPlaneError]) -> type[DataPlaneError]:
    """Return the class that *error*, raised by *operation*, translates to.

    What no row matches may be TransferQueue's wrapping of something that one does: its cause decides then, unless
    that is the caller's mistake, since it is TransferQueue that called it. Else it is *default_error*.
    """
    seen: BaseException | None = unwrap(error)
    first, wrapper = True, None
    while seen is not None:
        if isinstance(seen, DataPlaneError):  # ours, from another process
            return type(seen)
        code = store_code(seen)
        if code is not None:
            return STORE_CODES[code][0]
        row = _row(seen, operation)
        if row is not None and (first or row.error is not DataPlaneBadRequest):
            if not row.wrapper:
                return row.error or default_error
            wrapper = wrapper or row
        seen, first = seen.__cause__, False
    return default_error if wrapper is None or wrapper.error is None else wrapper.error


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
