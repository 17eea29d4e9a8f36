"""How long the exporter takes to start, compared with a bare Python interpreter. All start in turns.

Wall-clock time depends on what else runs; CPU time hardly does. The controller has 10,000 keys.

    python -m benchmarks.startup
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.replay import Replay
from benchmarks.rows import Queue
from benchmarks.runner import Benchmark, Column, Report
from tests.support.exporter_process import ExporterProcess

_KEYS = 10_000
_COLUMNS = (
    *(Column("what", "what", width=28), Column("wall_ms", "wall, ms", ".0f"), Column("cpu_ms", "CPU, ms", ".0f")),
    Column("ratio", "CPU/bare", ".1f"),
)
Cost = tuple[float, float]
"""Seconds of wall-clock and of CPU time."""


def measure(report: Report, options: argparse.Namespace) -> None:
    """Start each program as often as the options say, in turns."""
    table = report.table("startup", "Start of the exporter", _COLUMNS)
    with Replay() as replay:
        replay.list("train", Queue(_KEYS, 16, "recovery").rows())
        starts: dict[str, Callable[[], Cost]] = {
            "bare interpreter": lambda: _run("-c", "pass"),
            "import exporter.app": lambda: _run("-c", "import exporter.app"),
            "tq-exporter --version": lambda: _run("-m", "exporter.cli", "--version"),
            "until /metrics answers": lambda: _serve(replay.address, "dataplane_up"),
            "until 10,000 keys are shown": lambda: _serve(replay.address, "dataplane_partition_keys"),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in starts}
        for _ in range(options.runs):
            for name, start in starts.items():
                costs[name].append(start())
    bare = statistics.median(cpu for _, cpu in costs["bare interpreter"])
    for name, measured in costs.items():
        wall, cpu = (statistics.median(column) for column in zip(*measured, strict=True))
        table.row(what=name, wall_ms=wall * 1e3, cpu_ms=cpu * 1e3, ratio=cpu / bare)


def _run(*arguments: str) -> Cost:
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def _serve(address: str, metric: str) -> Cost:
    started = time.perf_counter()
    with ExporterProcess("--controller", address) as exporter:
        exporter.wait_for(lambda seen: bool(seen.samples(metric)), metric)
        wall, times = time.perf_counter() - started, exporter.process.cpu_times()
        return wall, times.user + times.system


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=9, help="starts of each (default %(default)s)")


BENCHMARK = Benchmark("startup", __doc__, measure, "--runs 1", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
