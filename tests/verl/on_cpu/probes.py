"""Stops the rollouts at points of a training step, and writes down verl's own state beside what the exporter says then.

``VERL_PROBES`` is the file for the records, one line of JSON each, ``VERL_EXPORTER`` the exporter's URL, and
``VERL_IN_PREPARE_STEP`` a line of code to run at the beginning of verl's ``prepare_step``.
"""

from __future__ import annotations

import copy
import json
import os
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
import transfer_queue as tq
import wrapt

from tests.support.waiting import wait_until
from tests.verl.on_cpu.inference import SERVER

__all__ = ["install"]

_SETS = ("partitions", "pending_keys", "running_keys", "finished_keys", "failure_keys", "prompt_global_steps")
_TRIES = 20


class _Probes:
    """What the trainer has done so far, noted at its own calls.

    Attributes:
        submitted: Prompts that it gave to the rollouts, by partition.
        held: Groups that it has sampled and not yet removed, by partition.
        removed: Groups that it has sampled and removed since, by partition.
    """

    def __init__(self) -> None:
        self.submitted: dict[str, set[str]] = defaultdict(set)
        self.held: dict[str, set[str]] = defaultdict(set)
        self.removed: dict[str, set[str]] = defaultdict(set)

    def remove_held(self, partition: str) -> None:
        self.removed[partition] |= self.held.pop(partition, set())

    def take(self, trainer: Any, point: str) -> None:
        """Stop the rollouts, and compare when everything is quiet."""
        with _no_tokens() as server:
            for _ in range(_TRIES):
                state = self._state(trainer)
                snapshot = _listed_twice(state)
                if self._state(trainer) == state:
                    break
            else:
                raise AssertionError("the rollouts do not stop")
            version = ray.get(server.version.remote())
        record = {"point": point, "step": trainer.global_steps, "version": version, "verl": state, "exporter": snapshot}
        with open(os.environ["VERL_PROBES"], "a") as records:
            records.write(json.dumps(record) + "\n")

    def _state(self, trainer: Any) -> dict[str, Any]:
        """Return what verl's replay buffer makes of a listing, and what the trainer did, by partition."""
        buffer = copy.copy(trainer.replay_buffer)
        for name in _SETS:
            setattr(buffer, name, defaultdict(getattr(buffer, name).default_factory))
        buffer._sync_metadata_from_transfer_queue()
        return {name: self._partition(trainer, buffer, name) for name in list(buffer.partitions) if name[:2] != "__"}

    def _partition(self, trainer: Any, buffer: Any, name: str) -> dict[str, Any]:
        reasons = buffer._terminal_eviction_reasons(trainer.global_steps, name)
        versions: dict[str, list[int | None]] = defaultdict(list)
        padding = 0
        for key, tag in buffer.partitions[name].items():
            if tag.get("is_padding"):
                padding += 1
            else:
                versions[key.split("_")[0]].append(tag.get("min_global_steps"))  # a put lists keys before tags
        return {
            "unfinished": sorted(buffer.pending_keys[name] | buffer.running_keys[name]),
            "finished": sorted(buffer.finished_keys[name]),
            "failed": sorted(buffer.failure_keys[name]),
            "sampleable": sorted(buffer._sampleable_terminal_keys(name, reasons)),
            "stale": sorted(reasons[0]),
            "steps": dict(buffer.prompt_global_steps[name]),
            "versions": versions,
            "padding": padding,
            "submitted": len(self.submitted[name]),
            "held": sorted(self.held[name]),
            "removed": len(self.removed[name]),
        }


@contextmanager
def _no_tokens() -> Iterator[Any]:
    """Stop the server between two tokens."""
    server = ray.get_actor(SERVER)
    ray.get(server.freeze.remote(True))
    try:
        yield server
    finally:
        ray.get(server.freeze.remote(False))


def _snapshot() -> dict[str, Any]:
    with urllib.request.urlopen(os.environ["VERL_EXPORTER"] + "/api/v1/snapshot", timeout=10) as answer:
        snapshot: dict[str, Any] = json.load(answer)
        return snapshot


def _listed_twice(names: Collection[str]) -> dict[str, Any]:
    """Return a snapshot with listings of the partitions *names* that all began after this call.

    The first listing after it may have begun before.
    """
    since = time.time()
    for _ in range(2):
        seen: list[dict[str, Any]] = []

        def listed(since: float = since, seen: list[dict[str, Any]] = seen) -> bool:
            seen[:] = [_snapshot()]
            times = {one["partition"]: one["listed_at"] for one in seen[0]["partitions"]}
            return all(times.get(name, 0.0) > since for name in names)

        wait_until(listed, "a listing")
        since = max(one["listed_at"] for one in seen[0]["partitions"])
    return seen[0]


def install(trainer_base: Any) -> None:
    """Put the probes into verl's trainer."""
    probes = _Probes()
    Wrapped = Callable[..., Any]
    Named = Mapping[str, Any]

    def before_training(fit: Wrapped, trainer: Any, args: Any, named: Named) -> Any:
        wait_until(lambda: _snapshot()["total"] is not None, "the exporter")
        return fit(*args, **named)

    def submit(submit: Wrapped, trainer: Any, args: Any, named: Named) -> Any:
        (batch,) = args
        probes.submitted["train"].update(batch["uid"])
        with _no_tokens():
            result = submit(batch)
            _listed_twice(["train"])  # a group that comes and goes between two listings is never seen
        return result

    def prepare(prepare: Wrapped, trainer: Any, args: Any, named: Named) -> Any:
        exec(os.environ.get("VERL_IN_PREPARE_STEP", ""), {"tq": tq, "self": trainer})
        return prepare(*args, **named)

    def begin_step(add: Wrapped, trainer: Any, args: Any, named: Named) -> None:
        probes.remove_held("train")
        add(*args, **named)
        probes.take(trainer, "submitted")

    def balance(balance: Wrapped, trainer: Any, args: Any, named: Named) -> Any:
        probes.take(trainer, "sampled")
        batch = balance(*args, **named)
        probes.take(trainer, "balanced")
        return batch

    def validate(validate: Wrapped, trainer: Any, args: Any, named: Named) -> Any:
        metrics = validate(*args, **named)
        probes.remove_held("val")
        return metrics

    def build(build: Wrapped, trainer: Any, args: Any, named: Named) -> Any:
        buffer = build(*args, **named)

        def sample(sample: Wrapped, _: Any, args: Any, named: Named) -> Any:
            partition = named["partition_id"]
            batch, metrics = sample(*args, **named)
            uids = {key.split("_")[0] for key in batch.keys}
            probes.held[partition] |= uids
            if partition == "val":
                probes.submitted["val"] |= uids
                probes.take(trainer, "validating")
            return batch, metrics

        wrapt.wrap_function_wrapper(buffer, "sample", sample)
        return buffer

    for name, wrapper in {
        "fit": before_training,
        "prepare_step": prepare,
        "_submit_batch_to_rollout": submit,
        "_add_batch_to_generate": begin_step,
        "_balance_batch": balance,
        "_validate": validate,
        "_build_replay_buffer": build,
    }.items():
        wrapt.wrap_function_wrapper(trainer_base.PPOTrainer, name, wrapper)
