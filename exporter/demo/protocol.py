"""The messages between the supervisor and the cluster process."""

from __future__ import annotations

from typing import Literal

import msgspec

from exporter.demo.scenarios import HEALTHY

__all__ = ["Event", "Options", "Order"]

Order = Literal["watched", "end"]
"""Orders of the supervisor. ``watched``: the exporter sees the data plane (again). ``end``: stop everything."""


class Options(msgspec.Struct, frozen=True):
    """Options of one demo run. The first message to the cluster process, which passes them to the actors.

    Attributes:
        folder: Short path of the run's own folder: Ray's temporary files.
        logs: Folder of the log files.
        convention: The tag convention of the rollouts, one of :data:`~exporter.demo.writers.WRITERS`.
        scenario: The incident, one of :data:`~exporter.demo.scenarios.SCENARIOS`.
        rollouts: Number of rollout actors.
        seed: The same seed gives the same prompts, sizes and think times.
        otlp: Base URL of an OTLP receiver (HTTP), None to push nothing.
        chaos: Mean seconds from the exporter seeing the data plane to the next kill, None for no kills.
    """

    folder: str
    logs: str
    convention: str = "recovery"
    scenario: str = HEALTHY
    rollouts: int = 2
    seed: int = 0
    otlp: str | None = None
    chaos: float | None = None


class Event(msgspec.Struct, frozen=True):
    """A message from the cluster process to the supervisor.

    Attributes:
        kind: ``data_plane`` (TransferQueue is up; ``ray_address``), ``ready`` (the actors are at work;
            ``metrics``), ``news`` (``text``), ``failed`` (``text``; the process ends after it).
        ray_address: Address of Ray.
        metrics: Actor name to the URL of its metrics.
        text: One line to show to the user.
    """

    kind: Literal["data_plane", "ready", "news", "failed"]
    ray_address: str = ""
    metrics: dict[str, str] = {}
    text: str = ""
