"""Reads a run's file of wandb with wandb's own messages. The file is a log in LevelDB's format."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["history", "records"]

_BLOCK = 32768
_FILE_HEADER = 7
_HEADER = struct.Struct("<IHB")
_LAST = (1, 4)  # a whole record, the last part of one


def records(file: Path) -> Iterator[Any]:
    """Yield the records of the run, as wandb's messages."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = file.read_bytes(), _FILE_HEADER, b""
    assert data.startswith(b":W&B")
    while at + _HEADER.size <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER.size:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        parts += data[at : at + length]
        at += length
        if kind in _LAST:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(file: Path) -> list[dict[str, Any]]:
    """Return the logged points, oldest first."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(file)
        if record.WhichOneof("record_type") == "history"
    ]
