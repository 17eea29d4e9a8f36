"""A training on one machine: Ray with a TransferQueue that has rows. ``training.py ADDRESS_FILE``, until SIGTERM."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict

KEYS = [f"g{number}_g0" for number in range(4)]

context = ray.init(
    num_cpus=4,
    include_dashboard=False,
    log_to_driver=False,
    _node_ip_address="127.0.0.1",
    object_store_memory=80 * 2**20,
)
tq.init()
fields = TensorDict({"x": torch.ones(len(KEYS), 2)}, batch_size=[len(KEYS)])
tq.kv_batch_put(keys=KEYS, partition_id="train", fields=fields, tags=[{"weight_version": 1}] * len(KEYS))
Path(sys.argv[1]).write_text(context.address_info["gcs_address"])
signal.sigwait({signal.SIGTERM})
ray.shutdown()
