"""A process's attachment to TransferQueue: attach, share, start and release, without harm to the job.

``transfer_queue`` keeps its client and the controller's handle in module globals, one set per process. Its ``init``
creates a controller when it finds none, and its ``close`` always kills the controller, even another process's. So this
module attaches in its own way: it looks the named actor up and never creates it, and a release only closes sockets.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from uuid import uuid4

from dataplane.adapters.transfer_queue import mooncake
from dataplane.adapters.transfer_queue.config import check_no_master_runs
from dataplane.discovery.actor import ask_controller, find_controller
from dataplane.errors import DataPlaneNotReady
from dataplane.net.addresses import join_host_port

__all__ = [
    "YUANRONG",
    "Attachment",
    "Handover",
    "attach",
    "close_client",
    "controller_info",
    "release",
    "start",
    "unique_client_id",
]

YUANRONG = "Yuanrong"
"""TransferQueue's name of that backend."""

_POLL_S = 0.2
_END_TASKS_S = 1.0


@dataclass
class Attachment:
    """One client object of ``transfer_queue`` and what it is connected to.

    Attributes:
        client: The ``TransferQueueClient`` that the module's functions use.
        controller_id: The controller's own id.
        controller_address: Its request socket.
        storage_addresses: What the storage consists of, as messages name it, to its address; empty where unknown.
        owned: This package made the client. Otherwise other code in this process did, and must close it.
        started: This attachment started the controller and the storage, so it ends them.
        polling: The controller answers a claim at once; otherwise its only thread waits for enough samples.
        backend: TransferQueue's name of its storage, for example ``SimpleStorage``.
    """

    client: Any
    controller_id: str
    controller_address: str
    storage_addresses: dict[str, str] = field(default_factory=dict)
    owned: bool = True
    started: bool = False
    polling: bool = True
    backend: str = "SimpleStorage"


# Locked while a client is made, which may take until a cluster has started.
_making = threading.Lock()
# Locked briefly, to change the state below together with the module globals of transfer_queue.
_lock = threading.Lock()
# How many attachments use each client that this package made, by the client's id().
_users: dict[int, int] = {}


class Handover:
    """Passes an attachment from the thread that makes it to the waiting thread, which may give up first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = False
        self._offered: tuple[ModuleType, Attachment] | None = None

    def offer(self, tq: ModuleType, attachment: Attachment) -> Attachment:
        """Hand the attachment over; release it at once if the waiter has given up. Called by the maker."""
        with self._lock:
            self._offered = (tq, attachment)
            abandoned = self._abandoned
        if abandoned:
            release(tq, attachment)
        return attachment

    def abandon(self) -> None:
        """Give up waiting; release an attachment that was already offered. Called by the waiter."""
        with self._lock:
            self._abandoned = True
            offered = self._offered
        if offered is not None:
            release(*offered)


def attach(tq: ModuleType, timeout_s: float, own: Mapping[str, Any]) -> Attachment:
    """Attach to the running controller, or share the process's attachment to it. Creates nothing.

    Args:
        tq: The module ``transfer_queue``.
        timeout_s: Deadline for an answer, in seconds.
        own: What this process chooses for itself where the job's storage is Mooncake.

    Raises:
        DataPlaneUnavailable: This process is not connected to Ray, or Mooncake's master is gone.
        DataPlaneNotReady: The controller has no configuration yet: it is still starting.
        Exception: Any error of Ray and TransferQueue; Ray raises ValueError when there is no controller.
    """
    return _attach_to_actor(tq, find_controller(), own, timeout_s, timeout_s)


def start(tq: ModuleType, conf: dict[str, Any], own: Mapping[str, Any], answer_s: float, start_s: float) -> Attachment:
    """Start TransferQueue with *conf*, or attach if a controller is already running. Starts Ray if needed.

    Args:
        tq: The module ``transfer_queue``.
        conf: The configuration for ``transfer_queue.init``.
        own: See :func:`attach`.
        answer_s: Deadline for an answer from an existing controller, in seconds.
        start_s: Deadline of a start by this or another process, in seconds.
    """
    import ray

    if not ray.is_initialized():
        ray.init()
    deadline = time.monotonic() + start_s
    while True:
        try:
            handle = find_controller()
        except ValueError:
            handle = None
        left_s = deadline - time.monotonic()
        try:
            if handle is None:
                return _create(tq, conf, left_s)
            return _attach_to_actor(tq, handle, own, answer_s, left_s)
        except ray.exceptions.RayActorError:
            # The controller has just died: Ray frees its name a moment later.
            if time.monotonic() + _POLL_S >= deadline:
                raise
            time.sleep(_POLL_S)


def release(tq: ModuleType, attachment: Attachment) -> None:
    """Release an attachment: end TransferQueue if this attachment started it, else close at most its own sockets."""
    client = attachment.client
    with _lock:
        if not attachment.owned:
            return
        users = _users.pop(id(client), 1) - 1
        current = tq.interface._TQ_CLIENT is client
        ends = attachment.started and current
        if users > 0 and not ends:
            _users[id(client)] = users
            return
        if current and not ends:
            tq.interface._TQ_CLIENT = tq.interface._TQ_CONTROLLER = None
    if ends:
        try:
            _end_tasks(client)
        finally:
            _end(tq)
    else:
        close_client(client)


def close_client(client: Any) -> None:
    """Cancel what runs on a ``TransferQueueClient``'s loop and close the client, idempotently."""
    if not client._loop.is_closed():
        _end_tasks(client)
        client.close()
        mooncake.close_store(_store_of(client))


