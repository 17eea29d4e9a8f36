"""Controllers that cannot be used yet: one whose ``init`` waits for CPUs, and addresses where none answers."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from tests.end_to_end.test_loss import FAST, discovery, errors
from tests.support import forks
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess, Exposition
from tests.support.fake_router import FakeRouter, reply

# All CPUs but the controller's own are taken, so the storage units have to wait.
_WAITING_INIT = """
import threading
from omegaconf import OmegaConf

@ray.remote
class Hog:
    def ready(self):
        return True

tq.hog = Hog.options(num_cpus=int(ray.available_resources()["CPU"]) - 1).remote()
ray.get(tq.hog.ready.remote())
units = {"storage_backend": "SimpleStorage", "SimpleStorage": {"num_data_storage_units": 2}}
tq.starting = threading.Thread(target=tq.init, args=(OmegaConf.create({"backend": units}),), daemon=True)
tq.starting.start()
"""
_GIVE_CPUS = "ray.kill(tq.hog); tq.starting.join(60); result = not tq.starting.is_alive(); del tq.hog, tq.starting"


def reason(exporter: ExporterProcess, source: str) -> str:
    return next(str(one["detail"]) for one in exporter.snapshot()["sources"] if one["source"] == source)


def once(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**(os.environ if env is None else env), **forks.look_up_env()}
    return forks.run("exporter", ["-m", "exporter.cli", "once", *arguments], env=environment, timeout=120)


@pytest.mark.timeout(600)
def test_an_init_that_waits_for_cpus_is_starting_until_it_has_them(ray_alone: TQCluster) -> None:
    with ExporterProcess("--ray-address", ray_alone.ray_address, *FAST, env=ray_alone.env) as exporter:
        exporter.wait_for(lambda seen: exporter.get("/readyz")[0] == 200, "readiness")
        ray_alone.run(_WAITING_INIT)
        try:
            seen = exporter.wait_for(
                lambda seen: errors(seen, "DataPlaneNotReady", "discover") >= 2, "two look-ups", 180.0
            )
            assert (seen.value("dataplane_up"), discovery(seen)) == (0, "starting")
            assert not seen.samples("dataplane_controller_info")
            assert "no configuration yet" in reason(exporter, "discovery")
            assert "CPUs" in reason(exporter, "discovery")
            assert exporter.get("/readyz")[0] == 200
            assert exporter.log.count("no configuration yet") == 1
        finally:
            finished = ray_alone.run(_GIVE_CPUS)
        assert finished
        seen = exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "up", 180.0)
        assert discovery(seen) == "found"
        assert seen.value("dataplane_controller_restarts_total") == 0


@contextlib.contextmanager
def bound(*, listening: bool) -> Iterator[str]:
    """An address that refuses connections, or accepts them and never answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listening:
            taken.listen()
        yield f"tcp://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("listening", "kind", "said"),
    [(False, "DataPlaneUnavailable", "refused"), (True, "DataPlaneTimeout", "did not answer within 0.3 s")],
)
def test_an_address_where_none_answers_is_unreachable(listening: bool, kind: str, said: str) -> None:
    env = {"TQ_EXPORTER_PING_TIMEOUT": "300ms"}
    with bound(listening=listening) as address, ExporterProcess("--controller", address, *FAST, env=env) as exporter:
        seen = exporter.wait_for(lambda seen: errors(seen, kind) >= 3, "three pings")
        assert (seen.value("dataplane_up"), discovery(seen)) == (0, "unreachable")
        assert seen.value("dataplane_controller_info", address=address) == 1
        assert said in reason(exporter, "ping")
        assert len(re.findall("the ping poll failed", exporter.log)) == 1
        answer = once("--controller", address)
        assert answer.returncode == 1
        assert f"TransferQueue down (unreachable) at {address}" in answer.stdout


def test_a_controller_that_answers_there_is_found() -> None:
    with bound(listening=False) as address:
        pass
    with ExporterProcess("--controller", address, *FAST) as exporter:
        exporter.wait_for(lambda seen: discovery(seen) == "unreachable", "unreachable")

        def is_found(seen: Exposition) -> bool:
            return (seen.value("dataplane_up"), discovery(seen)) == (1, "found")

        with FakeRouter(lambda request: reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": []}), address):
            exporter.wait_for(is_found, "the first answer")
        exporter.wait_for(lambda seen: discovery(seen) == "lost", "its loss")
