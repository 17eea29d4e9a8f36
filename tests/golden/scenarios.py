"""The situations whose exposition is stored in ``*.prom``.

``python -m tests.golden.scenarios`` rewrites the files; read the diff before you commit it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dataplane.discovery.record import Endpoint
from exporter.conditions import Judge
from exporter.config import Config, Otlp
from exporter.model.history import History
from exporter.model.snapshot import Snapshot, SourceState
from exporter.telemetry import InstrumentRecorder, Telemetry
from exporter.version import Build
from tests.support.clock import StoppedClock
from tests.support.snapshots import TAKEN, empty_snapshot, rich_snapshot

__all__ = ["FOLDER", "SCENARIOS", "expose"]

FOLDER = Path(__file__).parent

Scenario = tuple[Snapshot, Callable[[InstrumentRecorder], None]]


def _never_found() -> Scenario:
    snapshot = replace(
        empty_snapshot(),
        ready=True,
        sources=(
            SourceState("discovery", "ok", up=True, last_success=TAKEN - 3, duration=0.5),
            SourceState("ping", "disabled"),
            SourceState("metadata", "disabled"),
            SourceState("storage", "disabled"),
            SourceState("tq_metrics", "disabled"),
        ),
    )
    return snapshot, lambda recorder: recorder.poll("discovery", "ok")


def _running() -> Scenario:
    def record(recorder: InstrumentRecorder) -> None:
        for duration in (0.0007, 0.0011, 0.31):
            recorder.ping(duration, None)
            recorder.poll("ping", "ok")
        recorder.poll("metadata", "ok")
        recorder.poll("storage", "failed")
        recorder.error("storage_metrics", "DataPlaneTimeout")
        recorder.skipped("metadata")
        recorder.restart()

    return rich_snapshot(), record


def _lost() -> Scenario:
    """The controller is gone: the queue's state is no longer exposed; flow and timestamps still are."""
    running = rich_snapshot()
    snapshot = replace(
        running,
        discovery="lost",
        up=False,
        capabilities=None,
        partitions=(),
        statuses=(),
        total=None,
        trained=None,
        storage=(),
        unlisted_keys=None,
        estimates=(),
        samples=(),
        tasks=(),
        controller=None,
        sources=tuple(
            replace(
                source,
                up=False,
                reason="stale" if source.source in ("metadata", "storage", "tq_metrics") else "failing",
            )
            for source in running.sources
        ),
    )

    def record(recorder: InstrumentRecorder) -> None:
        recorder.ping(0.0008, None)
        for _ in range(2):
            recorder.ping(4.0, "DataPlaneTimeout")
            recorder.error("ping", "DataPlaneTimeout")
        recorder.ping(0.0002, "DataPlaneUnavailable")
        recorder.error("ping", "DataPlaneUnavailable")

    return snapshot, record


def _starting() -> Scenario:
    """The actor is there and has no configuration yet; each of three look-ups says so."""
    waiting, _ = _never_found()
    looked = replace(waiting.sources[0], reason="failing", up=False, last_success=None, duration=2.5)

    def record_look_ups(recorder: InstrumentRecorder) -> None:
        for _ in range(3):
            recorder.poll("discovery", "failed")
            recorder.error("discover", "DataPlaneNotReady")

    return replace(waiting, discovery="starting", sources=(looked, *waiting.sources[1:])), record_look_ups


def _unreachable() -> Scenario:
    """The configured address refuses connections; two pings were made."""
    waiting, record_look_up = _never_found()
    pinged = SourceState("ping", "failing", up=False, duration=0.002, interval=5.0)

    def record(recorder: InstrumentRecorder) -> None:
        record_look_up(recorder)
        for _ in range(2):
            recorder.ping(0.002, "DataPlaneUnavailable")
            recorder.poll("ping", "failed")
            recorder.error("ping", "DataPlaneUnavailable")

    snapshot = replace(
        waiting,
        discovery="unreachable",
        endpoint=Endpoint("tcp://10.0.0.5:40001"),
        sources=(waiting.sources[0], pinged, *waiting.sources[2:]),
    )
    return snapshot, record


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "never_found": _never_found,
    "starting": _starting,
    "unreachable": _unreachable,
    "running": _running,
    "lost": _lost,
}


def expose(name: str, accept: str | None = None) -> str:
    """Return the exposition of a scenario, without ``target_info``, which names the machine's software."""
    seen, record = SCENARIOS[name]()
    snapshot = Judge(History(StoppedClock())).judge(seen)
    telemetry = Telemetry(
        Config(run="grpo-7b", otlp=Otlp()),
        lambda: snapshot,
        clock=StoppedClock(),
        build=Build("1.2.3", "0123abc", "3.11.7"),
        environ={},
    )
    try:
        record(telemetry.recorder)
        body, _ = telemetry.scrape(accept)
    finally:
        telemetry.shutdown(timeout_s=1.0)
    lines = body.decode("utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("target_info{"))


if __name__ == "__main__":
    for scenario in SCENARIOS:
        (FOLDER / f"{scenario}.prom").write_text(expose(scenario), encoding="utf-8")
        sys.stdout.write(f"wrote {scenario}.prom\n")
