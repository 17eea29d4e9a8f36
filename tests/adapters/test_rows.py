"""How rows are packed when they are read, also from backends that treat scalars in their own way."""

from __future__ import annotations

import pytest
import torch
from tensordict import NonTensorStack, TensorDict
from transfer_queue.metadata import extract_field_schema

from dataplane.adapters.rows import check_no_empty_row, pack, repacked, scalars_apart, storable
from dataplane.errors import DataPlaneBadRequest

jagged = torch.nested.as_nested_tensor([torch.arange(1), torch.arange(1)], layout=torch.jagged)


def test_what_transfer_queue_nests_is_dense_again_and_the_rest_stays() -> None:
    ragged = torch.nested.as_nested_tensor([torch.arange(2), torch.arange(3)], layout=torch.jagged)
    read = TensorDict(
        {"equal": jagged, "ragged": ragged, "scalar": torch.tensor([1.0, 2.0]), "text": NonTensorStack("a", "b")},
        batch_size=[2],
    )
    data = repacked(read)
    assert torch.equal(data["equal"], torch.tensor([[0], [0]]))
    assert data["ragged"].is_nested
    assert torch.equal(data["scalar"], torch.tensor([1.0, 2.0]))
    assert (data.batch_size, list(data["text"])) == (torch.Size([2]), ["a", "b"])


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
@pytest.mark.parametrize(
    "shapes",
    [[(2, 3)] * 4, [(1,)], [(0, 2)] * 2, [(2, 3), (4, 3)], [(1,), (3,), (2,)], [(2,), (2,), (3,), (1,)]],
    ids=str,
)
def test_columns_are_dense_exactly_when_their_rows_are_equal(
    shapes: list[tuple[int, ...]], layout: torch.layout
) -> None:
    values = [torch.rand(shape) for shape in shapes]
    nested = torch.nested.as_nested_tensor(values, layout=layout)
    column = repacked(TensorDict({"column": nested}, batch_size=[len(values)]))["column"]
    assert column.is_nested is (len(set(shapes)) > 1)
    assert all(torch.equal(row, value) for row, value in zip(column.unbind(), values, strict=True))


def test_a_column_that_is_ragged_in_another_dimension_is_compared_row_by_row() -> None:
    nested = torch.nested.as_nested_tensor([torch.rand(2, 3), torch.rand(2, 3)], layout=torch.jagged).transpose(1, 2)
    column = repacked(TensorDict({"column": nested}, batch_size=[2]))["column"]
    assert not column.is_nested
    assert torch.equal(column[1], nested.unbind()[1])


def test_tensors_that_no_nested_tensor_holds_are_stacked_like_objects() -> None:
    packed = pack([torch.tensor(1), torch.arange(2)])
    assert isinstance(packed, NonTensorStack)
    assert [torch.as_tensor(value).tolist() for value in packed.tolist()] == [1, [0, 1]]


def test_rows_without_elements_are_dense_too() -> None:
    assert pack([torch.zeros(0, 2), torch.zeros(0, 2)]).shape == (2, 0, 2)


def test_scalars_travel_as_the_scalars_that_transfer_queue_describes() -> None:
    fields = TensorDict(
        {
            "scalar": torch.tensor([1.0, 2.0]),
            "one": torch.ones(2, 1),
            "jagged": jagged,
            "text": NonTensorStack("a", "b"),
        },
        batch_size=[2],
    )
    sent = scalars_apart(fields)
    schema = extract_field_schema(sent)
    assert schema["scalar"]["per_sample_shapes"] == [(), ()]
    assert (schema["scalar"]["dtype"], tuple(schema["one"]["shape"])) == (torch.float32, (1,))
    assert [row.tolist() for row in sent["scalar"].unbind()] == [1.0, 2.0]
    assert sent["jagged"] is fields["jagged"]


@pytest.mark.parametrize(
    "leaf",
    [torch.zeros(2, 0), torch.nested.nested_tensor([torch.zeros(1), torch.zeros(0)], layout=torch.jagged)],
    ids=["dense", "jagged"],
)
def test_a_row_without_elements_is_named(leaf: torch.Tensor) -> None:
    fields = TensorDict({"full": torch.ones(2, 1), "answer": leaf}, batch_size=[2])
    with pytest.raises(DataPlaneBadRequest, match=rf"'answer' of sample '{'a' if not leaf.is_nested else 'b'}'"):
        check_no_empty_row("p", ["a", "b"], fields)
    check_no_empty_row("p", ["a", "b"], fields.exclude("answer"))
    check_no_empty_row("p", [], TensorDict({"x": torch.zeros(0, 3)}, batch_size=[0]))


@pytest.mark.parametrize(
    "leaf", [torch.arange(2), jagged, NonTensorStack("a", "b")], ids=lambda leaf: type(leaf).__name__
)
def test_what_can_be_stored_as_it_is_is_not_copied(leaf: object) -> None:
    fields = TensorDict({"leaf": leaf}, batch_size=[2])
    assert storable("p", fields) is fields