def unique_client_id() -> str:
    """Return a unique client id; TransferQueue's own ids repeat across nodes."""
    return f"dataplane_{os.getpid()}_{uuid4().hex[:8]}"


def controller_info(tq: ModuleType, controller_id: str, host: str, port: int) -> Any:
    """Return TransferQueue's description of a controller, with only its request socket."""
    role = tq.utils.enum_utils.Role.CONTROLLER
    return tq.utils.zmq_utils.ZMQServerInfo(role=role, id=controller_id, ip=host, ports={"request_handle_socket": port})


def _attach_to_actor(
    tq: ModuleType, handle: Any, own: Mapping[str, Any], answer_s: float, config_s: float
) -> Attachment:
    deadline = time.monotonic() + config_s
    while True:
        _, config = ask_controller(handle, answer_s)
        if config is not None:
            break
        if time.monotonic() + _POLL_S >= deadline:
            raise DataPlaneNotReady(f"the controller has stored no configuration within {config_s:g} s")
        time.sleep(_POLL_S)
    with _making:
        return _attach_to(tq, handle, config, own, answer_s)


def _attach_to(tq: ModuleType, handle: Any, config: Any, own: Mapping[str, Any], answer_s: float) -> Attachment:
    info = config.controller.zmq_info
    with _lock:
        client = tq.interface._TQ_CLIENT
        # A client of another controller is stale; the code that made it still closes it.
        if client is not None and client._controller.id == info.id and not client._loop.is_closed():
            attachment = _describe(client, config)
            attachment.owned = id(client) in _users
            if attachment.owned:
                _users[id(client)] += 1
            return attachment
    _end_left_over_storage(tq, handle)
    backend = config.backend.storage_backend
    options = config.backend[backend]
    if backend == mooncake.BACKEND:
        options.update(own)
        mooncake.check_master(options, answer_s)
    client = tq.TransferQueueClient(client_id=unique_client_id(), controller_info=info)
    try:
        client.initialize_storage_manager(manager_type=backend, config=options)
    except BaseException:
        client.close()
        raise
    with _lock:
        tq.interface._TQ_CLIENT, tq.interface._TQ_CONTROLLER = client, handle
        _users[id(client)] = 1
    return _describe(client, config)


def _describe(client: Any, config: Any) -> Attachment:
    info = config.controller.zmq_info
    backend = config.backend.storage_backend
    options = config.backend[backend] or {}
    units = dict(options.get("zmq_info") or {}).values()
    storage = {f"storage unit {unit.id}": unit.to_addr("put_get_socket") for unit in units}
    master = mooncake.master_address(options) if backend == mooncake.BACKEND else None
    if master is not None:
        storage[mooncake.MASTER] = master
    worker = _yuanrong_worker(options) if backend == YUANRONG else None
    if worker is not None:
        storage["the Yuanrong worker of this node"] = worker
    polling = bool(config.controller.polling_mode)
    return Attachment(client, info.id, info.to_addr("request_handle_socket"), storage, polling=polling, backend=backend)


