"""Calls TransferQueue with a deadline, which it does not have itself, and finds out why an answer is missing.

TransferQueue's calls hang for ever when their peer is gone. A coroutine on its client's event loop can be cancelled,
which releases its socket. A plain callable cannot, so it runs on one of a few daemon threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import threading
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final, TypeVar

from dataplane.adapters.checkpoints import DATA_OPERATIONS
from dataplane.config import check_seconds
from dataplane.errors import DataPlaneBadRequest, DataPlaneError, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.errors.translation import ATTACH, error_class, unwrap
from dataplane.net.probe import ConnectionProbe

__all__ = ["BoundedThreads", "TransferQueueCalls"]

T = TypeVar("T")

# How long the caller waits beyond a coroutine's deadline: the loop needs a moment to cancel it.
_CANCEL_GRACE_S = 1.0
# How long the probe may take for a peer that it is not connected to yet.
_VERDICT_WAIT_S = 0.5
_VERDICTS_TOTAL_S = 2.0

# The longest deadline: the standard library's waits overflow far beyond it.
_LONGEST_S = 10 * 86400.0

_MUTATIONS: Final = frozenset(
    {"register_partition", "claim_meta", "put_samples", "clear_samples", "save_checkpoint", "load_checkpoint"}
)


class BoundedThreads:
    """Runs blocking callables with a deadline on at most *size* daemon threads, even if they hang."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = threading.BoundedSemaphore(size)

    def start(self, fn: Callable[[], T], timeout_s: float) -> concurrent.futures.Future[T]:
        """Start *fn* as soon as a thread is free.

        Raises:
            TimeoutError: No thread became free within *timeout_s* seconds: all of them hang.
            RuntimeError: The system cannot start a thread, or the interpreter is shutting down.
        """
        if not self._free.acquire(timeout=max(0.0, timeout_s)):
            raise TimeoutError(f"{self._size} earlier calls still hang")
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._work, fn, future), name="dataplane-blocking-call", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self._free.release()
            raise
        return future

    def _work(self, fn: Callable[[], T], future: concurrent.futures.Future[T]) -> None:
        try:
            result = fn()
        except BaseException as error:  # passed on to the caller
            self._free.release()
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # its caller has given up
                future.set_exception(error)
        else:
            self._free.release()
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                future.set_result(result)


# Shared by the process: a caller that makes a new client after each failure must not leave more threads behind. Closing
# uses separate threads, so that attach attempts that hang do not block it.
_THREADS = BoundedThreads(4)
_CLOSING = BoundedThreads(4)


