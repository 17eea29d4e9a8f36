"""A program that knows nothing of us, with functions of TransferQueue in what it sends to Ray: ``actor.py ADDRESS``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import ray
import transfer_queue as tq
from transfer_queue import kv_list

ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
tq.init()
tq.kv_put(key="a", partition_id="actor", tag={"weight_version": 1})


class Worker:
    def list(self, function: Callable[[], dict[str, Any]]) -> list[list[str]]:
        return [sorted(kv_list("actor")["actor"]), sorted(function()["actor"])]


worker: Any = ray.remote(Worker).remote()
print(hasattr(kv_list, "__wrapped__"), ray.get(worker.list.remote(functools.partial(tq.kv_list, "actor"))))
print(sorted(ray.get(ray.remote(tq.kv_list).remote("actor"))["actor"]))
tq.kv_clear(["a"], "actor")
