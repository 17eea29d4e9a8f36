"""Agent loops with what happens to sessions: they give several trajectories or none, fail, or never end."""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.agent_loop import register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from tests.verl.on_cpu.inference import NEVER

__all__ = ["Empty", "Failing", "OneFails", "Stuck", "TwoOutputs"]


@register("two_outputs")
class TwoOutputs(SingleTurnAgentLoop):  # type: ignore[misc]
    """Each session gives two trajectories."""

    async def run(self, sampling_params: dict[str, Any], **prompt: Any) -> Any:
        return [await super(TwoOutputs, self).run(sampling_params, **prompt) for _ in range(2)]


@register("one_fails")
class OneFails(SingleTurnAgentLoop):  # type: ignore[misc]
    """One session of the group fails, the others end."""

    async def run(self, sampling_params: dict[str, Any], **prompt: Any) -> Any:
        output = await super().run(sampling_params, **prompt)
        if prompt["session_id"] == 1:
            raise RuntimeError("the tool crashed")
        return output


@register("failing")
class Failing(SingleTurnAgentLoop):  # type: ignore[misc]
    """Every session of the group fails at once."""

    async def run(self, sampling_params: dict[str, Any], **prompt: Any) -> Any:
        raise RuntimeError("the environment is down")


@register("stuck")
class Stuck(SingleTurnAgentLoop):  # type: ignore[misc]
    """One session of the group never ends."""

    async def run(self, sampling_params: dict[str, Any], **prompt: Any) -> Any:
        if prompt["session_id"] == 0:
            sampling_params = {**sampling_params, NEVER: True}
        return await super().run(sampling_params, **prompt)


@register("empty")
class Empty(SingleTurnAgentLoop):  # type: ignore[misc]
    """Sessions end without a trajectory."""

    async def run(self, sampling_params: dict[str, Any], **prompt: Any) -> Any:
        await super().run(sampling_params, **prompt)
        return []
