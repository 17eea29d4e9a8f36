import sys

import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict

ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
tq.init()
tq.kv_batch_put(keys=["a", "b"], partition_id="train", fields=TensorDict({"x": torch.ones(2, 2)}, batch_size=[2]))
tq.kv_batch_get(keys=["a", "b"], partition_id="train", select_fields=["x"])
tq.kv_clear(keys=["a", "b"], partition_id="train")
