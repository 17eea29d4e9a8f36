"""A batch's metadata: slices, joins and stamps. A batch made from others shares no tag with them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    [[1, 2], np.array([1, 2]), [np.int64(1), np.int64(2)]],
    ids=["list", "array", "list of NumPy scalars"],
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


def full_batch(size: int = 4, **changes: Any) -> KVBatchMeta:
    values: dict[str, Any] = {
        "partition_id": "train",
        "task_name": "trainer",
        "sample_ids": [f"s{n}" for n in range(size)],
        "fields": ["tokens", "reward"],
        "sequence_lengths": [10 * n for n in range(size)],
        "extra_info": {"step": 1},
        "tags": [{"n": n} for n in range(size)],
    }
    return KVBatchMeta(**{**values, **changes})


def test_size_is_the_number_of_samples() -> None:
    assert full_batch(3).size == 3
    assert KVBatchMeta("p", None, []).size == 0


@pytest.mark.parametrize("column", ["tags", "sequence_lengths"])
def test_columns_must_have_one_value_per_sample(column: str) -> None:
    with pytest.raises(ValueError, match=rf"3 {column} do not align 1:1 with 4 sample_ids"):
        full_batch(4, **{column: full_batch(3).tags if column == "tags" else [1, 2, 3]})


def test_subset_takes_every_column_in_the_given_order() -> None:
    part = full_batch().subset([2, 0])
    assert part.sample_ids == ["s2", "s0"]
    assert part.sequence_lengths == [20, 0]
    assert part.tags == [{"n": 2}, {"n": 0}]
    assert (part.partition_id, part.task_name, part.fields) == ("train", "trainer", ["tokens", "reward"])


def test_subset_of_a_bare_batch_stays_bare() -> None:
    part = KVBatchMeta("p", None, ["a", "b"]).subset([1])
    assert (part.sample_ids, part.fields, part.sequence_lengths, part.tags) == (["b"], None, None, None)


@pytest.mark.parametrize(("start", "stop"), [(0, 2), (1, 99), (-2, 4), (3, 1), (0, 0)])
def test_slice_cuts_as_lists_do(start: int, stop: int) -> None:
    assert full_batch().slice(start, stop).sample_ids == full_batch().sample_ids[start:stop]


@given(st.integers(0, 6), st.integers(0, 6))
def test_slices_put_together_are_thefull_batch(size: int, cut: int) -> None:
    whole = full_batch(size)
    assert whole.slice(0, cut).concat(whole.slice(cut, size)) == whole


def test_concat_drops_a_column_that_one_batch_lacks() -> None:
    joined = full_batch(2).concat(full_batch(1, tags=None), full_batch(1, sequence_lengths=None))
    assert joined.sample_ids == ["s0", "s1", "s0", "s0"]
    assert (joined.tags, joined.sequence_lengths) == (None, None)


def test_concat_keeps_the_fields_that_all_have() -> None:
    assert full_batch(1).concat(full_batch(1, fields=["reward", "x"])).fields == ["reward"]
    assert full_batch(1).concat(full_batch(1, fields=None)).fields is None


def test_concat_refuses_another_partition() -> None:
    with pytest.raises(ValueError, match="partition_ids must match"):
        full_batch(1).concat(full_batch(1, partition_id="val"))


def test_drop_removes_samples() -> None:
    left = full_batch().drop([0, -1])
    assert left is not None
    assert left.sample_ids == ["s1", "s2"]
    assert full_batch(2).drop([0, 1]) is None


def test_with_fields_adds_each_name_once() -> None:
    assert full_batch().with_fields(["reward", "logprobs"]).fields == ["tokens", "reward", "logprobs"]
    assert full_batch(fields=None).with_fields(["x"]).fields == ["x"]


def test_stamp_tags_makes_tags_where_there_are_none() -> None:
    bare = KVBatchMeta("p", None, ["a", "b"])
    bare.stamp_tags({"v": [1, 2]})
    assert bare.tags == [{"v": 1}, {"v": 2}]


def test_a_batch_pickles() -> None:
    assert pickle.loads(pickle.dumps(full_batch())) == full_batch()
