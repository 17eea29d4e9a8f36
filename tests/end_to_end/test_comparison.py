"""README's rows about a controller that hangs or is dead (*Beside what else there is*), measured on a real one.

Three faults: the controller's process is frozen, only the thread that answers its requests is stuck, and the process
is killed. Four observers look at each: TransferQueue's own page, a call of its public client, Ray's record of the actor
(which Ray's dashboard shows), and this exporter.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import TQCluster, frozen, kill
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

WAIT_S = 10.0
"""How long the observers without a deadline of their own are given: 30 times what an answer takes here."""

FAST = ("--ping-interval", "500ms", "--metadata-interval", "500ms")

# A driver of the same Ray, attached before the fault: what a trainer or NeMo RL's wrapper around it is.
CALLER = """
import pathlib, sys, time
import ray, transfer_queue
address, folder = sys.argv[1], pathlib.Path(sys.argv[2])
ray.init(address=address, log_to_driver=False, configure_logging=False)
transfer_queue.init()
transfer_queue.kv_list(partition_id="train")
(folder / "attached").touch()
while not (folder / "call").exists():
    time.sleep(0.02)
try:
    transfer_queue.kv_list(partition_id="train")
    said = "answered"
except Exception as error:
    said = type(error).__name__
(folder / "part").write_text(said)
(folder / "part").rename(folder / "said")
time.sleep(600)
"""

# Asks for more samples than there are. With `polling_mode` off the thread that answers requests waits for them.
STUCK = """
import threading
def ask():
    tq.get_client().get_meta(["tokens"], 1000, "train", task_name="stuck")
threading.Thread(target=ask, daemon=True).start()
"""

README = (Path(__file__).parents[2] / "README.md").read_text()

STATE = """
from ray._private import state
result = state.actors(actor_id=actor)["State"]
"""


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[TQCluster]:
    variables = {"TQ_CONTROLLER_GET_METADATA_TIMEOUT": "600"}  # its default is 1 s; afterwards the thread goes on
    with TQCluster(metrics=True, polling_mode=False, variables=variables) as cluster:
        yield cluster


@pytest.fixture
def cluster(own_cluster: TQCluster) -> TQCluster:
    own_cluster.make_healthy()
    own_cluster.put("train", ["g1_g0", "g2_g0"], tags=[{"weight_version": 1}] * 2)
    return own_cluster


class Caller:
    """A call of TransferQueue's public ``kv_list``, made when it is told to."""

    def __init__(self, cluster: TQCluster, folder: Path) -> None:
        self._folder = folder
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CALLER, cluster.ray_address, str(folder)],
                env={**os.environ, **cluster.env},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until((folder / "attached").exists, f"the caller: {(folder / 'log').read_text()[-2000:]}", 120.0)

    def call(self) -> None:
        (self._folder / "call").touch()

    @property
    def said(self) -> str | None:
        """``answered`` or the type of the error; None while the call lasts."""
        said = self._folder / "said"
        return said.read_text() if said.exists() else None

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture
def caller(cluster: TQCluster, tmp_path: Path) -> Iterator[Caller]:
    with contextlib.closing(Caller(cluster, tmp_path)) as caller:
        yield caller


@pytest.fixture
def exporter(cluster: TQCluster) -> Iterator[ExporterProcess]:
    with ExporterProcess("--ray-address", cluster.ray_address, *FAST, env=cluster.env) as exporter:
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "the data plane")
        yield exporter


def expect_of_readme(fault: str, *, page: str, actor: str, error: str) -> None:
    """Compare a row of README with what a test has seen. "The same" is what the row above says."""
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in README.splitlines() if line.startswith("|")]
    [head] = [row for row in table if row[-1] == "this project"]
    said: dict[str, str] = {}
    for row in (row for row in table if len(row) == len(head)):
        said |= {name: cell for name, cell in zip(head, row, strict=True) if cell != "the same"}
        if row[0] == fault:
            break
    else:
        raise AssertionError(f"README has no row {fault}")
    assert said["TransferQueue's own metrics"] == page
    assert said["NeMo RL's wrapper"] == "the call waits, without a deadline"
    assert said["Ray's dashboard"] == actor
    assert said["this project"] == f"`{error}`, an alert, a diagnosis"


