"""What each experiment tracker costs: memory, and CPU time to start it and to write a point.

The exporter feeds each tracker in a process of its own. The points here have the values of a run with a few partitions.
wandb works offline and has a second process, its own service. MLflow writes files, or a new SQLite file whose tables it
has to make first.

    python -m benchmarks.trackers
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from unittest import mock

import psutil

from benchmarks.runner import Benchmark, Column, Report
from exporter.trackers.base import Order, Point
from exporter.trackers.process import TrackerProcess

_VALUES = 200
_TIMEOUT_S = 120.0
_COLUMNS = (
    *(Column("tracker", "tracker", width=26), Column("points", "points", "d")),
    *(Column("rss_mb", "RSS, MB", ".0f"), Column("others_mb", "its processes, MB", ".0f")),
    *(Column("start_s", "CPU to start, s", ".1f"), Column("point_ms", "CPU per point, ms", ".1f")),
    Column("installed_mb", "package, MB", ".0f"),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Start each tracker, and have it write points."""
    table = report.table("trackers", f"Experiment trackers, {_VALUES} values per point", _COLUMNS)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, _environment(folder)):
        for package, what, order in _orders(folder):
            installed = distribution(package)
            size = sum(
                Path(str(file.locate())).stat().st_size for file in installed.files or () if file.suffix != ".pyc"
            )
            table.row(
                tracker=f"{package.removesuffix('-skinny')} {installed.version}{what}",
                points=options.points,
                **_cost(order, options.points),
                installed_mb=size / 1e6,
            )


def _environment(folder: str) -> dict[str, str]:
    return {"WANDB_DIR": folder, "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


def _orders(folder: str) -> Sequence[tuple[str, str, Order]]:
    """Return each tracker: its package, what it writes, and the order."""
    wandb: dict[str, str | None] = {"run_id": "benchmark", "project": "rl", "entity": None, "mode": "offline"}
    mlflow: dict[str, str | None] = {"run_id": None, "experiment": "rl"}
    return (
        ("tensorboard", "", Order("tensorboard", {"folder": f"{folder}/logs"})),
        ("wandb", ", offline", Order("wandb", wandb)),
        ("mlflow-skinny", ", files", Order("mlflow", {**mlflow, "uri": f"file://{folder}/mlruns"})),
        ("mlflow-skinny", ", new SQLite", Order("mlflow", {**mlflow, "uri": f"sqlite:///{folder}/mlflow.db"})),
    )


def _cost(order: Order, points: int) -> dict[str, float]:
    process = TrackerProcess(order)
    try:
        _must(process.start(_TIMEOUT_S).error)
        assert process.pid is not None
        tracker = psutil.Process(process.pid)
        started_s = _cpu_s(tracker)
        for number in range(points):
            scalars = {f"tq/p{value // 20}/value{value % 20}": float(number + value) for value in range(_VALUES)}
            _must(process.log(Point(1.7e9 + 10 * number, number, scalars, {}), _TIMEOUT_S).error)
        return {
            "rss_mb": tracker.memory_info().rss / 1e6,
            "others_mb": sum(other.memory_info().rss for other in tracker.children(recursive=True)) / 1e6,
            "start_s": started_s,
            "point_ms": (_cpu_s(tracker) - started_s) / points * 1e3,
        }
    finally:
        process.close(_TIMEOUT_S)


def _must(error: str | None) -> None:
    if error is not None:
        raise RuntimeError(error)


def _cpu_s(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--points", type=int, default=100, help="points of a tracker (default %(default)s)")


BENCHMARK = Benchmark("trackers", __doc__, measure, "--points 3", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
