"""Readers with their own implementation of TransferQueue's protocol: no Ray, no torch, hard deadlines."""

from dataplane.adapters.wire.connection import KnownSender
from dataplane.adapters.wire.limits import DEFAULT_MAX_REPLY_BYTES, DEFAULT_MAX_ROWS, ReplyLimitExceeded
from dataplane.adapters.wire.reader import WireMetadataReader
from dataplane.adapters.wire.storage import StorageUnitMetrics, StorageUnitReader, UnitRequests

__all__ = [
    "DEFAULT_MAX_REPLY_BYTES",
    "DEFAULT_MAX_ROWS",
    "KnownSender",
    "ReplyLimitExceeded",
    "StorageUnitMetrics",
    "StorageUnitReader",
    "UnitRequests",
    "WireMetadataReader",
]
