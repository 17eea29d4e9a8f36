"""The situations in which the dashboards are drawn: each a script for two runs that share one Prometheus.

``python -m tests.dashboards.situations FOLDER [NAME …]`` draws every dashboard in each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.dashboards.backfill import Past
from tests.dashboards.simulated import STEP_S, Simulated, World
from tests.support.clock import StoppedClock

__all__ = ["SITUATIONS", "played"]

_STARTED: Final = 1_700_000_040.0
_STEPS: Final = 110
_SECOND_RUN_STARTS: Final = 10


def _healthy(world: World, step: int) -> None:
    pass


def _stalled(world: World, step: int) -> None:
    world.training = step < 50


def _failing(world: World, step: int) -> None:
    world.generating = "finishing" if step < 40 else "failing"


def _stale(world: World, step: int) -> None:
    """No new weights reach the rollouts, and then the trainer steps back to a checkpoint."""
    world.syncing = step < 20
    world.malformed = int(step > 30)
    if step == 80:
        world.version -= 12


def _lost(world: World, step: int) -> None:
    """A controller that falls silent, is gone, and is replaced; then a storage unit that does not answer."""
    if step in (20, 24):
        world.controller = "silent" if step == 20 else "gone"
    if step == 36:
        world.restart()
    world.silent_unit = 1 if step >= 46 else None


def _unreadable(world: World, step: int) -> None:
    world.unreadable = {"broken"} if step >= 30 else set()


def _absent(world: World, step: int) -> None:
    """Prometheus cannot scrape the exporter."""
    world.exporter_up = step < 80


def _before(world: World, step: int) -> None:
    """The job has not started yet."""
    world.controller = "absent"


SITUATIONS: Final[dict[str, Callable[[World, int], None]]] = {
    "healthy": _healthy,
    "stalled": _stalled,
    "failing": _failing,
    "stale": _stale,
    "lost": _lost,
    "unreadable": _unreadable,
    "absent": _absent,
    "before": _before,
}
"""What happens to the first run, whose targets have every label. The second is healthy and has no label but those that
Prometheus sets."""


@contextmanager
def played(name: str, steps: int = _STEPS) -> Iterator[Past]:
    """Play a situation into a Prometheus, and yield it."""
    clock = StoppedClock()
    first = {"cluster": "eu-1", "namespace": "rl-prod", "run": "grpo-7b"}
    with Past(STEP_S) as past:
        runs = [Simulated(first, "10.0.0.7", SITUATIONS[name], clock), Simulated({}, "10.1.0.9", _healthy, clock)]
        try:
            for step in range(steps):
                at = _STARTED + step * STEP_S
                for index, run in enumerate(runs):
                    if index and step < _SECOND_RUN_STARTS:
                        continue
                    clock.advance(max(at - 1.0 - clock.time(), 0.0))  # polls take time
                    for target, samples in run.step(step).items():
                        past.note(at, samples, of=f"{index} {target}")
        finally:
            for run in runs:
                run.close()
        past.write()
        past.evaluate()
        yield past


def main(arguments: list[str]) -> None:
    """Draw every dashboard in each situation, or in those that are named."""
    from dashboards.draw import draw

    for name in arguments[1:] or SITUATIONS:
        with played(name) as past:
            for path in draw(Path(arguments[0], name), past.url, past.start, past.end):
                sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
