"""MLflow: metrics of a run in a folder, a database or on a server."""

from __future__ import annotations

import os
from typing import Any, Final

from exporter.trackers.base import Point, Tracker, TrackerError

__all__ = ["MlflowTracker"]

_PER_BATCH: Final = 1000
"""MLflow takes no more metrics at once."""


class MlflowTracker(Tracker):
    """Logs metrics in batches. MLflow has no histograms; their means are among the scalars.

    The step is the trainer's version; while that is unknown, the last one that was known, 0 at first.

    Args:
        uri: The tracking store.
        run_id: The run, None for a new one.
        experiment: Name of a new run's experiment.
    """

    def __init__(self, uri: str, run_id: str | None = None, experiment: str = "tq-exporter") -> None:
        self._uri = uri
        self._run_id = run_id
        self._experiment = experiment
        self._ours = run_id is None
        self._step = 0
        self._client: Any = None

    def start(self) -> None:
        """See :meth:`Tracker.start`."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else use is reported to the maker of MLflow
        # A new store of files is refused without it; a folder is what a machine without a database has.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        try:
            self._client = MlflowClient(tracking_uri=self._uri)
            if self._run_id is None:
                found = self._client.get_experiment_by_name(self._experiment)
                chosen = found.experiment_id if found else self._client.create_experiment(self._experiment)
                self._run_id = self._client.create_run(chosen, run_name="tq-exporter").info.run_id
            else:
                self._client.get_run(self._run_id)
        except (MlflowException, OSError) as error:
            raise TrackerError(f"cannot use the store: {error}") from error

    def log(self, point: Point) -> None:
        """See :meth:`Tracker.log`."""
        self._step = self._step if point.step is None else point.step
        at_ms = int(point.at * 1000)
        metrics = [self._metric(key, value, at_ms, self._step) for key, value in point.scalars.items()]
        for start in range(0, len(metrics), _PER_BATCH):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _PER_BATCH])

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        if self._ours:
            self._client.set_terminated(self._run_id)
