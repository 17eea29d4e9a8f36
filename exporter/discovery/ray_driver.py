"""Connects this process to a running Ray as a driver. Never starts a Ray.

Ray may block this thread or end the process. The caller must enforce a deadline from another thread or process.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from dataplane.errors import DataPlaneBadRequest, DataPlaneError, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.net.addresses import split_host_port
from exporter.config.addresses import ray_address
from exporter.config.values import BadValue

__all__ = ["RAY_ENVIRONMENT", "NoRayError", "connect", "discovery_error", "import_needed", "one_line"]

# Without the first, ray.get_actor starts a Ray when it finds none; the others shorten the time in which Ray
# gives up on an address that does not answer, from minutes to seconds.
RAY_ENVIRONMENT: Final[Mapping[str, str]] = {
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_gcs_rpc_server_connect_timeout_s": "1",
    "RAY_py_gcs_connect_timeout_s": "2",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables to set before Ray is imported."""

_CONNECT_TIMEOUT_S: Final = 3.0


class NoRayError(Exception):
    """No Ray runs there. ``str()`` says where it was looked for."""


def connect(address: str) -> Any:
    """Connect to the cluster at *address* as a driver and return the module ``ray``.

    Args:
        address: ``auto``, ``HOST:PORT`` of the GCS, or ``ray://HOST:PORT``.

    Raises:
        NoRayError: No Ray runs there.
        DataPlaneTimeout: The address does not accept a connection in time.
        DataPlaneUnavailable: It cannot be reached, or Ray refuses.
        DataPlaneBadRequest: Ray is not installed here, or in another version than the cluster's.
    """
    address = _resolve_auto(address)
    if address != "auto" and not _listens(address):
        raise NoRayError(f"nothing listens at {address}: no Ray there")
    ray = import_needed("ray")
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ray.exceptions.AuthenticationError as error:
        raise discovery_error(DataPlaneUnavailable, f"Ray at {address}: {one_line(error)}") from error
    except ConnectionError as error:
        if address == "auto":
            raise NoRayError("no Ray runs on this machine") from error
        raise discovery_error(DataPlaneUnavailable, f"cannot connect to Ray at {address}: {one_line(error)}") from error
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        if "Version mismatch" in str(error):
            raise discovery_error(
                DataPlaneBadRequest,
                f"{one_line(error)}; run the exporter with the cluster's versions of Ray and Python, or use "
                "--discovery-file or --controller",
            ) from error
        raise discovery_error(DataPlaneUnavailable, f"cannot connect to Ray at {address}: {one_line(error)}") from error
    return ray


def import_needed(name: str) -> Any:
    """Import the module *name*. When that fails, raise a DataPlaneBadRequest that says what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise discovery_error(
            DataPlaneBadRequest,
            f"cannot ask Ray: {error}; install tq-exporter[tq] with the cluster's versions of Ray and Python, "
            "or use --discovery-file or --controller",
        ) from error


def one_line(text: object, limit: int = 300) -> str:
    """Return *text* on one line, cut after *limit* characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def discovery_error(kind: type[DataPlaneError], message: str) -> DataPlaneError:
    """Return an error of the operation ``discover``."""
    return kind(message, operation="discover")


def _resolve_auto(address: str) -> str:
    """Return the address to use: ``auto`` becomes ``RAY_ADDRESS`` if set. ``local`` is refused: it starts a Ray."""
    own = os.environ.pop("RAY_ADDRESS", "")
    if address != "auto" or not own:
        return address
    try:
        return ray_address(own)
    except BadValue as error:
        raise discovery_error(DataPlaneBadRequest, f"RAY_ADDRESS: {error}") from error


def _listens(address: str) -> bool:
    """Return whether something accepts connections there. Without this check Ray would retry for minutes."""
    host, port = split_host_port(address.removeprefix("ray://"))
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except (ConnectionRefusedError, socket.gaierror):
        return False
    except TimeoutError as error:
        raise discovery_error(DataPlaneTimeout, f"{address} did not accept a connection") from error
    except OSError as error:
        raise discovery_error(DataPlaneUnavailable, f"cannot reach {address}: {error.strerror or error}") from error
    return True
