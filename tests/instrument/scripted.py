"""A client whose answers a test scripts."""

from __future__ import annotations

from typing import Any

from dataplane.interfaces import KVBatchMeta
from dataplane.operations import OPERATIONS


class ScriptedClient:
    """Has every method. Records each call and returns or raises what was scripted for it: an error or its class."""

    def __init__(self, **outcomes: Any) -> None:
        self.outcomes = outcomes
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def _do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((name, args, kwargs))
        outcome = self.outcomes.get(name)
        if isinstance(outcome, BaseException):
            raise outcome.with_traceback(None)  # otherwise each raise would extend the traceback of the one before
        if isinstance(outcome, type) and issubclass(outcome, BaseException):
            raise outcome
        return outcome


def _method(name: str) -> Any:
    def method(self: ScriptedClient, *args: Any, **kwargs: Any) -> Any:
        return self._do(name, *args, **kwargs)

    return method


for _name in OPERATIONS:
    setattr(ScriptedClient, _name, _method(_name))


BATCH = KVBatchMeta("train", "t", ["a", "b"], ["x"], tags=[{}, {}])

CALLS: dict[str, tuple[Any, ...]] = {
    "register_partition": ("train", ["x"], 2, ["t"]),
    "claim_meta": ("train", "t", ["x"], 2),
    "get_data": (BATCH,),
    "check_consumption_status": ("train", ["t"]),
    "put_samples": (["a", "b"], "train"),
    "get_samples": (["a", "b"], "train", ["x"]),
    "clear_samples": (["a", "b"], "train"),
    "ping": (),
    "list_partitions": (),
    "list_metadata": ("train",),
    "list_sample_ids": ("train",),
    "depth": ("train",),
    "pop": (["a", "b"], "train"),
    "evict": (["a", "b"], "train"),
    "save_checkpoint": ("/checkpoints/step_1",),
    "load_checkpoint": ("/checkpoints/step_1",),
    "get_capabilities": (),
    "close": (),
}
"""One call of every operation."""

EVENT_NAMES = {
    "register_partition": "register",
    "put_samples": "put",
    "get_samples": "get",
    "clear_samples": "clear",
}
"""Operations whose name in events differs from the method's."""
