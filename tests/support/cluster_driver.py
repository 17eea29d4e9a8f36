"""The process that owns a test's Ray and TransferQueue: one JSON command per line in, one JSON answer out.

Started by :class:`tests.support.cluster.TQCluster`, possibly under another interpreter with another
TransferQueue, so it imports nothing from this repository. Its arguments are modules that the workers need.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

import forked_worker  # type: ignore[import-not-found]  # beside this file
import torch
from tensordict import TensorDict

# In the cluster's folder, and without two processes that no test needs and that cost 2 s of CPU time.
forked_worker.install("workers", sys.argv[1:], no_monitor=True, include_log_monitor=False)

import ray  # noqa: E402
import transfer_queue as tq  # noqa: E402

_NAME, _NAMESPACE = "TransferQueueController", "transfer_queue"


class Driver:
    """The commands. Every public method is one; its keyword arguments and its result are JSON."""

    def __init__(self) -> None:
        self._pids: list[int] = []

    def ray_init(self, temp_dir: str, num_cpus: int) -> dict[str, Any]:
        context = ray.init(
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=temp_dir,
            object_store_memory=80 * 2**20,
        )
        versions = {"ray": ray.__version__, "transfer_queue": tq.__version__, "python": sys.version.split()[0]}
        return {"ray_address": context.address_info["gcs_address"], "versions": versions}

    def start_tq(
        self,
        storage_units: int,
        capacity: int | None,
        polling_mode: bool,
        sampler: str,
        metrics: bool,
        mooncake: dict[str, Any] | None,
    ) -> dict[str, Any]:
        from omegaconf import OmegaConf

        self.stop_tq()  # init() would attach to what a test's own program has left
        backend = {
            "storage_backend": "SimpleStorage",
            "SimpleStorage": {"total_storage_size": capacity, "num_data_storage_units": storage_units},
        }
        if mooncake is not None:
            backend = {"storage_backend": "MooncakeStore", "MooncakeStore": {"auto_init": False, **mooncake}}
        conf = {
            "controller": {"polling_mode": polling_mode, "sampler": sampler},
            "metrics": {"enabled": metrics},
            "backend": backend,
        }
        tq.init(OmegaConf.create(conf))
        return self.describe()

    def describe(self) -> dict[str, Any]:
        controller = ray.get_actor(_NAME, namespace=_NAMESPACE)
        conf = ray.get(controller.get_config.remote(), timeout=30)
        info = conf.controller.zmq_info
        units = tq.interface._TQ_STORAGE.get("SimpleStorage", {})
        zmq_infos = dict(conf.backend.SimpleStorage.zmq_info or {})
        answer: dict[str, Any] = {
            "controller": {
                "id": info.id,
                "address": info.to_addr("request_handle_socket"),
                "actor_id": controller._actor_id.hex(),
                "pid": _pid(controller),
            },
            "storage_units": [
                {
                    "index": int(name.rpartition("#")[2]),
                    "id": zmq_infos[name].id,
                    "address": zmq_infos[name].to_addr("put_get_socket"),
                    "pid": _pid(handle),
                }
                for name, handle in units.items()
            ],
            "metrics_endpoint": (conf.get("metrics") or {}).get("endpoint"),
        }
        self._pids = [answer["controller"]["pid"], *(unit["pid"] for unit in answer["storage_units"])]
        return answer

    def stop_tq(self) -> None:
        """Kill TransferQueue's actors, frozen or not, and forget them, so that it can be started again."""
        interface = tq.interface
        handles = [interface._TQ_CONTROLLER, *((interface._TQ_STORAGE or {}).get("SimpleStorage") or {}).values()]
        if interface._TQ_CLIENT is not None:
            interface._TQ_CLIENT.close()
            close_store = getattr(getattr(interface._TQ_CLIENT.storage_manager, "storage_client", None), "close", None)
            if close_store is not None:
                close_store()
        interface._TQ_CLIENT = interface._TQ_STORAGE = interface._TQ_CONTROLLER = None
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pids = []
        for handle in handles:
            if handle is not None:
                ray.kill(handle)
        _free_names()

    def put(
        self, partition_id: str, keys: list[str], tags: list[dict[str, Any]] | None, fields: list[str] | None
    ) -> None:
        data = None
        if fields:
            data = TensorDict({name: _tokens(len(keys)) for name in fields}, batch_size=[len(keys)])
        tq.kv_batch_put(keys=keys, partition_id=partition_id, fields=data, tags=tags)

    def list_rows(self, partition_id: str | None) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = tq.kv_list(partition_id=partition_id)
        return rows

    def clear_all(self) -> None:
        client = tq.get_client()
        store = getattr(getattr(client.storage_manager, "storage_client", None), "_store", None)
        if store is not None:  # TransferQueue's own clear of a partition fails for rows with different fields
            store.remove_all(force=True)
        for partition_id in client.get_partition_list() if store is None else ():
            client.clear_partition(partition_id=partition_id)
        # The public call does not remove a partition without rows.
        for partition_id in client.get_partition_list():
            client._run_coroutine(client._clear_partition_in_controller(partition_id))

    def run(self, source: str, values: dict[str, Any]) -> Any:
        """Run *source* with ``tq``, ``ray``, ``torch`` and *values* in scope; answer with its variable ``result``."""
        scope = {"tq": tq, "ray": ray, "torch": torch, "TensorDict": TensorDict, **values}
        exec(compile(source, "<cluster.run>", "exec"), scope)
        return scope.get("result")


def _pid(handle: Any) -> int:
    pid: int = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()), timeout=30)
    return pid


def _tokens(rows: int) -> torch.Tensor:
    return torch.arange(rows * 4).reshape(rows, 4)


def _free_names(timeout_s: float = 30.0) -> None:
    """Kill TransferQueue's actors, whoever started them, and return when their names are free."""
    deadline = time.monotonic() + timeout_s
    names = [(_NAME, _NAMESPACE)] + [(f"TransferQueueStorageUnit#{index}", None) for index in range(16)]
    while names:
        try:
            ray.kill(ray.get_actor(names[0][0], namespace=names[0][1]))
        except ValueError:
            names.pop(0)
            continue
        if time.monotonic() > deadline:
            raise TimeoutError(f"{names[0][0]} is still registered")
        time.sleep(0.05)


def main() -> None:
    # Output of Ray and TransferQueue goes to the log; the pipe carries only answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    driver = Driver()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": getattr(driver, request["command"])(**request["arguments"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer, default=repr) + "\n")
    driver.stop_tq()
    ray.shutdown()


if __name__ == "__main__":
    main()
