"""Weights & Biases: the same run as the training's, in shared mode, or a file of its own."""

from __future__ import annotations

import os
from typing import Any, Final

from exporter.trackers.base import Point, Tracker, TrackerError, edges

__all__ = ["STEP_METRIC", "WandbTracker"]

STEP_METRIC: Final = "trainer/version"
"""What the charts have on their x axis. Points without a version are in the run, and on no such chart."""


class WandbTracker(Tracker):
    """Logs into a run that a training writes as well.

    Args:
        run_id: The run.
        project: Its project, None for the one that ``WANDB_PROJECT`` names.
        entity: Its user or team, None for that of the API key.
        mode: ``shared``, or ``offline`` for a file below ``WANDB_DIR``.
    """

    def __init__(self, run_id: str, project: str | None = None, entity: str | None = None, mode: str = "shared"):
        self._given: dict[str, Any] = {"id": run_id, "project": project, "entity": entity, "mode": mode}
        self._run: Any = None

    def start(self) -> None:
        """See :meth:`Tracker.start`."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else errors are sent to the maker of wandb
        import wandb

        quiet = {
            "console": "off",
            "silent": True,
            "disable_git": True,
            "disable_code": True,
            "disable_job_creation": True,
        }
        # Of the training's process they tell nothing, and its own are in the run already.
        own = {"x_disable_stats": True, "x_disable_meta": True, "x_save_requirements": False}
        # The training's process decides when the run is finished.
        second = {"x_label": "tq-exporter", "x_primary": False, "x_update_finish_state": False}
        try:
            self._run = wandb.init(**self._given, settings=wandb.Settings(**quiet, **own, **second))
        except (wandb.Error, OSError) as error:
            raise TrackerError(f"cannot join the run {self._given['id']}: {error}") from error
        self._histogram = wandb.Histogram
        # Without step_sync: it would give a point without a version that of the last one, or 0.
        self._run.define_metric("tq/*", step_metric=STEP_METRIC, step_sync=False)

    def log(self, point: Point) -> None:
        """See :meth:`Tracker.log`."""
        figures: dict[str, Any] = dict(point.scalars)
        for key, histogram in point.histograms.items():
            figures[key] = self._histogram(np_histogram=(list(histogram.counts), list(edges(histogram))))
        if point.step is not None:
            figures[STEP_METRIC] = point.step
        self._run.log(figures)

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        self._run.finish()
