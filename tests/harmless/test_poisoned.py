"""Every function that could create, end or change a controller raises while a process reads all that it can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support.cluster import TQCluster

_PROGRAM = """
import json, sys, time

import ray, ray.actor, ray.remote_function, transfer_queue as tq
from transfer_queue import TransferQueueClient, interface

called = []

def poison(owner, name):
    assert hasattr(owner, name), (owner, name)
    def refuse(*_, **__):
        called.append(f"{owner.__name__}.{name}")
        raise SystemExit(f"{owner.__name__}.{name} was called")
    setattr(owner, name, refuse)

real = ray.actor.ActorMethod._remote
def record(self, *given, **named):
    called.append(self._method_name)
    return real(self, *given, **named)
ray.actor.ActorMethod._remote = record

for name in ("init", "close", "kv_put", "kv_batch_put", "kv_clear"):
    poison(tq, name)
for name in ("init", "close"):
    poison(interface, name)
for name in ("kill", "remote", "cancel", "put"):
    poison(ray, name)
poison(ray.actor.ActorClass, "_remote")
poison(ray.remote_function.RemoteFunction, "_remote")
for name in vars(TransferQueueClient) | vars(TransferQueueClient.__mro__[1]):
    if any(word in name for word in ("put", "clear", "consum", "set_", "get_meta", "get_data", "reset")):
        poison(TransferQueueClient, name)

address, ray_address, partition = sys.argv[1:]

from dataplane.adapters.transfer_queue import TransferQueueMetadataReader
reader = TransferQueueMetadataReader(address, timeout_s=30.0)
reader.ping()
names = reader.list_partitions()
groups = [group.group_id for group in reader.list_metadata(partition)]
depth = reader.depth(partition)
reader.get_capabilities()
reader.close()

from exporter.discovery import ray_lookup
found = ray_lookup._look(ray_address, None, time.monotonic() + 60.0)
sys.stdout.write("\\n" + json.dumps([names, groups, depth, found.controller_id, called]) + "\\n")
sys.stdout.flush()
import os
os._exit(0)
"""


def test_the_client_reader_and_the_look_up_call_nothing_that_makes_ends_or_changes(cluster: TQCluster) -> None:
    cluster.put("train", ["a_g0", "b_g0"], tags=[{"weight_version": 1}] * 2)
    before = (cluster.controller, cluster.list_rows())
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, cluster.controller.address, cluster.ray_address, "train"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **cluster.env, "RAY_ENABLE_AUTO_CONNECT": "0"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names, groups, depth, controller_id, called = json.loads(done.stdout.splitlines()[-1])
    assert (names, groups, depth) == (["train"], ["a", "b"], 2)
    assert controller_id == cluster.controller.id
    assert sorted(called) == ["get_config", "get_zmq_server_info"]
    assert (cluster.controller, cluster.list_rows()) == before
