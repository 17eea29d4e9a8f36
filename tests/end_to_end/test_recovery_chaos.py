"""The example's controller on a real TransferQueue whose parts are killed and stopped at random moments.

``make chaos`` runs all incidents. What happens and when follows from ``--chaos-seed``; which call it hits does not.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from dataplane import DataPlaneClient, DataPlaneError, DataPlaneGroupMeta, build_data_plane_client
from dataplane.errors import DataPlaneTimeout, DataPlaneUnavailable, error_type
from examples.single_controller.controller import Controller
from tests.support import forks
from tests.support.cluster import TQCluster, frozen, is_running, kill
from tests.support.waiting import wait_until

FEW = {"kill": 3, "stop": 2, "loss": 1}
ALL = {"kill": 20, "stop": 10, "loss": 5}
CAPACITY = 16
# Far above the deadlines of the calls, on any machine: a controller that does not train by then hangs.
HANG_S = 180.0
CONFIG = {"enabled": True, "impl": "transfer_queue", "backend": "simple", "timeout_s": 5.0}


ROOT = Path(__file__).parents[2]
CONTROLLER_PID = """
import os
handle = ray.get_actor("TransferQueueController", namespace="transfer_queue")
result = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()))
"""


class Ended(Exception):
    """Ends the controller's loop."""


class Watched(Controller):
    """The example's controller, and what it did."""

    def __init__(self, cluster: TQCluster) -> None:
        connect = lambda: build_data_plane_client(CONFIG, bootstrap=False)  # noqa: E731
        super().__init__(connect, self.generate, self.learn, capacity=CAPACITY, wait_s=HANG_S)
        self.cluster = cluster
        self.trained: list[str] = []
        self.losses: list[str] = []
        self.waited_for: Counter[str] = Counter()
        self.in_use: list[tuple[int, int]] = []
        self.ending = False
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run_until_ended, name="controller")

    def generate(self, group_id: str, version: int) -> TensorDict:
        number = int(group_id.rpartition("-")[2])
        if number % 20 == 19:
            raise RuntimeError("a rollout that fails")
        return TensorDict({"tokens": torch.full((3, 2), number)}, batch_size=[3])

    def learn(self, groups: list[DataPlaneGroupMeta], rows: list[TensorDict]) -> None:
        if self.ending:
            raise Ended
        for group, data in zip(groups, rows, strict=True):
            tokens = torch.stack(data["tokens"].unbind())
            assert tokens.tolist() == [[int(group.group_id.rpartition("-")[2])] * 2] * 3
            self.trained.append(group.group_id)

    def run_until_ended(self) -> None:
        try:
            self.run(10**9)
        except BaseException as error:
            self.error = error

    def where(self) -> str:
        """What it has done, where it and the data plane's threads are, and which parts of TransferQueue run."""
        pids = [self.cluster.controller.pid, *(unit.pid for unit in self.cluster.storage_units)]
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = [(names.get(ident, ""), frame) for ident, frame in sys._current_frames().items()]
        return (
            f"version {self.version}, {len(self.occupancy.queued)} queued, {len(self.occupancy.in_flight)} in flight, "
            f"lost {self.losses[-5:]}, waited for {dict(self.waited_for)}, "
            f"TransferQueue's parts run: {[is_running(pid) for pid in pids]}\n"
        ) + "\n".join(
            f"{name}:\n{''.join(traceback.format_stack(frame))}"
            for name, frame in frames
            if name == self.thread.name or name.startswith("dataplane")
        )

    def _attach(self) -> DataPlaneClient:
        client = super()._attach()
        self.compare(client)
        return client

    def compare(self, client: DataPlaneClient) -> None:
        """Write down the permits in use, and what the data plane and the rollouts make of it."""
        with suppress(DataPlaneUnavailable, DataPlaneTimeout):  # the next incident came first
            self.in_use.append((self.occupancy.in_use, client.depth("train") + len(self._rollouts)))

    def _lost(self, client: DataPlaneClient, error: DataPlaneError) -> None:
        self.losses.append(error_type(error))
        super()._lost(client, error)

    def _waiting(self, error: DataPlaneError, waited_s: float) -> None:
        self.waited_for[error_type(error)] += 1
        super()._waiting(error, waited_s)


@contextmanager
def working(controller: Watched) -> Iterator[None]:
    """Run *controller* in a thread during the block, and end it."""
    controller.thread.start()
    try:
        yield
    finally:
        controller.ending = True
        controller.thread.join(HANG_S)
    assert not controller.thread.is_alive(), f"it hangs: {controller.where()}"


