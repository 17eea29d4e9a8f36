"""Run the controller on a TransferQueue of this machine, with rollouts that only wait."""

from __future__ import annotations

import argparse
import logging
import random
import time
from functools import partial

import ray
import torch
from tensordict import TensorDict

from dataplane import DataPlaneGroupMeta, build_data_plane_client
from examples.single_controller.controller import Controller

CONFIG = {"enabled": True, "impl": "transfer_queue", "backend": "simple", "num_storage_units": 2, "timeout_s": 5.0}


def rollout(group_id: str, version: int) -> TensorDict:
    """Generate a group; one in twenty fails."""
    time.sleep(random.uniform(0.1, 0.4))
    if random.random() < 0.05:
        raise RuntimeError("the environment broke")
    return TensorDict({"tokens": torch.randint(1000, (4, 16))}, batch_size=[4])


def train(groups: list[DataPlaneGroupMeta], rows: list[TensorDict]) -> None:
    """Train on a batch."""
    time.sleep(0.1)
    print(f"trained on {len(groups)} groups of versions {[group.weight_version for group in groups]}", flush=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m examples.single_controller", description=__doc__)
    parser.add_argument("--ray-address", help="the Ray cluster; without it one is started")
    parser.add_argument("--attach", action="store_true", help="never start TransferQueue, wait until another does")
    parser.add_argument("--steps", type=int, default=100, help="training steps (default: 100)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    ray.init(address=arguments.ray_address, log_to_driver=False)
    controller = Controller(partial(build_data_plane_client, CONFIG, bootstrap=not arguments.attach), rollout, train)
    controller.run(arguments.steps)
    print(f"version {controller.version}, {controller.occupancy.in_use} permits in use", flush=True)


if __name__ == "__main__":
    main()
