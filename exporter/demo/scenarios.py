"""The incidents that the demo can play, one per run."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["HEALTHY", "HEALTHY_VERSIONS", "SCENARIOS", "Scenario"]

HEALTHY_VERSIONS: Final = 3
"""How many weight versions the trainer makes in good health, from when the exporter first sees the data plane."""


class Scenario(NamedTuple):
    """What goes wrong in a run.

    Attributes:
        about: What happens, in one line for the user.
        trainer_takes: Whether the trainer goes on taking groups after :data:`HEALTHY_VERSIONS`.
        rollouts_succeed: Whether rollouts finish their groups. False makes all of them fail, from the start.
        weights_arrive: Whether new weights go on reaching the rollouts after :data:`HEALTHY_VERSIONS`. When they do
            not, the trainer takes groups of any lag, as trainers without a staleness window do.
    """

    about: str
    trainer_takes: bool = True
    rollouts_succeed: bool = True
    weights_arrive: bool = True


HEALTHY: Final = "healthy"

SCENARIOS: Final[dict[str, Scenario]] = {
    HEALTHY: Scenario("nothing goes wrong"),
    "stalled-trainer": Scenario("the trainer stops taking groups, and the queue fills up", trainer_takes=False),
    "failing-rollouts": Scenario(
        "every rollout fails and is replaced by a new one, and the trainer gets nothing", rollouts_succeed=False
    ),
    "dead-weight-sync": Scenario(
        "new weights no longer reach the rollouts, and the trainer continues", weights_arrive=False
    ),
}
"""Every scenario by its name."""
