"""What this process's Ray knows of the controller."""

from __future__ import annotations

import time


def wait_until_no_controller(timeout_s: float = 30.0) -> None:
    """Return when this process has learned that the named actor is gone: it caches the name for a moment."""
    import ray

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            ray.get_actor("TransferQueueController", namespace="transfer_queue")
        except ValueError:
            return
        time.sleep(0.02)
    raise TimeoutError("the controller's name is still known")
