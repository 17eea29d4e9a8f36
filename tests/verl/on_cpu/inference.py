"""A server that generates tokens without a model: it knows its weight version, and aborts and resumes as vLLM does.

verl's own manager, client and load balancer are in front of it.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import ray
from verl.workers.rollout import llm_server
from verl.workers.rollout.replica import TokenOutput

__all__ = ["HYBRID", "NEVER", "SERVER", "Server", "replace", "replace_separate"]

SERVER = "server"
HYBRID = "hybrid_server"
"""Names of the actors: the one that serves the rollouts, and the one on the trainer's GPUs of the separate mode."""

NEVER = "never"
"""A sampling parameter: the request is never answered."""

_TOKEN_S = 0.04
_LAST_TOKEN = 0.06
_LONGEST = 24


@ray.remote(num_cpus=0, max_concurrency=1000)
class Server:
    """Generates tokens at a rate, each the last one with some probability."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._aborts = 0
        self._open = asyncio.Event()
        self._thawed = asyncio.Event()
        self._open.set()
        self._thawed.set()

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **images: Any
    ) -> Any:
        """Answer as verl's servers do, with the weight version at the beginning."""
        if sampling_params.get(NEVER):
            await asyncio.Event().wait()
        await self._open.wait()
        aborts, version = self._aborts, self._version
        tokens: list[int] = []
        reason = "completed"
        while len(tokens) < sampling_params.get("max_tokens", _LONGEST):
            await asyncio.sleep(_TOKEN_S)
            await self._thawed.wait()
            if self._aborts != aborts:
                reason = "aborted"
                break
            tokens.append(random.randrange(60, 90))
            if random.random() < _LAST_TOKEN:
                break
        return TokenOutput(
            token_ids=tokens,
            log_probs=[-0.5] * len(tokens),
            stop_reason=reason,
            num_preempted=0,
            extra_fields={"global_steps": version},
        )

    async def set_version(self, version: int) -> None:
        """Take new weights."""
        self._version = version

    async def version(self) -> int | None:
        """Return the version of the weights, None before the first."""
        return self._version

    async def abort(self) -> None:
        """End the requests under way with the tokens that they have, and hold new ones."""
        self._aborts += 1
        self._open.clear()

    async def resume(self) -> None:
        """Answer requests again."""
        self._open.set()

    async def freeze(self, frozen: bool) -> None:
        """Stop between two tokens, or go on."""
        if frozen:
            self._thawed.clear()
        else:
            self._thawed.set()


class _Replica:
    """What verl's checkpoint engines call, in place of a vLLM replica."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.replica_rank = 0
        self.workers: list[Any] = []

    async def abort_all_requests(self, reject_request: bool = False) -> None:
        await self.handle.abort.remote()

    async def resume_generation(self) -> None:
        await self.handle.resume.remote()

    async def sleep(self) -> None:
        """Nothing to free, here and below."""

    async def wake_up(self) -> None: ...

    async def release_kv_cache(self) -> None: ...

    async def resume_kv_cache(self) -> None: ...


class _Manager(llm_server.LLMServerManager):  # type: ignore[misc]
    def __init__(self, *args: Any, **options: Any) -> None:
        self.rollout_replica_class = _Replica
        super().__init__(*args, **options)

    async def _initialize_llm_servers(self, start_rank: int | None = None) -> None:
        separate = self.config.trainer.v1.trainer_mode == "separate_async"
        name = HYBRID if separate and self.worker_group is not None else SERVER
        handle = Server.options(name=name).remote()  # type: ignore[attr-defined]
        self.rollout_replicas = [_Replica(handle)]
        self.server_handles = [handle]
        self.server_addresses = [f"{name}:1"]


class _WeightTransfer:
    """The separate mode's transfer of weights to the rollouts: abort, the new version, resume."""

    def __init__(self, config: Any, actor_wg: Any, replicas: list[_Replica]) -> None:
        self._replicas = replicas

    def update_weights(self, global_steps: int) -> dict[str, float]:
        for replica in self._replicas:
            ray.get(replica.handle.abort.remote())
            ray.get(replica.handle.set_version.remote(global_steps))
            ray.get(replica.handle.resume.remote())
        return {}


def replace(trainer_base: Any) -> None:
    """Replace the manager in verl's module of that name."""
    trainer_base.LLMServerManager = _Manager


def replace_separate(trainer_separate_async: Any) -> None:
    """The same in the module of the separate mode, and the transfer of weights."""
    trainer_separate_async.LLMServerManager = _Manager
    trainer_separate_async.CheckpointEngineManager = _WeightTransfer
