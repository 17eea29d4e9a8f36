"""Tensors where tags are expected: as values that are stamped, and as values that are read."""

from __future__ import annotations

import itertools

import pytest
import torch

from dataplane import conventions
from dataplane.groups import group_rows
from dataplane.interfaces import KVBatchMeta


@pytest.mark.parametrize(
    "values", [torch.tensor([1, 2]), list(torch.tensor([1, 2]))], ids=["tensor", "list of tensors"]
)
def test_stamped_tensors_become_python_scalars(values: torch.Tensor | list[torch.Tensor]) -> None:
    batch = KVBatchMeta("p", None, ["a", "b"])
    batch.stamp_tags({"weight_version": values})
    stamped = [tag["weight_version"] for tag in batch.tags or []]
    assert stamped == [1, 2]
    assert [type(value) for value in stamped] == [int, int]


@pytest.mark.parametrize("value", [torch.tensor(3), torch.tensor([1.0, 2.0])], ids=["scalar", "vector"])
def test_a_tensor_in_a_tag_loses_no_row(value: torch.Tensor) -> None:
    for convention, name in itertools.product(conventions.names(), conventions.schema().checked.__struct_fields__):
        (group,) = group_rows("p", {"k": {name: value}}, convention=convention)
        assert group.keys == ["k"], (convention, name)
