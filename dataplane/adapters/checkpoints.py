"""What every adapter checks before it saves or loads a checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from dataplane.errors import DataPlaneBadRequest

__all__ = ["DATA_OPERATIONS", "check_unused", "checkpoint_file", "checkpoint_folder", "json_metadata"]

DATA_OPERATIONS: Final = frozenset(
    {
        *("register_partition", "claim_meta", "get_data", "check_consumption_status"),
        *("put_samples", "get_samples", "clear_samples"),
    }
)
"""The operations after which a client loads no checkpoint: what it has seen or written would be gone."""


def checkpoint_folder(operation: str, checkpoint_dir: object) -> Path:
    """Return the folder as an absolute path: other processes write to it as well.

    Raises:
        DataPlaneBadRequest: *checkpoint_dir* is no path.
    """
    if not isinstance(checkpoint_dir, str | Path) or not str(checkpoint_dir):
        raise DataPlaneBadRequest(f"checkpoint_dir must be a path, not {checkpoint_dir!r:.80}", operation=operation)
    return Path(os.path.abspath(checkpoint_dir))


def checkpoint_file(checkpoint_dir: object, name: str) -> Path:
    """Return the file *name* of a checkpoint, which is there if the checkpoint is.

    Raises:
        DataPlaneBadRequest: It is not there.
    """
    file = checkpoint_folder("load_checkpoint", checkpoint_dir) / name
    if not file.is_file():
        raise DataPlaneBadRequest(f"no checkpoint in {file.parent}: it has no {name}", operation="load_checkpoint")
    return file


def check_unused(used: bool) -> None:
    """Raise DataPlaneBadRequest if the client was *used* before: a checkpoint replaces all data."""
    if used:
        raise DataPlaneBadRequest(
            "this client has already read, written or claimed, and a checkpoint would undo that: load it first",
            operation="load_checkpoint",
        )


def json_metadata(metadata: dict[str, Any] | None) -> str:
    """Return the caller's metadata as JSON.

    Raises:
        DataPlaneBadRequest: It is no dict, or JSON cannot hold a value of it.
    """
    try:
        if metadata is not None and not isinstance(metadata, dict):
            raise TypeError(f"it is {type(metadata).__name__}, not dict")
        return json.dumps(metadata or {})
    except (TypeError, ValueError, RecursionError) as error:
        raise DataPlaneBadRequest(f"metadata is not JSON: {error}", operation="save_checkpoint") from error
