"""A client that puts, claims, gets and clears in a loop: ``python -m tests.faults.load_client RAY_ADDRESS``.

After an error it attaches again. The start of its standard output is the number of finished rounds.
"""

from __future__ import annotations

import os
import sys
import time

import ray
import torch
from tensordict import TensorDict

from dataplane.adapters.transfer_queue import TQDataPlaneClient
from dataplane.errors import DataPlaneError
from dataplane.interfaces import DataPlaneClient
from tests.faults.load import PARTITION

_GROUP = 8


def go_round(client: DataPlaneClient, number: int) -> None:
    """Move one group from a generator's put to a trainer's clear."""
    keys = [f"p{number}_g{i}" for i in range(_GROUP)]
    rows = TensorDict({"tokens": torch.arange(_GROUP * 16).reshape(_GROUP, 16)}, batch_size=[_GROUP])
    client.put_samples(keys, PARTITION, rows, [{"weight_version": number // 50}] * _GROUP)
    claimed = client.claim_meta(PARTITION, "train", ["tokens"], _GROUP, timeout_s=2.0)
    client.get_data(claimed)
    client.clear_samples(claimed.sample_ids, PARTITION)


def main() -> None:
    """Run rounds until killed."""
    ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
    cfg = {"timeout_s": 2.0, "claim_meta_poll_interval_s": 0.02}
    rounds = number = 0
    while True:
        try:
            client = TQDataPlaneClient(cfg, bootstrap=False)
            try:
                client.register_partition(PARTITION, ["tokens"], _GROUP, ["train"])
                while True:
                    number += 1  # never reuse the keys of a round that failed half-way
                    go_round(client, number)
                    rounds += 1
                    os.pwrite(1, b"%020d" % rounds, 0)
                    time.sleep(0.05)  # leave CPU time for the exporter and the tests
            finally:
                client.close()
        except DataPlaneError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    main()