class TransferQueueCalls:
    """Base class for calls to TransferQueue: deadline, error translation, and whether a silent peer is gone.

    Args:
        timeout_s: Default deadline of a call, in seconds.

    Raises:
        ValueError: *timeout_s* is not a positive, finite number.
    """

    def __init__(self, tq: ModuleType, *, timeout_s: float) -> None:
        self._tq = tq
        self._timeout_s = check_seconds("timeout_s", timeout_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._used = False
        self._lock = threading.Lock()
        self._in_flight: set[concurrent.futures.Future[Any]] = set()
        self._controller_probe: ConnectionProbe | None = None
        self._storage_probes: dict[str, ConnectionProbe] = {}
        self._probe_first = False

    def _watch(
        self,
        loop: asyncio.AbstractEventLoop,
        controller_address: str,
        storage_addresses: Mapping[str, str],
        *,
        probe_first: bool = False,
    ) -> None:
        """Set the loop that coroutines run on, and the peers that are probed after a timeout.

        Args:
            loop: TransferQueue's event loop.
            controller_address: The controller's request socket.
            storage_addresses: What the storage consists of, by the name that messages use.
            probe_first: Probe the storage also before each call that needs it.
        """
        self._loop = loop
        self._controller_probe = ConnectionProbe(controller_address)
        self._storage_probes = {name: ConnectionProbe(address) for name, address in storage_addresses.items()}
        self._probe_first = probe_first

    def _call_tq(
        self,
        operation: str,
        fn: Callable[[], Any],
        default_error: type[DataPlaneError],
        *,
        timeout_s: float | None = None,
        partition_id: str | None = None,
        storage: bool = False,
    ) -> Any:
        """Run *fn* within a deadline. Raises only DataPlaneError.

        Args:
            operation: Name of the public method.
            fn: A plain callable, or one that returns a coroutine of TransferQueue's async API. Prefer an ``async def``:
                it runs on TransferQueue's loop and needs no thread.
            default_error: The error for failures that are not in the translation table.
            timeout_s: Deadline in seconds, None for the client's own.
            partition_id: The partition that the call is about.
            storage: Whether the call also needs the storage units, so that they may cause a missing answer.
        """
        deadline_s = min(self._timeout_s if timeout_s is None else timeout_s, _LONGEST_S)
        self._used = self._used or operation in DATA_OPERATIONS
        try:
            if self._closed:
                raise DataPlaneUnavailable("this client is closed: make a new one")
            gone = self._storage_gone() if storage and self._probe_first else None
            if gone is not None:
                raise DataPlaneUnavailable(gone)
            return self._run(fn, deadline_s)
        except DataPlaneError as error:
            error.operation = error.operation or operation
            error.partition_id = error.partition_id if error.partition_id is not None else partition_id
            raise
        except Exception as error:
            raise self._explain(
                error,
                operation=operation,
                default_error=default_error,
                deadline_s=deadline_s,
                partition_id=partition_id,
                storage=storage,
            ) from error

    def _close(self, give_back: Callable[[], None], timeout_s: float) -> None:
        """Close the client: end its calls, then run *give_back* within *timeout_s* seconds, at the first close only.

        Raises:
            DataPlaneTimeout: It takes longer, and continues in its thread.
            DataPlaneBadRequest: Called from TransferQueue's own event loop, which is about to end.
            DataPlaneError: *give_back* failed.
        """
        operation = "close"
        if self._loop is not None and _running_loop() is self._loop:
            raise DataPlaneBadRequest("called from TransferQueue's own event loop, which it ends", operation=operation)
        if not self._close_calls():
            return
        deadline_s = min(timeout_s, _LONGEST_S)
        ends = time.monotonic() + deadline_s
        try:
            try:
                future = _CLOSING.start(give_back, deadline_s)
            except RuntimeError:  # at interpreter shutdown, when an exit handler closes the client
                give_back()
            else:
                future.result(timeout=max(0.0, ends - time.monotonic()))
        except Exception as error:
            kind = error_class(error, operation, DataPlaneError)
            message = f"{type(error).__name__}: {error}"
            if kind is DataPlaneTimeout:
                message = f"closing did not end within {deadline_s:g} s; it continues in the background"
            raise kind(message, operation=operation) from error

    def _close_calls(self) -> bool:
        """Refuse new calls and end those in flight with DataPlaneUnavailable.

        Returns:
            Whether this was the first call. The first caller releases the resources.
        """
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            in_flight = list(self._in_flight)
        for future in in_flight:
            future.cancel()
        for probe in (self._controller_probe, *self._storage_probes.values()):
            if probe is not None:
                probe.close()
        return True

    def _run(self, fn: Callable[[], Any], deadline_s: float) -> Any:
        if inspect.iscoroutinefunction(fn):
            return self._run_on_loop(fn(), deadline_s)
        ends = time.monotonic() + deadline_s
        result = self._wait(_THREADS.start(fn, deadline_s), ends - time.monotonic())
        if inspect.iscoroutine(result):
            return self._run_on_loop(result, ends - time.monotonic())
        return result

    def _run_on_loop(self, coroutine: Any, deadline_s: float) -> Any:
        loop = self._loop
        if loop is None or loop.is_closed():
            coroutine.close()
            raise RuntimeError("Event loop is closed")
        if _running_loop() is loop:
            coroutine.close()
            raise DataPlaneBadRequest("called from TransferQueue's own event loop, which the call would block")
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, max(0.0, deadline_s)), loop)
        return self._wait(future, max(0.0, deadline_s) + _CANCEL_GRACE_S)

    def _wait(self, future: concurrent.futures.Future[Any], timeout_s: float) -> Any:
        with self._lock:
            self._in_flight.add(future)
        try:
            if self._closed:  # closed since the check: so cancel it here
                future.cancel()
            return future.result(timeout=max(0.0, timeout_s))
        finally:
            future.cancel()  # no effect if it is done
            with self._lock:
                self._in_flight.discard(future)

    def _explain(
        self,
        error: Exception,
        *,
        operation: str,
        default_error: type[DataPlaneError],
        deadline_s: float,
        partition_id: str | None,
        storage: bool,
    ) -> DataPlaneError:
        cause = unwrap(error)
        loop_has_ended = self._loop is not None and not self._loop.is_running()
        if self._closed or loop_has_ended or isinstance(error, concurrent.futures.CancelledError):
            return DataPlaneUnavailable(
                "the client was closed before the call ended: make a new one" + _outcome(operation),
                operation=operation,
                partition_id=partition_id,
            )
        kind = error_class(error, operation, default_error)
        # Only the first line: Ray's messages have many paragraphs, and the cause still has them.
        message = (str(cause).strip().splitlines() or [f"no answer within {deadline_s:g} s"])[0]
        if kind is DataPlaneTimeout:
            gone = self._who_is_gone(storage)
            if gone is not None:
                kind, message = DataPlaneUnavailable, f"{gone}; {message}"
            message += _outcome(operation)
        elif not isinstance(cause, RuntimeError | ValueError):
            message = f"{type(cause).__name__}: {message}"
        if operation == ATTACH and kind in (DataPlaneTimeout, DataPlaneUnavailable):
            message += "; attach again when TransferQueue runs"
        return kind(message, operation=operation, partition_id=partition_id)

    def _who_is_gone(self, storage: bool) -> str | None:
        """Return which peer of the unanswered call is gone, and the remedy; None when none is known to be gone."""
        if self._controller_probe is not None and self._controller_probe.verdict(_VERDICT_WAIT_S) == "gone":
            return (
                f"the controller at {self._controller_probe.address} is gone: "
                "close this client, and make a new one when TransferQueue runs again, "
                "in a new process if Ray was restarted too"
            )
        return self._storage_gone() if storage else None

    def _storage_gone(self) -> str | None:
        ends = time.monotonic() + _VERDICTS_TOTAL_S
        for name, probe in self._storage_probes.items():
            wait_s = min(_VERDICT_WAIT_S, ends - time.monotonic())
            if wait_s > 0 and probe.verdict(wait_s) == "gone":
                return (
                    f"{name} at {probe.address} is gone, and TransferQueue does not replace it: "
                    "restart TransferQueue, then make a new client"
                )
        return None


def _outcome(operation: str) -> str:
    return "; outcome unknown, it may have happened" if operation in _MUTATIONS else ""


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