def own_page(cluster: TQCluster) -> str:
    """Return what TransferQueue's own page says, or the type of the error."""
    try:
        with urllib.request.urlopen(f"http://{cluster.metrics_endpoint}/metrics", timeout=WAIT_S) as page:
            return str(page.read().decode())
    except OSError as error:  # urllib wraps only what happens before the request is sent
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return type(reason).__name__


def actor_state(cluster: TQCluster) -> str:
    state: str = cluster.run(STATE, actor=cluster.controller.actor_id)
    return state


def expect_of_the_exporter(
    exporter: ExporterProcess, cluster: TQCluster, error: str, condition: str, words: str
) -> None:
    """The metrics, the diagnosis and a single poll, which says *words*.

    The condition has the name of an alert. dashboards/tests plays the alert.
    """
    exporter.wait_for(
        lambda seen: (
            seen.value("dataplane_up") == 0
            and (seen.value("dataplane_errors_total", operation="ping", error_type=error) or 0) > 0
            and sum(value for _, value in seen.samples("dataplane_condition", condition=condition)) == 1
            and seen.samples("dataplane_partition_keys") == []  # an old figure is not shown as a present one
        ),
        f"{error} and {condition}",
    )
    said = run("diagnose", "--url", exporter.url)
    assert said.returncode == 1
    assert condition in said.stdout, said.stdout
    once = run("once", "--controller", cluster.controller.address)
    assert once.returncode == 1
    assert words in once.stderr, once


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def lasts(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether *condition* holds now and until *seconds* have passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not condition():
            return False
        time.sleep(0.1)
    return condition()


@pytest.mark.timeout(300)
def test_the_controllers_process_is_stopped(cluster: TQCluster, caller: Caller, exporter: ExporterProcess) -> None:
    expect_of_readme(
        "the controller's process is frozen (SIGSTOP)",
        page="its page does not answer either",
        actor="the actor is *alive*",
        error="DataPlaneTimeout",
    )
    assert "tq_" in own_page(cluster)
    with frozen(cluster.controller.pid):
        caller.call()
        pages: list[str] = []
        reader = threading.Thread(target=lambda: pages.append(own_page(cluster)))
        reader.start()
        assert lasts(lambda: caller.said is None, WAIT_S), caller.said
        reader.join(2 * WAIT_S)
        assert pages == ["TimeoutError"]
        assert actor_state(cluster) == "ALIVE"
        expect_of_the_exporter(exporter, cluster, "DataPlaneTimeout", "DataPlaneTimeouts", "did not answer within")
    wait_until(lambda: caller.said == "answered", "the call that waited")


@pytest.mark.timeout(300)
def test_the_controller_is_dead(cluster: TQCluster, caller: Caller, exporter: ExporterProcess) -> None:
    expect_of_readme(
        "the controller is dead", page="its page refuses", actor="the actor is *dead*", error="DataPlaneUnavailable"
    )
    kill(cluster.controller.pid)
    caller.call()
    wait_until(lambda: own_page(cluster) == "ConnectionRefusedError", "nobody listens")
    wait_until(lambda: actor_state(cluster) == "DEAD", "Ray notices")
    expect_of_the_exporter(exporter, cluster, "DataPlaneUnavailable", "DataPlaneLost", "refused")
    assert lasts(lambda: caller.said is None, WAIT_S), caller.said


@pytest.mark.timeout(300)
def test_only_the_thread_that_answers_requests_is_stuck(
    cluster: TQCluster, caller: Caller, exporter: ExporterProcess
) -> None:
    """The last one: the thread is stuck until the cluster ends."""
    expect_of_readme(
        "only its thread for requests is stuck",
        page="its page answers",
        actor="the actor is *alive*",
        error="DataPlaneTimeout",
    )
    cluster.run(STUCK)
    exporter.wait_for(lambda seen: seen.value("dataplane_up") == 0, "dataplane_up 0")
    caller.call()
    assert lasts(lambda: caller.said is None, WAIT_S), caller.said
    page = own_page(cluster)
    assert "tq_" in page, page
    assert actor_state(cluster) == "ALIVE"
    expect_of_the_exporter(exporter, cluster, "DataPlaneTimeout", "DataPlaneTimeouts", "did not answer within")
