"""A batch's addresses: batches made of others share no tag with them, and stamped values are Python's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from dataplane.interfaces import KVBatchMeta


def _batch(*keys: str) -> KVBatchMeta:
    return KVBatchMeta("p", "train", list(keys), ["tokens"], [3] * len(keys), {"x": 1}, [{"of": key} for key in keys])


_MADE: dict[str, Callable[[KVBatchMeta], KVBatchMeta | None]] = {
    "subset": lambda batch: batch.subset([1, 0]),
    "slice": lambda batch: batch.slice(0, 2),
    "drop": lambda batch: batch.drop([-1]),
    "concat": lambda batch: batch.concat(),
    "concat, as the second": lambda batch: _batch("z").concat(batch),
    "with_fields": lambda batch: batch.with_fields(["reward"]),
}


@pytest.mark.parametrize("name", _MADE)
def test_what_is_made_of_a_batch_has_tags_of_its_own(name: str) -> None:
    batch = _batch("a", "b", "c")
    made = _MADE[name](batch)
    assert made is not None
    assert made.tags == [{"of": key} for key in made.sample_ids]
    made.stamp_tags({"step": [1] * made.size})
    made.extra_info["y"] = 2
    assert (batch.tags, batch.extra_info) == ([{"of": "a"}, {"of": "b"}, {"of": "c"}], {"x": 1})


@pytest.mark.parametrize(
    "values",
    [[1, 2], np.array([1, 2]), torch.tensor([1, 2]), [np.int64(1), np.int64(2)], list(torch.tensor([1, 2]))],
    ids=["list", "array", "tensor", "list of NumPy scalars", "list of tensors"],
)
def test_stamped_values_are_python_scalars(values: Sequence[Any]) -> None:
    batch = _batch("a", "b")
    batch.stamp_tags({"weight_version": values})
    stamped = [tag["weight_version"] for tag in batch.tags or []]
    assert stamped == [1, 2]
    assert [type(value) for value in stamped] == [int, int]


def test_other_values_are_stamped_as_they_are() -> None:
    batch = KVBatchMeta("p", None, ["a", "b"])
    batch.stamp_tags({"status": ["finished", None], "loss": np.array([0.5, 1.5])})
    assert batch.tags == [{"status": "finished", "loss": 0.5}, {"status": None, "loss": 1.5}]


def test_a_column_of_another_length_changes_no_tag() -> None:
    batch = _batch("a", "b")
    with pytest.raises(ValueError, match="3 values of 'late' for 2 samples"):
        batch.stamp_tags({"early": [1, 2], "late": np.arange(3)})
    assert batch.tags == [{"of": "a"}, {"of": "b"}]
