"""Discovery by a file that the training side writes and removes; :mod:`dataplane.discovery.record` is its content."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dataplane.discovery.record import Endpoint, Starting, decode_record
from dataplane.errors import DataPlaneNotReady, DataPlaneReadError
from dataplane.visible import visible
from exporter.config.addresses import controller_address
from exporter.config.values import BadValue
from exporter.discovery import DiscoveryKind
from exporter.model.results import Absent, Found

__all__ = ["FileDiscovery"]

_MAX_BYTES: Final = 1 << 20
_MAX_DETAIL: Final = 300


class FileDiscovery:
    """Reads the discovery record in *path*. The file and its folder may appear, change or disappear at any time.

    Only the content counts, never the file's timestamps, which are unreliable on shared file systems.
    """

    kind: Final[DiscoveryKind] = "file"
    recheck_s: Final[float | None] = 2.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = False

    def look(self, previous: Endpoint | None) -> Found | Absent:
        """See :meth:`exporter.discovery.Discovery.look`. A record that was removed means that the data plane has ended.

        Raises:
            DataPlaneNotReady: The record says that the controller is starting.
            DataPlaneReadError: The file cannot be read or is not a discovery record.
        """
        try:
            with self._path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            if self._seen or previous is not None:
                return Absent(ended=True, detail=f"{self._path} was removed")
            return Absent(ended=False, detail=f"{self._path} does not exist yet")
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        record = self._decode(content)
        self._seen = True
        if isinstance(record, Starting):
            detail = record.starting[:_MAX_DETAIL]
            raise DataPlaneNotReady(visible(detail), operation="discover")
        return Found(record)

    def close(self) -> None:
        """See :meth:`exporter.discovery.Discovery.close`."""

    def _decode(self, content: bytes) -> Endpoint | Starting:
        if len(content) > _MAX_BYTES:
            raise self._unreadable(f"it is longer than {_MAX_BYTES} bytes")
        try:
            record = decode_record(content)
            if isinstance(record, Endpoint):
                controller_address(record.address)
        except BadValue as error:
            raise self._unreadable(str(error)) from error
        except ValueError as error:
            raise self._unreadable(f"it holds no discovery record: {error}") from error
        return record

    def _unreadable(self, reason: str) -> DataPlaneReadError:
        return DataPlaneReadError(f"cannot read {self._path}: {reason}", operation="discover")
