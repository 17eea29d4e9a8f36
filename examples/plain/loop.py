"""A training loop in one file: rollouts put groups into TransferQueue, a trainer takes and removes them.

``python loop.py`` starts Ray and TransferQueue on this machine. ``--impl noop`` needs neither.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

import dataplane
from dataplane.observability import MetricsDataPlaneClient
from dataplane.recovery import stale

PARTITION, TASK, FIELDS = "train", "trainer", ["tokens"]
GROUP_SIZE, GROUPS_PER_STEP, WINDOW = 4, 2, 3


def generate(client: MetricsDataPlaneClient, prompt: int, version: int) -> None:
    """One prompt, all of its completions: a group. Its tags say what the exporter cannot know."""
    import torch
    from tensordict import TensorDict

    group = f"prompt{prompt}"
    tag = {"group_id": group, "weight_version": version, "expected_num_keys": GROUP_SIZE}
    tag |= {"created_at": time.time(), "committed": True}
    fields = TensorDict({"tokens": torch.ones(GROUP_SIZE, 8)}, batch_size=[GROUP_SIZE])
    client.put_samples([f"{group}_g{number}" for number in range(GROUP_SIZE)], PARTITION, fields, [tag] * GROUP_SIZE)


def train(client: MetricsDataPlaneClient, version: int) -> int:
    """One step: drop what is too old, take a batch, remove it. Returns the new version."""
    old = stale(client.list_metadata(PARTITION), version, WINDOW)
    if old:
        client.evict([key for group in old for key in group.keys], PARTITION)
    batch = client.claim_meta(PARTITION, TASK, FIELDS, GROUPS_PER_STEP * GROUP_SIZE)
    client.get_data(batch)  # your step goes here
    client.pop(batch.sample_ids, PARTITION)
    client.publish_weight_version(version + 1)
    return version + 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Train for a number of steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impl", choices=["transfer_queue", "noop"], default="transfer_queue")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds-per-step", type=float, default=1.0)
    options = parser.parse_args(arguments)
    if options.impl == "transfer_queue":
        import ray

        # TransferQueue reserves a CPU for each of its actors: on a smaller machine it would wait for ever.
        ray.init(num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, log_to_driver=False)
    config = {"enabled": True, "impl": options.impl, "simple": {"num_storage_units": 2}}
    with_metrics = MetricsDataPlaneClient(dataplane.build_data_plane_client(config, allow_noop=True))
    if options.impl == "transfer_queue" and "TQ_DISCOVERY_FILE" in os.environ:
        dataplane.publish_endpoint(os.environ["TQ_DISCOVERY_FILE"])  # for an exporter without Ray

    version = prompt = 0
    for step in range(options.steps):
        for _ in range(GROUPS_PER_STEP + (step % 2)):  # rollouts are a little faster than training
            generate(with_metrics, prompt, version)
            prompt += 1
        version = train(with_metrics, version)
        print(f"step {step}: version {version}, {with_metrics.depth(PARTITION)} groups ready")
        time.sleep(options.seconds_per_step)
    print(f"{with_metrics.snapshot()['total_ops']} calls, {with_metrics.snapshot()['total_errors']} errors")
    with_metrics.close()


if __name__ == "__main__":
    main()
