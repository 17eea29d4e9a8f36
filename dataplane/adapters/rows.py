"""Rows with data: what can be stored, and how rows are packed when they are read. The same for every adapter.

Importing this module imports torch and tensordict.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from dataplane.adapters.arguments import UnstorableValueError

# Torch warns once per process that its nested tensors may change; TransferQueue makes them of every ragged column.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.nested.nested_tensor([torch.zeros(())])

__all__ = ["check_no_empty_row", "empty", "pack", "repacked", "scalars_apart", "storable"]


def storable(partition_id: str, fields: TensorDict) -> TensorDict:
    """Return *fields* with one value per row in every leaf: tensors, and the other objects as a NonTensorStack.

    Raises:
        UnstorableValueError: A leaf is a TensorDict, or one object for all rows.
    """
    rows = fields.batch_size[0]
    before = dict(_leaves(fields))
    after = {name: _storable_leaf(partition_id, name, leaf, rows) for name, leaf in before.items()}
    if all(after[name] is leaf for name, leaf in before.items()):
        return fields
    return TensorDict(after, batch_size=[rows])


def _storable_leaf(partition_id: str, name: str, leaf: Any, rows: int) -> Any:
    if isinstance(leaf, torch.Tensor):
        return leaf.detach() if leaf.requires_grad else leaf
    if isinstance(leaf, NonTensorStack):
        return leaf
    value = leaf.data if isinstance(leaf, NonTensorData) else leaf
    # An array of objects, which tensordict takes for one object.
    if isinstance(value, np.ndarray) and value.ndim and len(value) == rows:
        return NonTensorStack(*value)
    raise UnstorableValueError(
        f"the non-tensor leaf {name!r} ({type(value).__name__}) has not one value per row: give a NonTensorStack or an "
        f"array of {rows} objects",
        operation="put_samples",
        partition_id=partition_id,
    )


def pack(values: Sequence[Any]) -> Any:
    """Return the *values* of a column, at least one: of equal shape dense, ragged nested, objects as a NonTensorStack.

    Ragged tensors are jagged where only the first dimension differs, else strided; tensors that no nested tensor holds,
    for example of different rank, are stacked like objects.
    """
    if not all(isinstance(value, torch.Tensor) for value in values):
        return NonTensorStack(*values)
    if len({value.shape for value in values}) == 1:
        return torch.stack(list(values))
    if len({value.dim() for value in values}) > 1:
        return NonTensorStack(*values)
    same_rest = len({value.shape[1:] for value in values}) == 1
    return torch.nested.as_nested_tensor(list(values), layout=torch.jagged if same_rest else torch.strided)


def repacked(data: TensorDict) -> TensorDict:
    """Return what TransferQueue read with its columns packed like :func:`pack`: it nests rows of equal shape, too."""
    packed = {
        name: _dense_if_equal(leaf) if isinstance(leaf, torch.Tensor) and leaf.is_nested else leaf
        for name, leaf in _leaves(data)
    }
    return TensorDict(packed, batch_size=data.batch_size)


def _dense_if_equal(nested: torch.Tensor) -> torch.Tensor:
    if nested.layout is torch.jagged and nested.lengths() is None and nested._ragged_idx == 1:
        # Its rows stand one after the other in one tensor; to unbind it takes longer than TransferQueue's whole read.
        values, offsets = nested._values, nested.offsets()
        rows = len(offsets) - 1
        length = len(values) // rows
        if not torch.equal(offsets, torch.arange(rows + 1, device=offsets.device) * length):
            return nested
        return values.reshape(rows, length, *values.shape[1:])
    values = nested.unbind()
    return torch.stack(values) if len({value.shape for value in values}) == 1 else nested


def scalars_apart(fields: TensorDict) -> TensorDict:
    """Return *fields* with each column of scalars as one nested tensor of scalars.

    TransferQueue takes the row of a dense column without further dimensions for a row of one. Of a nested column it
    keeps the shape of each row, and whoever reads it gets the column that was written.
    """
    leaves = {
        name: torch.nested.nested_tensor(list(leaf)) if _is_dense(leaf) and leaf.dim() == 1 and len(leaf) else leaf
        for name, leaf in _leaves(fields)
    }
    return TensorDict(leaves, batch_size=fields.batch_size)


def check_no_empty_row(partition_id: str, keys: Sequence[str], fields: TensorDict) -> None:
    """Raise UnstorableValueError, which names the first one, if a value of *keys* has zero bytes."""
    for name, leaf in _leaves(fields):
        if not isinstance(leaf, torch.Tensor) or (_is_dense(leaf) and (leaf.numel() or not len(leaf))):
            continue
        for key, value in zip(keys, leaf.unbind(), strict=True):
            if not value.numel():
                raise UnstorableValueError(
                    f"field {name!r} of sample {key!r} has zero elements, which Mooncake does not store: leave such "
                    "rows out, or pad them",
                    operation="put_samples",
                    partition_id=partition_id,
                )


def empty() -> TensorDict:
    """Return what a read of no rows gives."""
    return TensorDict({}, batch_size=[0])


def _leaves(data: TensorDict) -> list[tuple[str, Any]]:
    return [(name, data.get(name)) for name in data.keys()]  # noqa: SIM118


def _is_dense(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and not leaf.is_nested
