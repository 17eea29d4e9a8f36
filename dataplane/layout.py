"""From what a read returns to what a trainer's loop takes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = ["Layout", "materialize"]

Layout = Literal["padded", "jagged"]


def materialize(
    td: TensorDict,
    layout: Layout = "padded",
    pad_value_dict: Mapping[str, int | float] | None = None,
    pad_to_seqlen: int = 0,
) -> Any:
    """Return the columns of *td* by name, rectangular unless asked otherwise. *td* stays as it is.

    Args:
        td: What ``get_samples`` or ``get_data`` returned.
        layout: ``padded`` pads nested columns at the end of each ragged dimension to the longest row; ``jagged`` leaves
            them nested.
        pad_value_dict: Field to the value that pads it; 0 for the others.
        pad_to_seqlen: Pad the second dimension of rectangular columns to at least this length; 0 pads no further.

    Returns:
        A dict of tensors and, for non-tensor columns, NumPy arrays of objects. Inside NeMo RL it is that framework's
        ``BatchedDataDict``.

    Raises:
        ValueError: *layout* is unknown.
        TypeError: A column is neither a tensor nor a NonTensorStack.
    """
    import torch

    if layout not in get_args(Layout):
        raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, not {layout!r}")
    columns: dict[str, Any] = {}
    for name in td.keys():  # noqa: SIM118
        column, pad = td.get(name), (pad_value_dict or {}).get(name, 0)
        if not isinstance(column, torch.Tensor):
            columns[name] = _objects(name, column)
            continue
        if column.is_nested and layout == "padded":
            column = torch.nested.to_padded_tensor(column, padding=pad)
        missing = 0 if column.is_nested or column.dim() < 2 else pad_to_seqlen - column.shape[1]
        if missing > 0:
            column = torch.nn.functional.pad(column, [0, 0] * (column.dim() - 2) + [0, missing], value=pad)
        columns[name] = column
    return _container()(columns)


def _objects(name: str, column: Any) -> Any:
    import numpy as np
    from tensordict import NonTensorData, NonTensorStack

    if not isinstance(column, NonTensorStack | NonTensorData):
        raise TypeError(f"column {name!r} is neither a tensor nor a NonTensorStack but {type(column).__name__}")
    values = column.tolist() if isinstance(column, NonTensorStack) else [column.data]
    objects = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):  # NumPy would take a list of lists for a matrix
        objects[index] = value
    return objects


def _container() -> Any:
    if "nemo_rl" in sys.modules:
        try:
            return importlib.import_module("nemo_rl.distributed.batched_data_dict").BatchedDataDict
        except (ImportError, AttributeError):
            pass
    return dict