def _yuanrong_worker(options: Mapping[str, Any]) -> str | None:
    """Return the address of this node's worker, which Yuanrong's client finds in the same way; None if it is gone."""
    from transfer_queue.utils.yuanrong_utils import find_reachable_host

    port = int(options["worker_port"])
    host = find_reachable_host(port)
    return None if host is None else f"tcp://{join_host_port(host, port)}"


def _create(tq: ModuleType, conf: dict[str, Any], timeout_s: float) -> Attachment:
    check_no_master_runs(conf)
    options = conf["backend"].get(mooncake.BACKEND)
    if options is not None and not options.get("auto_init"):
        mooncake.check_master(options, timeout_s)
    from omegaconf import OmegaConf

    with _making:
        _forget_dead(tq)
        try:
            tq.init(OmegaConf.create(conf))
            client, handle = tq.interface._TQ_CLIENT, tq.interface._TQ_CONTROLLER
            attachment = _describe(client, ask_controller(handle, timeout_s)[1])
        except BaseException as error:
            _undo_init(tq, error)
            raise
        # Two processes may race to create the controller. The loser attaches to the winner's; only the winner has
        # storage.
        attachment.started = tq.interface._TQ_STORAGE is not None
        with _lock:
            _users[id(client)] = 1
        return attachment


def _end_tasks(client: Any) -> None:
    """Cancel the tasks on a client's loops, which TransferQueue's close leaves pending.

    A failed put leaves its requests to the other storage units running, one that was cut off its notice to the
    controller, which has a loop of its own.
    """

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_END_TASKS_S) if tasks else None

    for loop in (client._loop, getattr(getattr(client, "storage_manager", None), "_notify_loop", None)):
        if loop is not None and loop.is_running():
            with contextlib.suppress(concurrent.futures.TimeoutError):
                asyncio.run_coroutine_threadsafe(end(), loop).result(timeout=2 * _END_TASKS_S)


def _end(tq: ModuleType) -> None:
    """End what the module's globals refer to: this process's storage units, its client and the controller."""
    client, storage = tq.interface._TQ_CLIENT, tq.interface._TQ_STORAGE
    if client is not None and client._loop.is_closed():
        tq.interface._TQ_CLIENT = client = None  # a closed client would raise, and keep the controller alive
    tq.close()
    if client is not None:
        mooncake.close_store(_store_of(client))
    mooncake.end_master(storage)


def _store_of(client: Any) -> Any:
    """Return TransferQueue's client of a key-value store, which its own close leaves open; None where there is none."""
    return getattr(getattr(client, "storage_manager", None), "storage_client", None)


def _undo_init(tq: ModuleType, error: BaseException) -> None:
    """Clean up after a ``transfer_queue.init`` that raised *error*, without touching other processes."""
    # The frames refer to storage units that were made before the failure. An actor ends with its last handle.
    traceback.clear_frames(error.__traceback__)
    if tq.interface._TQ_STORAGE is not None:  # only the process that made the controller has storage
        _end(tq)
        return
    with _lock:
        client = tq.interface._TQ_CLIENT
        tq.interface._TQ_CLIENT = tq.interface._TQ_CONTROLLER = None
    if client is not None:
        close_client(client)


def _end_left_over_storage(tq: ModuleType, handle: Any) -> None:
    """End storage units that this process started for a controller that was replaced by *handle*.

    The module's globals will be overwritten, and nothing else would end these units.
    """
    with _lock:
        started_for = tq.interface._TQ_CONTROLLER
        if not tq.interface._TQ_STORAGE or started_for is None or started_for == handle:
            return
        # The code that made that client closes it.
        tq.interface._TQ_CLIENT = tq.interface._TQ_CONTROLLER = None
    _end(tq)


def _forget_dead(tq: ModuleType) -> None:
    """Clear the module's globals, which refer to a controller that is gone."""
    if tq.interface._TQ_STORAGE:
        _end(tq)  # storage units that this process started and that outlived their controller
    tq.interface._TQ_CLIENT = tq.interface._TQ_STORAGE = tq.interface._TQ_CONTROLLER = None