def wait_for(controller: Watched, condition: Callable[[], object], what: str) -> None:
    try:
        wait_until(lambda: controller.error is not None or condition(), what, HANG_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; the controller: {controller.where()}") from None
    if controller.error is not None:
        raise AssertionError(f"the controller ended before: {what}") from controller.error


def until_trained(controller: Watched) -> None:
    steps = controller.version + 3  # one step may have been under way, and one may need only what is queued
    wait_for(controller, lambda: controller.version >= steps, "a step after the incident")


def until_lost(controller: Watched, before: int) -> None:
    wait_for(controller, lambda: len(controller.losses) > before, "a call that fails")


def happen(incident: str, cluster: TQCluster, controller: Watched, rng: random.Random, long: bool) -> None:
    before = len(controller.losses)
    if incident == "kill":
        kill(cluster.controller.pid)
        time.sleep(rng.uniform(0.0, 2.0))
        cluster.restart_tq()
    elif incident == "loss":
        kill(rng.choice(cluster.storage_units).pid)
        until_lost(controller, before)
        time.sleep(rng.uniform(0.0, 1.0))
        cluster.restart_tq()
    else:
        part: Any = rng.choice([cluster.controller, cluster.controller, *cluster.storage_units])
        with frozen(part.pid):
            if long:
                until_lost(controller, before)
            time.sleep(rng.uniform(0.0, 1.0))


@pytest.mark.timeout(3600)
def test_it_never_trains_twice_never_hangs_and_counts_its_permits(
    cluster: TQCluster, ray_connected: None, pytestconfig: pytest.Config
) -> None:
    plan = ALL if pytestconfig.getoption("--all-incidents") else FEW
    rng = random.Random(pytestconfig.getoption("--chaos-seed"))
    incidents = [name for name, count in plan.items() for _ in range(count)]
    rng.shuffle(incidents)
    controller, seen = Watched(cluster), Counter[str]()
    started = time.monotonic()
    with working(controller):
        for incident in incidents:
            until_trained(controller)
            time.sleep(rng.uniform(0.0, 0.5))
            happen(incident, cluster, controller, rng, long=seen[incident] % 2 == 0)
            seen[incident] += 1
        until_trained(controller)
    assert isinstance(controller.error, Ended), controller.error
    client = build_data_plane_client(CONFIG, bootstrap=False)
    controller.compare(client)
    client.close()

    print(
        f"\n{dict(seen)} in {time.monotonic() - started:.0f} s: version {controller.version}, "
        f"{len(controller.trained)} groups trained of {controller._dispatched} dispatched; "
        f"lost {dict(Counter(controller.losses))}, waited for {dict(controller.waited_for)}; "
        f"permits compared {len(controller.in_use)} times"
    )
    assert seen == plan
    twice = [group_id for group_id, times in Counter(controller.trained).items() if times > 1]
    assert not twice
    assert controller.version * 4 == len(controller.trained)
    assert [counted for counted, _ in controller.in_use] == [true for _, true in controller.in_use]
    assert len(controller.in_use) >= plan["kill"] + plan["loss"]
    assert all(0 <= counted <= CAPACITY for counted, _ in controller.in_use)
    assert set(controller.losses) == {"DataPlaneUnavailable", "DataPlaneTimeout"}


def test_the_program_starts_a_data_plane_again_when_its_own_is_killed(ray_alone: TQCluster, tmp_path: Path) -> None:
    command = ["-m", "examples.single_controller", "--ray-address", ray_alone.ray_address, "--steps", "25"]
    log = tmp_path / "log"

    def trained() -> int:
        return log.read_text().count("trained on 4 groups")

    with log.open("w") as output:
        environment = {**os.environ, **ray_alone.env}
        program = forks.start("ray", command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: program.poll() is not None or trained() >= 3, "training", HANG_S)
        kill(ray_alone.run(CONTROLLER_PID))
        status = program.wait(HANG_S)
    finally:
        program.kill()
        program.wait()
    said = log.read_text()
    assert status == 0, said
    assert said.count(" attached: ") == 2, said
    assert "dispatch pauses" in said
    assert "version 25," in said.splitlines()[-1]
    with pytest.raises(RuntimeError, match="Failed to look up actor"):
        ray_alone.run(CONTROLLER_PID)
