"""Soak test: days of a training run in minutes. Checks that the exporter does not grow and its metrics stay right.

A real exporter process follows an accelerated run (:mod:`tests.soak.stand_in`): 10,000 weight versions pass, thousands
of partitions come and go, and the controller is replaced many times. Prints a table. Exits with 1 when memory, files,
threads or series grow, a counter decreases, a series outlives its subject, or a restart is not counted.

    python -m tests.soak.soak --duration 600
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.stand_in import Controllers, Run
from tests.soak.watch import Row, Watch
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

__all__ = ["soak"]

VERSIONS, PARTITIONS = 10_000, 4_000
_SAMPLE_S = 0.5
_RESTART_S = 2.0

# Poll everything as often as possible, without a budget, to fit in hours of polls.
_ARGUMENTS = ("--ping-interval", "200ms", "--metadata-interval", "200ms")
_ENV = {"TQ_EXPORTER_METADATA_MAX_CONTROLLER_SHARE": "1"}


def main(argv: list[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--duration", type=float, default=600.0, help="seconds (default %(default)s)")
    options = parser.parse_args(argv)
    rows, wrong = soak(options.duration)
    print(f"{'':32}{'early':>10}{'late':>10}{'limit':>10}")
    for row in rows:
        print(f"{row.what:32}{row.early:10.1f}{row.late:10.1f}{row.limit:>10}  {'' if row.good else 'MISSED'}")
    for line in wrong[:10]:
        print(line)
    return 0 if all(row.good for row in rows) else 1


def soak(duration_s: float) -> tuple[list[Row], list[str]]:
    """Run for *duration_s* seconds; return the lines of the table, and the errors in single scrapes."""
    with tempfile.TemporaryDirectory(prefix="tqs") as folder:
        run = Run(duration_s, VERSIONS, PARTITIONS)
        file = Path(folder) / "endpoint.json"
        with (
            Controllers(run, file) as controllers,
            ExporterProcess("--discovery-file", str(file), *_ARGUMENTS, env=_ENV, forks=False) as exporter,
        ):
            watch = Watch(exporter, run)
            _follow(run, controllers, watch, duration_s)
            rows = watch.judge()
            rows += _end(run, controllers, watch, exporter)
    return rows, [line for lines in watch.wrong.values() for line in lines]


def _follow(run: Run, controllers: Controllers, watch: Watch, duration_s: float) -> None:
    """Sample and replace controllers until the time is over and the exporter knows the last controller."""
    replaced = run.started
    last = time.monotonic() + 90.0 + duration_s
    while True:
        now = time.monotonic()
        over = now >= run.started + duration_s
        if controllers.is_known():
            if over:
                return
            if now - replaced >= _RESTART_S:
                controllers.replace()
                replaced = now
        assert now < last, "the exporter does not find the last controller"
        watch.sample()
        time.sleep(max(now + _SAMPLE_S - time.monotonic(), 0.0))


def _end(run: Run, controllers: Controllers, watch: Watch, exporter: ExporterProcess) -> list[Row]:
    """End the run: remove its partitions, then the controller; return the result lines."""
    watch.sample()
    restarts = watch.counter("dataplane_controller_restarts_total")
    lost = watch.counter("dataplane_partition_groups_lost_total", partition=run.LONG)
    arrived = watch.counter("dataplane_partition_groups_arrived_total")
    polls = watch.counter("tq_exporter_polls_total", source="metadata", outcome="ok")
    run.over = True
    wait_until(lambda: "dataplane_partition_keys{" not in exporter.get("/metrics")[1], "no partitions")
    controllers.end()
    exporter.wait_for(lambda seen: seen.value("dataplane_discovery_state", state="ended") == 1, "the end")
    code = exporter.stop()
    return [
        Row("restarts counted", 0, restarts, str(controllers.restarts), restarts == controllers.restarts > 0),
        Row("groups lost in restarts", 0, lost, ">0", lost > 0),
        Row("groups arrived", 0, arrived, ">0", arrived > 0),
        Row("metadata polls", 0, polls, ">0", polls > 0),
        Row("exit code", 0, code, "0", code == 0),
    ]


if __name__ == "__main__":
    sys.exit(main())
