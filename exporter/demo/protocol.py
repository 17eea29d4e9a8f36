"""What the supervisor and the cluster process say to each other."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

__all__ = ["CONVENTIONS", "DemoConvention", "Event", "Options", "Order"]

DemoConvention = Literal["recovery", "nemo-rl", "verl"]
CONVENTIONS: Final[tuple[DemoConvention, ...]] = get_args(DemoConvention)

Order = Literal["watched", "end"]
"""From the supervisor: the exporter sees the data plane (again), and: everything is to end."""


class Options(msgspec.Struct, frozen=True):
    """One demo run; the order to begin, handed on to the actors.

    Attributes:
        folder: Short path of the run's own folder: Ray's temporary files.
        logs: Folder of the log files.
        convention: Whose keys and tags to write.
        rollouts: Number of rollout actors.
        seed: Same seed, same prompts, sizes and think times.
        otlp: Base URL of an OTLP receiver (HTTP), None to push nothing.
        chaos: Mean seconds from the exporter seeing the data plane to the next kill, None for no kills.
    """

    folder: str
    logs: str
    convention: DemoConvention = "recovery"
    rollouts: int = 2
    seed: int = 0
    otlp: str | None = None
    chaos: float | None = None


class Event(msgspec.Struct, frozen=True):
    """What the cluster process tells the supervisor.

    Attributes:
        kind: ``data_plane`` (TransferQueue is up; ``ray_address``), ``ready`` (the actors are at work;
            ``metrics``), ``news`` (``text``), ``failed`` (``text``; the process ends after it).
        ray_address: Where Ray can be reached.
        metrics: Actor name to the URL of its metrics.
        text: One line for people.
    """

    kind: Literal["data_plane", "ready", "news", "failed"]
    ray_address: str = ""
    metrics: dict[str, str] = {}
    text: str = ""
