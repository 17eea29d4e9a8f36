"""A process that attaches to the shared cluster and contributes a segment: one command per line, one answer."""

from __future__ import annotations

import sys
import time

import ray
import torch
from tensordict import TensorDict

from dataplane.errors import DataPlaneError
from dataplane.factory import build_data_plane_client
from dataplane.interfaces import DataPlaneClient


def main() -> None:
    """Connect to Ray at the first argument and serve commands until the input ends."""
    ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
    client: DataPlaneClient | None = None
    block = {"global_segment_size": int(sys.argv[2]), "local_buffer_size": 16 << 20}
    for line in sys.stdin:
        command = line.split()
        answer = "ok"
        began = time.monotonic()
        try:
            if command[0] == "attach":
                client = build_data_plane_client(
                    {"enabled": True, "timeout_s": 6.0, "mooncake_cpu": block}, bootstrap=False
                )
            assert client is not None
            if command[0] == "put":
                fields = TensorDict({"tokens": torch.ones(1, 256 * 1024)}, batch_size=[1])
                for key in command[1:]:
                    client.put_samples([key], "held", fields)
            if command[0] == "close":
                client.close()
        except DataPlaneError as error:
            answer = f"{type(error).__name__}: {error}"
        print(f"{time.monotonic() - began:.2f} {answer}", flush=True)


if __name__ == "__main__":
    main()
