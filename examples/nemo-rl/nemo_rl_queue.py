"""Adds the figures of the queue to what NeMo RL's logger writes: W&B, TensorBoard, MLflow, whatever is configured.

``TQ_EXPORTER_URL`` names the exporter.
"""

from __future__ import annotations

import os
from typing import Any

from dataplane.tracking import QueueMetrics

__all__ = ["QueueLogger"]


class QueueLogger:
    """Logs the queue beside a step's metrics.

    Args:
        logger: NeMo RL's ``Logger``.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._queue = QueueMetrics(os.environ.get("TQ_EXPORTER_URL", "http://127.0.0.1:9464"))

    def log(self, step: int) -> None:
        """Log the queue under *step*. Waits for the exporter for at most a second, and raises nothing of its own."""
        self._logger.log_metrics(self._queue.read(), step)
