"""Whatever happens to exporters, the job's data, configuration and controller stay unchanged."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil

from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

FAST = ("--ping-interval", "200ms", "--metadata-interval", "200ms")

_READ_BACK = """
import json
from omegaconf import OmegaConf
controller = ray.get_actor("TransferQueueController", namespace="transfer_queue")
config = OmegaConf.to_container(ray.get(controller.get_config.remote(), timeout=30))
rows = {}
for partition, listed in tq.kv_list().items():
    data = tq.kv_batch_get(keys=sorted(listed), partition_id=partition)
    rows[partition] = [row.tolist() for row in data["tokens"]]
result = {"config": json.dumps(config, default=vars), "rows": rows, "actor": controller._actor_id.hex()}
"""

_CONFIG_AND_ACTORS = """
import json
from omegaconf import OmegaConf
actors = sorted(one["name"] for one in ray.util.list_named_actors(all_namespaces=True))
result = [actors, None]
if "TransferQueueController" in actors:
    controller = ray.get_actor("TransferQueueController", namespace="transfer_queue")
    config = OmegaConf.to_container(ray.get(controller.get_config.remote(), timeout=30))
    config.pop("controller", None)
    config["backend"]["SimpleStorage"].pop("zmq_info", None)
    result = [actors, json.dumps(config, default=str)]
"""


@contextlib.contextmanager
def unchanged(cluster: TQCluster) -> Iterator[None]:
    """Fill the data plane, and assert after the block that it is unchanged and works."""
    keys = [f"u{row // 4}_g{row % 4}" for row in range(40)]
    for partition in ("train", "val"):
        cluster.put(partition, keys, tags=[{"weight_version": 3}] * len(keys))
    before = _state(cluster)
    assert len(before[2]["rows"]["train"]) == 40
    yield
    assert _state(cluster) == before
    cluster.put("after", ["a_g0"], tags=[{"weight_version": 4}])
    assert list(cluster.list_rows("after")["after"]) == ["a_g0"]


def _state(cluster: TQCluster) -> tuple[Any, ...]:
    alive = [
        psutil.Process(pid).create_time() for pid in (cluster.controller.pid, *(u.pid for u in cluster.storage_units))
    ]
    return alive, cluster.list_rows(), cluster.run(_READ_BACK)


def test_three_exporters_at_once_and_their_stop(cluster: TQCluster) -> None:
    with unchanged(cluster), contextlib.ExitStack() as stack:
        exporters = [
            stack.enter_context(ExporterProcess(*how, *FAST, env=cluster.env))
            for how in (
                ("--ray-address", cluster.ray_address),
                ("--controller", cluster.controller.address),
                ("--controller", cluster.controller.address, "--reader", "client"),
            )
        ]
        for exporter in exporters:
            exporter.wait_for(lambda seen: seen.value("dataplane_partition_keys", partition="val") == 40, "the rows")
        assert [exporter.stop() for exporter in exporters] == [0, 0, 0]


def test_sigkill_at_any_moment(cluster: TQCluster) -> None:
    moments = random.Random(4)
    children: set[psutil.Process] = set()
    with unchanged(cluster):
        for number in range(6):
            how = (("--ray-address", cluster.ray_address), ("--controller", cluster.controller.address))[number % 2]
            command = [sys.executable, "-m", "exporter.cli", "run", "--listen", "127.0.0.1:0", *how, *FAST]
            with subprocess.Popen(
                command,
                env={**psutil.Process().environ(), **cluster.env, "TQ_EXPORTER_DISCOVERY_TIMEOUT": "20s"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                time.sleep(moments.uniform(0.2, 3.0))
                with contextlib.suppress(psutil.NoSuchProcess):
                    children.update(psutil.Process(process.pid).children(recursive=True))
                process.kill()
        # A look-up in flight ends on its own, at its deadline at the latest.
        wait_until(lambda: not any(child.is_running() for child in children), "the look-ups' end")


def test_an_exporter_that_was_there_before_the_job_creates_nothing(cluster: TQCluster) -> None:
    _, expected = cluster.run(_CONFIG_AND_ACTORS)
    cluster.stop_tq()
    with ExporterProcess("--ray-address", cluster.ray_address, *FAST, env=cluster.env) as exporter:
        exporter.wait_for(lambda seen: exporter.get("/readyz")[0] == 200, "the first look-up")
        assert cluster.run(_CONFIG_AND_ACTORS) == [[], None]
        cluster.start_tq()
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "the job", 90.0)
        actors, config = cluster.run(_CONFIG_AND_ACTORS)
        assert actors.count("TransferQueueController") == 1
        assert config == expected
        with unchanged(cluster):
            exporter.wait_for(lambda seen: seen.value("dataplane_partition_keys", partition="train") == 40, "the rows")
            assert exporter.stop() == 0
