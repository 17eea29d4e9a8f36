"""What a training job of verl needs to run on a machine without GPUs, and what it is asked at each probe.

verl itself imports this package in each of its processes (``VERL_USE_EXTERNAL_MODULES``). Replaced are the model
engine, the server that generates tokens, and the transfer of the weights. Everything else is verl's own.
"""

from __future__ import annotations

from typing import Any

import wrapt

__all__: list[str] = []


def _trainer(module: Any) -> None:
    from tests.verl.on_cpu import engine, inference, probes

    engine.replace(module)
    inference.replace(module)
    probes.install(module)


def _separate_trainer(module: Any) -> None:
    from tests.verl.on_cpu import engine, inference

    engine.replace_separate(module)
    inference.replace_separate(module)


def _agent_loop(module: Any) -> None:
    from tests.verl.on_cpu import agents  # noqa: F401 - importing it registers them


wrapt.register_post_import_hook(_trainer, "verl.trainer.ppo.v1.trainer_base")
wrapt.register_post_import_hook(_separate_trainer, "verl.trainer.ppo.v1.trainer_separate_async")
wrapt.register_post_import_hook(_agent_loop, "verl.experimental.agent_loop")
