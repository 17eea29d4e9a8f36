"""``materialize``: what a read returned, as the rectangular columns of a training loop."""

from __future__ import annotations

import sys
from collections import UserDict
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import NonTensorStack, TensorDict

from dataplane import materialize

_RAGGED = torch.nested.as_nested_tensor([torch.ones(1), torch.ones(3)], layout=torch.jagged)
_READ = TensorDict(
    {
        "tokens": _RAGGED,
        "mask": torch.ones(2, 2, 5),
        "reward": torch.tensor([1.0, 2.0]),
        "log": NonTensorStack([1], [2]),
    },
    batch_size=[2],
)


def test_nested_columns_are_padded_with_their_value() -> None:
    columns = materialize(_READ, pad_value_dict={"tokens": -1})
    assert type(columns) is dict
    assert columns["tokens"].tolist() == [[1, -1, -1], [1, 1, 1]]
    assert columns["reward"].tolist() == [1.0, 2.0]
    assert (columns["log"].dtype, columns["log"].tolist()) == (np.dtype(object), [[1], [2]])
    assert materialize(_READ)["tokens"][0].tolist() == [1, 0, 0]
    assert _READ["tokens"].is_nested


def test_a_common_length_pads_the_second_dimension_alone() -> None:
    columns = materialize(_READ, "padded", {"mask": 7}, 4)
    assert (columns["tokens"].shape, columns["mask"].shape, columns["reward"].shape) == ((2, 4), (2, 4, 5), (2,))
    assert columns["mask"][0, 1].tolist() == [1] * 5
    assert columns["mask"][0, 3].tolist() == [7] * 5
    assert materialize(_READ, pad_to_seqlen=1)["tokens"].shape == (2, 3)


def test_the_layout_jagged_leaves_nested_columns_alone() -> None:
    columns = materialize(_READ, "jagged", pad_to_seqlen=4)
    assert columns["tokens"].is_nested
    assert columns["mask"].shape == (2, 4, 5)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="layout must be one of padded, jagged, not 'strided'"):
        materialize(_READ, "strided")  # type: ignore[arg-type]


def test_a_column_that_is_no_column_is_refused() -> None:
    with pytest.raises(TypeError, match="column 'x'"):
        materialize(TensorDict({"x": TensorDict({"y": torch.ones(2)}, batch_size=[2])}, batch_size=[2]))


def test_inside_nemo_rl_it_is_the_frameworks_own_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: Any = ModuleType("nemo_rl.distributed.batched_data_dict")
    batches.BatchedDataDict = type("BatchedDataDict", (UserDict,), {})
    monkeypatch.setitem(sys.modules, "nemo_rl", ModuleType("nemo_rl"))
    assert type(materialize(_READ)) is dict  # only an alias of that name, without the framework
    monkeypatch.setitem(sys.modules, "nemo_rl.distributed", ModuleType("nemo_rl.distributed"))
    monkeypatch.setitem(sys.modules, batches.__name__, batches)
    assert type(materialize(_READ)) is batches.BatchedDataDict
