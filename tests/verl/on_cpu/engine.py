"""A worker without a model, in verl's own worker group, with verl's dispatch and its bridge to TransferQueue."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import ray
import torch
from tensordict import TensorDict
from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.single_controller.ray import RayWorkerGroup
from verl.single_controller.ray.base import RayResourcePool, ResourcePoolManager
from verl.utils import tensordict_utils

from tests.verl.on_cpu.inference import HYBRID, SERVER

__all__ = ["replace", "replace_separate"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _on_all(method: _Method) -> _Method:
    """Call *method* on every worker."""
    return cast(
        _Method, register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=method.__name__ != "update_weights")(method)
    )


def _on_shards(method: _Method) -> _Method:
    """Call *method* with a share of the batch on each worker."""
    return cast(_Method, register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))(method))


class _Engine(Worker):  # type: ignore[misc]
    """Log-probs and losses are constants."""

    server = SERVER

    def __init__(
        self, config: Any = None, distillation_config: Any = None, role: str | None = None, **options: Any
    ) -> None:
        Worker.__init__(self)
        self._register_dispatch_collect_info(mesh_name="actor", dp_rank=self.rank, is_collect=True)

    @_on_all
    def init_model(self) -> None: ...

    @_on_all
    def save_checkpoint(
        self, local_path: str, hdfs_path: Any = None, global_step: int = 0, max_ckpt_to_keep: Any = None
    ) -> None:
        os.makedirs(local_path, exist_ok=True)

    @_on_all
    def load_checkpoint(self, local_path: str, hdfs_path: Any = None, del_local_after_load: bool = False) -> None: ...

    @_on_all
    async def update_weights(self, global_steps: int | None = None, mode: str = "auto") -> None:
        await ray.get_actor(self.server).set_version.remote(global_steps)

    @_on_shards
    def compute_log_prob(self, data: Any) -> Any:
        rows = [torch.full((len(row),), -0.4) for row in data["input_ids"].unbind()]
        nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        return TensorDict({"log_probs": nested, "entropy": nested.clone()}, batch_size=len(rows))

    @_on_shards
    def update_actor(self, data: Any) -> Any:
        metrics = {"loss": [0.1], "mfu": 0.0, "grad_norm": [1.0]}
        return tensordict_utils.get_tensordict(tensor_dict={}, non_tensor_dict={"metrics": metrics})


class _SeparateEngine(_Engine):
    """That of the separate mode, which also keeps copies of its weights."""

    server = HYBRID

    @_on_all
    def save_model_to_cpu(self, n: int) -> None: ...

    @_on_all
    def restore_model_from_cpu(self, n: int) -> None: ...

    @_on_all
    def clear_cpu_model(self, n: int) -> None: ...


def _create_resource_pool(self: Any) -> None:
    for name, processes in self.resource_pool_spec.items():
        self.resource_pool_dict[name] = RayResourcePool(
            process_on_nodes=processes, use_gpu=False, max_colocate_count=1, name_prefix=name
        )


def _worker_group(*args: Any, **options: Any) -> Any:
    return RayWorkerGroup(*args, **{**options, "use_gpu": False})


def replace(trainer_base: Any) -> None:
    """Replace the engine in verl's module of that name, and ask Ray for no GPU."""
    trainer_base.ActorRolloutRefWorker = _Engine
    trainer_base.RayWorkerGroup = _worker_group
    ResourcePoolManager.create_resource_pool = _create_resource_pool


def replace_separate(trainer_separate_async: Any) -> None:
    """The same in the module of the separate mode."""
    trainer_separate_async.DetachActorWorker = _SeparateEngine
