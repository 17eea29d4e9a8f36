"""The demo's incidents and some others, played to a real exporter whose clock a test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from exporter.model.snapshot import Snapshot
from exporter.model.window import Window, decode_window
from tests.dashboards.simulated import STEP_S, Simulated, World
from tests.support.clock import StoppedClock

__all__ = ["INCIDENTS", "Played", "play", "played"]

_STEPS: Final = 48
_FROM: Final = 16


def _healthy(world: World, step: int) -> None:
    pass


def _stalled_trainer(world: World, step: int) -> None:
    world.training = step < _FROM


def _failing_rollouts(world: World, step: int) -> None:
    world.generating = "failing"


def _dead_weight_sync(world: World, step: int) -> None:
    world.syncing = step < _FROM


def _no_rollouts(world: World, step: int) -> None:
    world.generating = "finishing" if step < _FROM else "no"


def _controller_gone(world: World, step: int) -> None:
    world.controller = "answers" if step < _FROM else "gone"


def _controller_silent(world: World, step: int) -> None:
    world.controller = "answers" if step < _FROM else "silent"


def _unit_silent(world: World, step: int) -> None:
    world.silent_unit = 1 if step >= _FROM else None
    world.training = step < _FROM


def _unreadable(world: World, step: int) -> None:
    world.unreadable = {"broken"} if step >= _FROM else set()


def _never(world: World, step: int) -> None:
    world.controller = "absent"


INCIDENTS: Final[dict[str, Callable[[World, int], None]]] = {
    "healthy": _healthy,
    "stalled-trainer": _stalled_trainer,
    "failing-rollouts": _failing_rollouts,
    "dead-weight-sync": _dead_weight_sync,
    "no-rollouts": _no_rollouts,
    "controller-gone": _controller_gone,
    "controller-silent": _controller_silent,
    "unit-silent": _unit_silent,
    "unreadable": _unreadable,
    "never": _never,
}
"""What happens to the job, by step. The first four have the names of the demo's scenarios, and do the same."""


@dataclass(frozen=True)
class Played:
    """The end of an incident: the exporter's last snapshot, its last minutes and its exposition."""

    snapshot: Snapshot
    recent: Window
    hour: Window
    metrics: bytes


@contextmanager
def play(name: str, steps: int = _STEPS) -> Iterator[Simulated]:
    """Play an incident, and yield its exporter."""
    clock = StoppedClock()
    run = Simulated({"run": "grpo-7b"}, "10.0.0.7", INCIDENTS[name], clock)
    try:
        for step in range(steps):
            run.work(step)
            clock.advance(STEP_S)
        yield run
    finally:
        run.close()


def played(name: str, steps: int = _STEPS) -> Played:
    """Return the end of an incident."""
    with play(name, steps) as run:
        recent, hour = (decode_window(run.history.encode(window)) for window in ("recent", "hour"))
        return Played(run.snapshot, recent, hour, run.scrape())
