"""Checkpoints of TransferQueue: all rows, tags and cursors in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from dataplane.adapters.arguments import check_partition
from dataplane.adapters.checkpoints import check_unused, checkpoint_file, checkpoint_folder, json_metadata
from dataplane.adapters.transfer_queue.attached import AttachedCalls
from dataplane.errors import DataPlaneBadRequest, DataPlaneReadError, DataPlaneWriteError

__all__ = ["SIMPLE_STORAGE", "CheckpointCalls"]

SIMPLE_STORAGE: Final = "SimpleStorage"

# TransferQueue writes or reads all rows of all storage units meanwhile.
_TIMEOUT_S: Final = 600.0


class CheckpointCalls(AttachedCalls):
    """The calls that save and restore."""

    def list_sample_ids(self, partition_id: str) -> list[str]:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.list_sample_ids`."""
        operation = "list_sample_ids"
        check_partition(operation, partition_id)

        async def call() -> Any:
            return await self._list_rows(partition_id)

        return sorted(self._call_tq(operation, call, DataPlaneReadError, partition_id=partition_id))

    def save_checkpoint(self, checkpoint_dir: str | Path, *, metadata: dict[str, Any] | None = None) -> None:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.save_checkpoint`. Its deadline is at least 600 s."""
        operation = "save_checkpoint"
        folder = checkpoint_folder(operation, checkpoint_dir)
        described: dict[str, Any] = json.loads(json_metadata(metadata))

        def call() -> None:
            if self._attachment.backend != SIMPLE_STORAGE:
                raise DataPlaneBadRequest(f"TransferQueue saves no rows of its backend {self._attachment.backend}")
            self._client()
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._tq.save_checkpoint(folder, metadata=described)

        self._call_tq(operation, call, DataPlaneWriteError, timeout_s=max(self._timeout_s, _TIMEOUT_S), storage=True)

    def load_checkpoint(self, checkpoint_dir: str | Path) -> dict[str, Any]:
        """See :meth:`~dataplane.interfaces.DataPlaneClient.load_checkpoint`. Its deadline is at least 600 s.

        The number of storage units must be that of the checkpoint.
        """
        check_unused(self._used)
        described = checkpoint_file(checkpoint_dir, "metadata.json")

        def call() -> Any:
            self._client()
            self._tq.load_checkpoint(described.parent)
            return json.loads(described.read_bytes()).get("user_metadata") or {}

        loaded: dict[str, Any] = self._call_tq(
            "load_checkpoint", call, DataPlaneReadError, timeout_s=max(self._timeout_s, _TIMEOUT_S), storage=True
        )
        return loaded
