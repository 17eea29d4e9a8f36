"""Adds the figures of the queue to what verl's trainer logs: with each step, in every logger of ``trainer.logger``.

Call :func:`install` in the trainer's process before it makes its ``Tracking``. ``TQ_EXPORTER_URL`` names the exporter.
"""

from __future__ import annotations

import os
from typing import Any

from dataplane.tracking import QueueMetrics

__all__ = ["install"]


def install() -> None:
    """Let ``Tracking.log`` log the queue as well. It waits for the exporter for at most a second per step."""
    from verl.utils.tracking import Tracking

    queue = QueueMetrics(os.environ.get("TQ_EXPORTER_URL", "http://127.0.0.1:9464"))
    log = Tracking.log

    def log_with_queue(self: Any, data: dict[str, Any], step: int, backend: Any = None) -> None:
        log(self, {**data, **queue.read()}, step, backend)

    Tracking.log = log_with_queue
