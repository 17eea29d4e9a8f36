"""What a NeMo RL job runs in its processes: it trains on our client, and tells the exporter where its TransferQueue is.

``setup`` is for every process (``worker_process_setup_hook``), ``publish`` for the driver.
"""

from __future__ import annotations

import importlib
import os
import sys

from dataplane import publish_endpoint

__all__ = ["publish", "setup"]

_OURS = ("interfaces", "factory", "observability", "adapters", "adapters.noop", "adapters.transfer_queue")


def setup() -> None:
    """Let NeMo RL's own modules find our client under the names by which they import theirs. Call it before them."""
    for name in _OURS:
        sys.modules[f"nemo_rl.data_plane.{name}"] = importlib.import_module(f"dataplane.{name}")


def publish() -> None:
    """Keep the file current by which an exporter without Ray finds this job. Call it once, after ``ray.init``."""
    publish_endpoint(os.environ["TQ_DISCOVERY_FILE"], run=os.environ.get("RUN_NAME"))
