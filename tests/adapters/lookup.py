"""Waits until this process's Ray knows that the controller or another named actor is gone."""

from __future__ import annotations

import time


def wait_until_no_controller(timeout_s: float = 30.0) -> None:
    """Return once this process knows that the controller is gone: Ray caches its name for a moment."""
    wait_until_no_actor("TransferQueueController", namespace="transfer_queue", timeout_s=timeout_s)


def wait_until_no_actor(name: str, namespace: str | None = None, timeout_s: float = 30.0) -> None:
    """The same for any named actor. The default namespace is this process's own, where storage units are."""
    import ray

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            ray.get_actor(name, namespace=namespace)
        except ValueError:
            return
        time.sleep(0.02)
    raise TimeoutError(f"the name {name} is still known")
