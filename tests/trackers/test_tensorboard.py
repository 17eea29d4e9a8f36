"""TensorBoard's steps: unknown, standing still, and back after a restart of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter.model.histogram import Histogram
from exporter.trackers.base import Point, TrackerError, edges
from exporter.trackers.tensorboard import TensorBoardTracker

pytestmark = pytest.mark.full


def _point(at: float, step: int | None, value: float) -> Point:
    return Point(at, step, {"tq/train/ready": value}, {})


def _read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tq-exporter"), {"scalars": 0, "histograms": 0}).Reload()


def test_a_step_back_drops_what_the_training_lost(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(str(tmp_path))
    tracker.start()
    steps: list[int | None] = [None, 8, 9, 10, None, 10, 9, 10]
    for number, step in enumerate(steps):
        tracker.log(_point(1000.0 + number, step, number))
    tracker.close()
    found = [(event.step, event.value) for event in _read(tmp_path).Scalars("tq/train/ready")]
    assert found == [(0, 0.0), (8, 1.0), (9, 6.0), (10, 7.0)]


def test_a_point_can_be_read_before_the_end(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(str(tmp_path))
    tracker.start()
    for step in (1, 2, 3):
        tracker.log(_point(1000.0, step, 5))
        assert [event.step for event in _read(tmp_path).Scalars("tq/train/ready")][-1] == step
    tracker.close()


def test_a_histogram_has_the_edges_of_its_buckets(tmp_path: Path) -> None:
    lags = Histogram((0.0, 1.0, 2.0), (3, 0, 1, 2), 12.0)
    assert edges(lags) == (-1.0, 0.0, 1.0, 2.0, 4.0)
    tracker = TensorBoardTracker(str(tmp_path))
    tracker.start()
    tracker.log(Point(1000.0, 1, {}, {"tq/train/departed_lag": lags}))
    tracker.close()
    (event,) = _read(tmp_path).Histograms("tq/train/departed_lag")
    assert (event.histogram_value.num, event.histogram_value.sum) == (6.0, 12.0)
    assert (event.histogram_value.min, event.histogram_value.max) == (-1.0, 4.0)


def test_a_file_that_is_gone_is_followed_by_another(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(str(tmp_path))
    tracker.start()
    for file in (tmp_path / "tq-exporter").iterdir():
        file.unlink()
    tracker.log(_point(1000.0, 1, 5))
    assert [event.value for event in _read(tmp_path).Scalars("tq/train/ready")] == [5.0]
    tracker.close()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackerError, match="cannot write to"):
        TensorBoardTracker(str(tmp_path / "file")).start()
