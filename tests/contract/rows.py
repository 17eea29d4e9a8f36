"""Tensors for the contract tests."""

from __future__ import annotations

import torch
from tensordict import TensorDict


def rows(count: int, *names: str) -> TensorDict:
    """Return *count* rows of the fields *names* (default ``tokens``); row ``i`` is ``[i, i, i]``."""
    column = torch.arange(count).unsqueeze(1).expand(count, 3).contiguous()
    return TensorDict({name: column.clone() for name in names or ("tokens",)}, batch_size=[count])


def values(data: TensorDict, name: str = "tokens") -> list[list[int]]:
    """Return a field's rows as lists, dense or nested."""
    return [row.tolist() for row in data[name].unbind()]
