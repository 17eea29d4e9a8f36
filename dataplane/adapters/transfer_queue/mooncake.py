"""What TransferQueue's backend MooncakeStore needs beside its public calls: a live master, its codes, an end.

Mooncake's client waits long for a master that does not answer: setting a store up takes 90 s or more and closing one
68 s, both with the interpreter's lock held, so that no deadline helps. So the master is asked before. Reads, writes and
removals release the lock; they give up after 30 s per attempt. Measured with mooncake-transfer-engine 0.3.13.
"""

from __future__ import annotations

import copy
import http.client
import logging
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from dataplane.config import storage_options
from dataplane.errors import DataPlaneTimeout, DataPlaneUnavailable
from dataplane.net.addresses import parse_address
from dataplane.net.probe import ConnectionProbe

__all__ = [
    "BACKEND",
    "MASTER",
    "check_master",
    "close_store",
    "end_master",
    "holder",
    "master_address",
    "own_options",
    "remove",
]

_log = logging.getLogger(__name__)

BACKEND: Final = "MooncakeStore"
"""TransferQueue's name of the backend."""

MASTER: Final = "the Mooncake master"

_OF_THE_PROCESS: Final = ("global_segment_size", "local_buffer_size", "device_name", "hard_pin")
"""What each process chooses for itself; the rest is the job's."""

_CHECK_S: Final = 5.0
_CLOSE_CHECK_S: Final = 2.0
_END_S: Final = 5.0

# Stores whose master did not answer when they were to be closed: their destructor would wait for it.
_left_open: list[Any] = []


def own_options(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checked *cfg* chooses for its own process when it attaches to a job's Mooncake."""
    if cfg.get("backend") not in (None, "mooncake_cpu"):
        return {}
    given = storage_options(cfg, "mooncake_cpu")
    return {key: given[key] for key in _OF_THE_PROCESS if key in given}


def master_address(options: Mapping[str, Any]) -> str | None:
    """Return the master's address of a job's *options* as ``tcp://HOST:PORT``; None where it is another kind."""
    address = f"tcp://{options.get('master_server_address')}"
    try:
        parse_address(address)
    except ValueError:  # such as etcd://, which several masters share
        return None
    return address


def check_master(options: Mapping[str, Any], timeout_s: float) -> None:
    """Raise unless the master, and the metadata server that it usually runs, answer within half of *timeout_s* seconds.

    A stopped master still accepts connections. Its metadata server shows that it is stopped; without one
    (``P2PHANDSHAKE``), nothing does.

    Raises:
        DataPlaneUnavailable: One of them is gone.
        DataPlaneTimeout: One of them does not answer.
    """
    ends = time.monotonic() + min(timeout_s / 2, _CHECK_S)  # the rest is for the set-up
    address = master_address(options)
    if address is not None:
        probe = ConnectionProbe(address)
        try:
            verdict = probe.verdict(ends - time.monotonic())
        finally:
            probe.close()
        if verdict == "gone":
            raise DataPlaneUnavailable(f"{MASTER} at {address} is gone: start it, then the job")
        if verdict == "unknown":
            raise DataPlaneTimeout(f"{MASTER} at {address} does not accept connections")
    server = str(options.get("metadata_server") or "")
    url = urlsplit(server if "://" in server else f"http://{server}")
    if url.scheme != "http" or url.hostname is None or url.port is None:
        return
    where = f"Mooncake's metadata server at {url.hostname}:{url.port}"
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=max(0.1, ends - time.monotonic()))
    try:
        connection.request("GET", "/metadata?key=tq-exporter")
        connection.getresponse()
    except TimeoutError as error:
        raise DataPlaneTimeout(f"{where} does not answer: is the master stopped?") from error
    except OSError as error:
        raise DataPlaneUnavailable(f"{where} is gone: {error}") from error
    except http.client.HTTPException:  # it is no HTTP server, which Mooncake may know how to use
        return
    finally:
        connection.close()


def close_store(storage_client: Any) -> None:
    """Close the store of a client of TransferQueue, which gives its segment back. The rows in it are lost.

    Where the master does not answer, the store stays open until the process ends, since closing it would stop the whole
    process for a minute.
    """
    store = getattr(storage_client, "_store", None)
    if store is None:
        return
    answered = threading.Event()

    def ask() -> None:
        store.is_exist("tq-exporter")
        answered.set()

    threading.Thread(target=ask, name="dataplane-mooncake-close", daemon=True).start()
    if not answered.wait(_CLOSE_CHECK_S):
        _left_open.append(store)
        storage_client._store = None
        _log.warning("%s does not answer, so this process's segment stays mounted until the process ends", MASTER)
        return
    storage_client.close()


def end_master(storage: Any) -> None:
    """End the master that TransferQueue started for this process; it never does so itself.

    Args:
        storage: What TransferQueue keeps of the storage that this process started.
    """
    started = (storage or {}).get(BACKEND)
    process = started.get("master_process") if isinstance(started, Mapping) else started
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=_END_S)
    except subprocess.TimeoutExpired:  # it is stopped
        process.kill()
        process.wait(timeout=_END_S)


def remove(storage_client: Any, names: Sequence[str], backend_meta: Sequence[Any]) -> dict[str, int]:
    """Remove objects from the store. Blocks.

    Returns:
        The code of each object that could not be removed. TransferQueue itself only logs it.
    """
    recorded = _Removals(storage_client._store)
    asking = copy.copy(storage_client)
    asking._store = recorded
    asking.clear(keys=list(names), custom_backend_meta=list(backend_meta))
    return recorded.failed


def holder(storage_client: Any, name: str) -> str | None:
    """Return the segment that holds the object *name*, None where the master does not say. Blocks."""
    try:
        replicas = storage_client._store.batch_get_replica_desc([name]).get(name, ())
        for replica in replicas:
            if replica.is_memory_replica():
                return str(replica.get_memory_descriptor().buffer_descriptor.transport_endpoint)
    except Exception:  # it only makes a message better
        return None
    return None


class _Removals:
    """A store that notes which removals failed."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.failed: dict[str, int] = {}

    def batch_remove(self, names: list[str], force: bool) -> list[int]:
        codes: list[int] = self._store.batch_remove(names, force=force)
        # -704: there is none. Nothing is left to remove then.
        self.failed.update({name: code for name, code in zip(names, codes, strict=True) if code not in (0, -704)})
        return [0] * len(codes)  # else TransferQueue logs one line per object
