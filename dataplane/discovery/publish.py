"""Write the discovery file on the training side, for an exporter that has no Ray.

The exporter reads it with ``--discovery-file``; the record is :class:`dataplane.discovery.record.Endpoint`.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from dataplane.discovery.actor import actors_of_job, ask_controller, check_started, find_controller
from dataplane.discovery.record import Endpoint, Starting, encode_endpoint, encode_starting, endpoint_of, unit_names
from dataplane.errors import DataPlaneNotReady, DataPlaneUnavailable
from dataplane.files import read_regular

__all__ = ["DEFAULT_INTERVAL_S", "EndpointPublisher", "publish_endpoint"]

DEFAULT_INTERVAL_S: Final = 15.0

_ANSWER_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 2.0

_log = logging.getLogger(__name__)


def publish_endpoint(
    path: str | os.PathLike[str], *, interval_s: float = DEFAULT_INTERVAL_S, run: str | None = None
) -> EndpointPublisher:
    """Keep the discovery record of this process's Ray cluster in *path*, from a daemon thread. Returns at once.

    Call it where Ray is connected, before or after TransferQueue starts. The record is there as soon as the
    controller's actor is, and says that it is starting until it has an address. It follows the controller's
    replacement within *interval_s*, and is always whole: it is replaced, never rewritten. A controller that does not
    answer leaves the last record, so that the exporter can say ``lost``.

    The record is removed at a clean end, which tells the exporter that the run has ended: at
    :meth:`EndpointPublisher.close`, at the end of a ``with`` block, or at the exit of the interpreter. It stays
    after an uncaught exception, and after a signal that ends the process.

    Args:
        path: The file, in a folder that the exporter can read. Missing folders are made.
        interval_s: Seconds between two questions to the controller.
        run: Identity of the training run, for ``dataplane_controller_info``.

    Raises:
        ValueError: *interval_s* is not positive.
        OSError: The folder cannot be made or written to.
    """
    if not interval_s > 0:
        raise ValueError(f"interval_s must be positive, not {interval_s}")
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write to {path.parent}: choose a folder that this process may write to")
    return EndpointPublisher(path, interval_s, run)


class EndpointPublisher:
    """A record that is kept current. Made by :func:`publish_endpoint`; a context manager."""

    def __init__(self, path: Path, interval_s: float, run: str | None) -> None:
        self.path = path
        self._interval_s = interval_s
        self._run = run
        self._pid = os.getpid()
        self._written: bytes | None = None
        self._complaint = ""
        self._lock = threading.Lock()  # held while the file is written or removed
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_current, name="tq-exporter-publish", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def close(self) -> None:
        """Stop, and remove the record if it is still the one written here. Idempotent."""
        self._stop(remove=True)

    def __enter__(self) -> EndpointPublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop(remove=error is None)

    def _at_exit(self) -> None:
        # The interpreter sets last_value when an exception was not caught.
        self._stop(remove=getattr(sys, "last_value", None) is None)

    def _stop(self, *, remove: bool) -> None:
        if os.getpid() != self._pid:  # a forked child: the record is its parent's
            return
        atexit.unregister(self._at_exit)
        self._closed.set()
        if not self._lock.acquire(timeout=_CLOSE_TIMEOUT_S):
            return  # the file system hangs
        try:
            if remove and self._written is not None and self._read() == self._written:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("cannot remove the discovery record %s: %s", self.path, error.strerror)
        finally:
            self._written = None
            self._lock.release()

    def _read(self) -> bytes | None:
        try:
            return read_regular(self.path)
        except FileNotFoundError:
            return None

    def _keep_current(self) -> None:
        while not self._closed.is_set():
            try:
                self._update()
            # Ray, TransferQueue and the file system each have errors of their own; none may end this thread.
            except Exception as error:
                self._complain(f"{type(error).__name__}: {error}")
            self._closed.wait(self._interval_s)

    def _update(self) -> None:
        try:
            endpoint = _look()
        except DataPlaneNotReady as error:
            self._write(encode_starting(Starting(str(error), self._run, time.time())))
            self._complain(str(error))
            return
        if endpoint is None:
            self._complain("Ray has no TransferQueue controller yet")
        elif self._write(encode_endpoint(msgspec.structs.replace(endpoint, run=self._run))):
            if self._complaint:
                _log.info("the discovery record %s is current again", self.path)
            self._complaint = ""

    def _write(self, record: bytes) -> bool:
        """Replace the file; return False when it is too late for that."""
        # In the same folder, so that replacing is atomic; with a unique name, so that no other publisher writes to it.
        temporary = self.path.with_name(f".{self.path.name}.{self._pid}.{threading.get_ident()}")
        with self._lock:
            if self._closed.is_set():
                return False
            try:
                temporary.write_bytes(record)
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
            self._written = record
        return True

    def _complain(self, complaint: str) -> None:
        """Log why the record is not current, once per reason."""
        if complaint != self._complaint:
            self._complaint = complaint
            _log.warning("the discovery record %s is not current: %s", self.path, complaint)


def _look() -> Endpoint | None:
    """Ask this process's Ray for the controller; None while there is none. DataPlaneNotReady while it is starting."""
    try:
        controller = find_controller()
    except (DataPlaneUnavailable, ValueError):
        return None
    actor_id = controller._actor_id.hex()
    try:
        server, conf = ask_controller(controller, _ANSWER_TIMEOUT_S)
    except TimeoutError:  # Ray's own is one
        check_started(actor_id)
        raise
    return endpoint_of(actor_id, server, conf, actors_of_job(actor_id, unit_names(conf)))
