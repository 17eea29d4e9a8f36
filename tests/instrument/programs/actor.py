"""A program that knows nothing of us, with functions of TransferQueue in what it sends to Ray: ``actor.py ADDRESS``."""

import functools
import sys

import ray
import transfer_queue as tq
from transfer_queue import kv_list

ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
tq.init()
tq.kv_put(key="a", partition_id="actor", tag={"weight_version": 1})


@ray.remote
class Worker:
    def list(self, function):
        return [sorted(kv_list("actor")["actor"]), sorted(function()["actor"])]


worker = Worker.remote()
print(hasattr(kv_list, "__wrapped__"), ray.get(worker.list.remote(functools.partial(tq.kv_list, "actor"))))
print(sorted(ray.get(ray.remote(tq.kv_list).remote("actor"))["actor"]))
tq.kv_clear(["a"], "actor")
