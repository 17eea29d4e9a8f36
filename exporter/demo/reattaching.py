"""An actor's connection to the data plane: attaches, and attaches again after the data plane was lost."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from dataplane.errors import DataPlaneError, DataPlaneTimeout, DataPlaneUnavailable, error_type
from dataplane.factory import build_data_plane_client
from dataplane.observability import MetricsDataPlaneClient
from dataplane.recovery import wait_until_available

__all__ = ["CLIENT_CONFIG", "STORAGE_UNITS", "ReattachingClient", "attach"]

STORAGE_UNITS: Final = 2

CLIENT_CONFIG: Final[Mapping[str, Any]] = {
    "enabled": True,
    "impl": "transfer_queue",
    "backend": "simple",
    "storage_capacity": 4096,
    "num_storage_units": STORAGE_UNITS,
    "timeout_s": 5.0,
}


def attach(*, propagate: bool) -> MetricsDataPlaneClient:
    """Return an instrumented client of the TransferQueue in this process's Ray. Creates no TransferQueue.

    Args:
        propagate: Carry trace context across the queue, in one more tag.

    Raises:
        DataPlaneError: There is nothing to attach to, or it does not answer.
    """
    return MetricsDataPlaneClient(build_data_plane_client(CLIENT_CONFIG, bootstrap=False), propagate=propagate)


class _Stopped(Exception):
    """The loop ends while it waits for the data plane."""


class ReattachingClient:
    """Keeps a client attached for a loop, and counts every error.

    Args:
        make: Makes an attached client; raises DataPlaneError while there is nothing to attach to.
        stop: Set to end the loop.
        logger: Logs attaches and errors.

    Attributes:
        errors: Number of errors by ``error.type``.
        attachments: How often it attached.
        attached: Set after the first attach.
    """

    def __init__(
        self, make: Callable[[], MetricsDataPlaneClient], stop: threading.Event, logger: logging.Logger
    ) -> None:
        self.errors: Counter[str] = Counter()
        self.attachments = 0
        self.attached = threading.Event()
        self._make = make
        self._stop = stop
        self._logger = logger
        self._client: MetricsDataPlaneClient | None = None

    def client(self) -> MetricsDataPlaneClient | None:
        """Return the client. Attaches again if needed and waits for the data plane; None once *stop* is set.

        Raises:
            ValueError: The configuration is wrong. Also DataPlaneBadRequest.
        """
        if self._client is None and not self._stop.is_set():
            with contextlib.suppress(_Stopped):
                self._client = wait_until_available(self._make, math.inf, self._waiting, sleep=self._pause)
                self.attachments += 1
                self.attached.set()
                self._logger.info("attached%s", " again" if self.attachments > 1 else "")
        return None if self._stop.is_set() else self._client

    def _waiting(self, error: DataPlaneError, waited_s: float) -> None:
        self.errors[error_type(error)] += 1
        self._logger.warning("waiting for the data plane for %.1f s: %s: %s", waited_s, error_type(error), error)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _Stopped

    def failed(self, error: DataPlaneError) -> bool:
        """Count and log a call's error. Return whether the connection is lost, with all work in flight."""
        self.errors[error_type(error)] += 1
        self._logger.warning("%s: %s: %s", error.operation, error_type(error), error)
        if not isinstance(error, DataPlaneUnavailable | DataPlaneTimeout):
            return False
        self.close()
        return True

    def close(self) -> None:
        """Close the client. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(DataPlaneError):  # the connection is lost already
                client.close()
