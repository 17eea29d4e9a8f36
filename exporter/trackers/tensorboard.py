"""TensorBoard: event files in a folder of their own below the training's log folder."""

from __future__ import annotations

import contextlib
import os
import sys
import types
from pathlib import Path
from typing import Any, Final

from exporter.model.histogram import Histogram
from exporter.trackers.base import Point, Tracker, TrackerError, edges

__all__ = ["RUN", "TensorBoardTracker"]

RUN: Final = "tq-exporter"
"""The folder, and the run's name in TensorBoard. A reader follows only one writer per folder."""


class TensorBoardTracker(Tracker):
    """Writes event files with the package ``tensorboard``; neither TensorFlow nor torch is needed.

    The step is the trainer's version; while that is unknown, the last one that was known, 0 at first. When it steps
    back, readers are told to drop what they have from there on, as after a restart of a training.

    Args:
        folder: The training's log folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) / RUN
        self._step = 0
        self._writer: Any = None
        self._file = ""

    def start(self) -> None:
        """See :meth:`Tracker.start`."""
        # With this module there, tensorboard uses its own file functions, also where TensorFlow is installed.
        sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
        from tensorboard.compat.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2, summary_pb2
        self._open()

    def log(self, point: Point) -> None:
        """See :meth:`Tracker.log`. After a failure, and when its file is gone, another file is begun."""
        if self._writer is None or not os.path.exists(self._file):
            self.close()
            self._open()
        try:
            self._write(point)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """See :meth:`Tracker.close`."""
        writer, self._writer = self._writer, None
        with contextlib.suppress(OSError):  # what cannot be written has been said
            if writer is not None:
                writer.close()

    def _open(self) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        try:
            self._writer = EventFileWriter(str(self._folder))
        except OSError as error:
            raise TrackerError(f"cannot write to {self._folder}: {error.strerror or error}") from error
        self._file = self._writer._file_name

    def _write(self, point: Point) -> None:
        if point.step is not None:
            if point.step < self._step:
                self._add(point.at, point.step, session_log=self._event.SessionLog(status=self._event.SessionLog.START))
            self._step = point.step
        values = [self._summary.Summary.Value(tag=key, simple_value=value) for key, value in point.scalars.items()]
        values += [
            self._summary.Summary.Value(tag=key, histo=self._histogram(histogram))
            for key, histogram in point.histograms.items()
        ]
        self._add(point.at, self._step, summary=self._summary.Summary(value=values))
        self._writer.flush()  # raises what the writer's thread could not do

    def _add(self, at: float, step: int, **what: Any) -> None:
        self._writer.add_event(self._event.Event(wall_time=at, step=step, **what))

    def _histogram(self, histogram: Histogram) -> Any:
        lowest, *limits = edges(histogram)
        filled = [index for index, count in enumerate(histogram.counts) if count]
        return self._summary.HistogramProto(
            min=limits[filled[0] - 1] if filled[0] else lowest,
            max=limits[filled[-1]],
            num=histogram.count,
            sum=histogram.sum,
            bucket_limit=limits,
            bucket=histogram.counts,
        )
