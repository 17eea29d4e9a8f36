"""Discovery by a file that the training side writes and removes; :mod:`dataplane.discovery.record` is its content."""

from __future__ import annotations

import threading
from concurrent import futures
from pathlib import Path
from typing import Final

from dataplane.discovery.record import Endpoint, Starting, decode_record
from dataplane.errors import DataPlaneNotReady, DataPlaneReadError, DataPlaneTimeout
from dataplane.files import read_regular
from dataplane.visible import visible
from exporter.config.addresses import controller_address
from exporter.config.values import BadValue
from exporter.discovery import DiscoveryKind
from exporter.model.results import Absent, Found

__all__ = ["FileDiscovery"]

_MAX_DETAIL: Final = 300
_DEADLINE_S: Final = 5.0
"""A local file takes a millisecond. A file system over the network that does not answer for this long hangs."""


class FileDiscovery:
    """Reads the discovery record in *path*. The file and its folder may appear, change or disappear at any time.

    Only the content counts, never the file's timestamps, which are unreliable on shared file systems. One that hangs
    makes look-ups fail. They work again when it does; meanwhile one thread waits for it, never more.
    """

    kind: Final[DiscoveryKind] = "file"
    recheck_s: Final[float | None] = 2.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = False
        self._reading: futures.Future[bytes] | None = None

    def look(self, previous: Endpoint | None) -> Found | Absent:
        """See :meth:`exporter.discovery.Discovery.look`. A record that was removed means that the data plane has ended.

        Raises:
            DataPlaneNotReady: The record says that the controller is starting.
            DataPlaneReadError: The file cannot be read or is not a discovery record.
            DataPlaneTimeout: The file system does not answer.
        """
        try:
            content = self._read()
        except (FileNotFoundError, NotADirectoryError):
            if self._seen or previous is not None:
                return Absent(ended=True, detail=f"{self._path} was removed")
            return Absent(ended=False, detail=f"{self._path} does not exist yet")
        except DataPlaneTimeout:  # is an OSError, too
            raise
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

    def _read(self) -> bytes:
        """Read the file on a thread of its own: no call ends the wait for a file system that hangs."""
        reading = self._reading
        if reading is None or reading.done():  # done since the last look-up: what it read is old
            reading = self._reading = futures.Future()
            threading.Thread(
                target=_read_into, args=(reading, self._path), name="tq-exporter-file", daemon=True
            ).start()
        if not futures.wait([reading], _DEADLINE_S).done:
            hangs = f"cannot read {self._path}: its file system has not answered for {_DEADLINE_S:g} s"
            raise DataPlaneTimeout(hangs, operation="discover")
        return reading.result()

    def _decode(self, content: bytes) -> Endpoint | Starting:
        try:
            record = decode_record(content)
            if isinstance(record, Endpoint):
                controller_address(record.address)
        except BadValue as error:
            raise self._unreadable(str(error)) from error
        except (ValueError, RecursionError) as error:
            raise self._unreadable(f"it holds no discovery record: {error}") from error
        return record

    def _unreadable(self, reason: str) -> DataPlaneReadError:
        return DataPlaneReadError(f"cannot read {self._path}: {reason}", operation="discover")


def _read_into(reading: futures.Future[bytes], path: Path) -> None:
    try:
        reading.set_result(read_regular(path))
    except BaseException as error:
        reading.set_exception(error)
