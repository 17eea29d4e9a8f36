"""Helpers for the recorder's tests: a recording of a simulated run."""

from __future__ import annotations

from pathlib import Path

from exporter.recording.recorder import FlightRecorder
from tests.support.simulated_run import SimulatedRun

__all__ = ["record", "recorder_of"]

MAX_SIZE = 64 * 2**20


def recorder_of(path: Path, run: SimulatedRun, *, max_size: int = MAX_SIZE, version: str = "0.1.0") -> FlightRecorder:
    """Return a recorder on the run's clock, whose thread is not started: :func:`record` writes in its place."""
    return FlightRecorder(path, max_size, window=4.0, clock=run.clock, version=version, run="grpo-7b")


def record(recorder: FlightRecorder, run: SimulatedRun, seconds: float, *, every_s: float = 5.0) -> None:
    """Let *seconds* pass and record them."""
    for snapshot in run.run(seconds, every_s):
        recorder.observe(snapshot)
        recorder.flush()


def close(recorder: FlightRecorder) -> None:
    """End in order."""
    recorder.stop(1.0)
    recorder.flush()
    kill(recorder)


def kill(recorder: FlightRecorder) -> None:
    """End as a killed process does: nothing more is written, and the lock is free."""
    recorder._close()
