"""Training jobs of verl on this machine: its own ``main_ppo``, and an exporter beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess
from tests.verl import assets

__all__ = ["ROOT", "cluster", "run"]

ROOT: Final = Path(__file__).parents[2]
_ENVIRONMENT: Final = ROOT / ".venv-verl"
_PRELOAD: Final = (
    "accelerate",
    "datasets",
    "fastapi",
    "hydra",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "pandas",
    "peft",
    "torch.distributed.checkpoint",
    "torchdata.stateful_dataloader",
    "transformers.models.auto.configuration_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.mistral.modeling_mistral",
)
_LONGEST_S: Final = 500.0
_EXPORTER_ENV: Final = {
    "TQ_EXPORTER_METADATA_INTERVAL": "200ms",
    "TQ_EXPORTER_METADATA_MAX_CONTROLLER_SHARE": "1",
    "TQ_EXPORTER_METADATA_MAX_CONTROLLER_STALL": "10s",
    "TQ_EXPORTER_STORAGE_INTERVAL": "10s",
    "TQ_EXPORTER_PING_INTERVAL": "2s",
    "TQ_EXPORTER_PING_TIMEOUT": "2s",
}
_SESSIONS: Final = 3
_BATCH: Final = 4


def cluster(folder: Path) -> TQCluster:
    """Start a Ray for jobs, whose workers are forks of a process that has imported most of what verl imports."""
    assert _ENVIRONMENT.exists(), "there is no .venv-verl: run .ci/verl"
    variables = {
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "RAY_prestart_worker_first_driver": "0",  # without verl's variables it cannot use them
    }
    return TQCluster(
        with_tq=False, python=str(_ENVIRONMENT / "bin" / "python"), cpus=16, preload=_PRELOAD, variables=variables
    )


def run(
    ray: TQCluster,
    folder: Path,
    mode: str,
    steps: int,
    agent: Callable[[int], str],
    *,
    overrides: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
    exporter: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """Train, and return the records of the probes.

    Args:
        ray: The cluster.
        folder: Where the job's files go.
        mode: verl's ``trainer.v1.trainer_mode``.
        steps: Number of training steps.
        agent: Names the agent loop of a prompt by its number.
        overrides: Further overrides of verl's configuration.
        variables: Further environment variables of the job's processes.
        exporter: Further flags of the exporter.
    """
    assets.write(folder, agent)
    records = folder / "probes.jsonl"
    with ExporterProcess(*exporter, env={**ray.env, **_EXPORTER_ENV, "RAY_ADDRESS": ray.ray_address}) as observer:
        every_process = {
            "VERL_USE_EXTERNAL_MODULES": "tests.verl.on_cpu",
            "PYTHONPATH": str(ROOT),
            "VERL_PROBES": str(records),
            "VERL_EXPORTER": observer.url,
            **(variables or {}),
        }
        (program,) = _ENVIRONMENT.glob("lib/python3*/site-packages/verl/trainer/main_ppo.py")
        command = [str(program), *_overrides(folder, mode, steps), *overrides]
        # main_ppo passes its environment to no other process: verl's configuration says what they get.
        runtime_env = "+ray_kwargs.ray_init.runtime_env.env_vars"
        for name, value in every_process.items():
            if not any(f"env_vars.{name}=" in override for override in overrides):
                command.append(f"{runtime_env}.{name}='{value}'")
        log = folder / "job.log"
        assert ray.run_program(command, every_process, folder, log, _LONGEST_S), log.read_text()[-6000:]
    return [json.loads(line) for line in records.read_text().splitlines()]


def _overrides(folder: Path, mode: str, steps: int) -> list[str]:
    return [
        f"data.train_files={folder}/train.jsonl",
        f"data.val_files={folder}/val.jsonl",
        f"data.train_batch_size={_BATCH}",
        "data.val_batch_size=3",
        "data.max_prompt_length=128",
        "data.max_response_length=24",
        "data.dataloader_num_workers=0",
        "data.filter_overlong_prompts=False",
        "data.shuffle=False",
        f"actor_rollout_ref.model.path={folder}/model",
        "actor_rollout_ref.rollout.name=vllm",
        f"actor_rollout_ref.rollout.n={_SESSIONS}",
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "actor_rollout_ref.rollout.calculate_log_probs=True",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={_BATCH}",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
        "actor_rollout_ref.actor.use_kl_loss=False",
        "algorithm.adv_estimator=grpo",
        "reward.num_workers=1",
        f"reward.custom_reward_function.path={ROOT}/tests/verl/on_cpu/reward.py",
        "trainer.device=cpu",
        "trainer.n_gpus_per_node=1",
        "trainer.nnodes=1",
        "trainer.logger=[console]",
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=1",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        "trainer.val_before_train=True",
        "trainer.resume_mode=disable",
        f"trainer.default_local_dir={folder}/checkpoints",
        f"trainer.v1.trainer_mode={mode}",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        "transfer_queue.backend.SimpleStorage.total_storage_size=2000",
    ]
