"""What this process's Ray knows of the controller and other named actors."""

from __future__ import annotations

import time


def wait_until_no_controller(timeout_s: float = 30.0) -> None:
    """Return when this process has learned that the named actor is gone: it caches the name for a moment."""
    wait_until_no_actor("TransferQueueController", namespace="transfer_queue", timeout_s=timeout_s)


def wait_until_no_actor(name: str, namespace: str | None = None, timeout_s: float = 30.0) -> None:
    """The same for any named actor, by default of this process's own namespace, as storage units are."""
    import ray

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            ray.get_actor(name, namespace=namespace)
        except ValueError:
            return
        time.sleep(0.02)
    raise TimeoutError(f"the name {name} is still known")
