"""Rows as the frameworks write them: their keys and the tags that mean something to the exporter, among others."""

from __future__ import annotations

from typing import Any

__all__ = [
    "Tagged",
    "nemo_rl",
    "nemo_rl_model_calls",
    "nemo_rl_newer",
    "recovery",
    "verl",
    "verl_padding",
    "verl_prompt",
    "verl_trajectories",
]

Tagged = dict[str, dict[str, Any]]
"""Key to tag."""


def nemo_rl(uid: str, version: int, *, size: int = 2) -> Tagged:
    """NeMo RL's main: one put per group, with the version at the rollout's start."""
    return {f"{uid}_g{i}": {"weight_version": version} for i in range(size)}


def nemo_rl_newer(uid: str, version: int, *, size: int = 2) -> Tagged:
    """NeMo RL's newer branches: the group's id on every row, never ``committed``."""
    tag = {"group_id": uid, "weight_version": version, "prompt_idx": 3, "rollout_environment": "math"}
    return {f"{uid}_g{i}": tag for i in range(size)}


def nemo_rl_model_calls(uid: str, version: int, *, calls: int = 3) -> Tagged:
    """NeMo RL's partition ``rollout_staging``: one row per call of the model, nothing to train on."""
    return {
        f"{uid}_g0/{call}": {
            "rollout_id": f"{uid}_g0",
            "model_call_id": call,
            "prev_len": 8 * call,
            "delta_len": 8,
            "cum_len": 8 * (call + 1),
            "weight_version": version,
            "digest": "d41d8cd9",
            "schema_version": 1,
        }
        for call in range(calls)
    }


def recovery(group_id: str, version: object, *, size: int = 2, **tags: object) -> Tagged:
    """A producer that writes every tag; *tags* replaces some. A tag of None is left out."""
    tag = {
        "group_id": group_id,
        "weight_version": version,
        "committed": True,
        "expected_num_keys": size,
        "created_at": 1.7e9,
        **tags,
    }
    tag = {name: value for name, value in tag.items() if value is not None}
    return {f"{group_id}/{i}": tag for i in range(size)}


def verl_prompt(uid: str, status: str, step: int) -> Tagged:
    """verl's prompt row; *step* is the one that it is dispatched for."""
    return {uid: {"is_prompt": True, "status": status, "global_steps": step}}


def verl_trajectories(uid: str, step: int, version: int | None, *, sessions: int = 2, outputs: int = 1) -> Tagged:
    """verl's trajectory rows: each session has one or more outputs."""
    tag = {
        "status": "success",
        "prompt_len": 4,
        "response_len": 5,
        "seq_len": 9,
        "global_steps": step,
        "min_global_steps": version,
        "max_global_steps": version,
    }
    return {f"{uid}_{session}_{output}": tag for session in range(sessions) for output in range(outputs)}


def verl(uid: str, step: int, version: int | None = None) -> Tagged:
    """A finished prompt of verl with its trajectories. Without *version*: the weights of the step before *step*."""
    version = step - 1 if version is None else version
    return {**verl_prompt(uid, "finished", step), **verl_trajectories(uid, step, version)}


def verl_padding(number: int, step: int, version: int) -> Tagged:
    """A row that fills up verl's batch: a copy of a trajectory's tag, and a flag."""
    (tag,) = verl_trajectories("u", step, version, sessions=1).values()
    return {f"pad{number:032x}_0_0": {**tag, "is_padding": True}}
