"""Byte counting: correct for every shape of payload, one pass, no copy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict, lazy_stack, tensorclass

from dataplane.observability import payload as _payload
from dataplane.observability.payload import count_bytes


def jagged(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.zeros(n, dtype=dtype) for n in (3, 5)], layout=torch.jagged)


def strided() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.as_nested_tensor([torch.zeros(3), torch.zeros(5)], layout=torch.strided)


@tensorclass
class _Pair:
    x: torch.Tensor
    note: str


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        (None, 0),
        (5, 0),
        ("text", 0),
        (torch.zeros(2, 3), 24),
        (torch.zeros(2, 3, dtype=torch.bfloat16), 12),
        (torch.zeros(4)[:2], 8),
        (torch.nn.Parameter(torch.zeros(2)), 8),
        (jagged(), 32),
        (jagged(torch.int64), 64),
        (strided(), 32),
        (np.zeros(3, dtype=np.int16), 6),
        ({"x": torch.zeros(2), "y": [torch.zeros(1), np.zeros(1)], "z": "text"}, 20),
        (TensorDict({"x": torch.zeros(2, 3), "n": {"y": torch.zeros(2)}}, batch_size=[2]), 32),
        (TensorDict({"x": jagged(), "s": strided(), "t": NonTensorStack("a", "b")}, batch_size=[2]), 64),
        (TensorDict({}, batch_size=[2]), 0),
        (NonTensorData("text"), 0),
        (lazy_stack([TensorDict({"x": torch.zeros(n)}) for n in (3, 5)]), 32),
        (_Pair(x=torch.zeros(2, 2), note="n", batch_size=[2]), 16),
    ],
)
def test_bytes_of(payload: Any, size: int) -> None:
    assert count_bytes(payload) == size


def test_a_payload_that_contains_itself_ends() -> None:
    loop: dict[str, Any] = {"x": torch.zeros(2)}
    loop["self"] = loop
    assert count_bytes(loop) >= 8


def test_a_payload_is_walked_once_and_no_tensor_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = TensorDict({"x": torch.zeros(2, 3), "j": jagged(), "n": {"y": torch.zeros(2)}}, batch_size=[2])
    count_bytes(batch)  # its classes are cached now
    walks: list[object] = []
    children = dict(_payload._containers)
    for cls, iterate in children.items():
        monkeypatch.setitem(
            _payload._containers, cls, lambda value, iterate=iterate: walks.append(id(value)) or iterate(value)
        )
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert count_bytes(batch) == 24 + 32 + 8
    assert profile.key_averages() == []  # no operator ran: nothing was copied, moved or computed
    assert len(walks) == len(set(walks)) == 2


def test_a_lazy_stack_is_not_stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = lazy_stack([TensorDict({"x": torch.zeros(3)}) for _ in range(2)])
    count_bytes(stack)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert count_bytes(stack) == 24
    assert profile.key_averages() == []


def test_classes_seen_are_bounded() -> None:
    for i in range(3 * _payload._MAX_CLASSES):
        count_bytes(type(f"Leaf{i}", (), {})())
    assert len(_payload._others) <= _payload._MAX_CLASSES
    assert count_bytes(torch.zeros(2)) == 8
