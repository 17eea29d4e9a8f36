"""Reads a page of metrics over HTTP within a deadline and a bound."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final, TypeVar

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
)
from dataplane.net.resolver import Resolver

__all__ = ["MAX_BYTES", "MetricsPage", "samples"]

T = TypeVar("T")

MAX_BYTES: Final = 4 * 2**20
"""A larger page is refused: of TransferQueue's own metrics, about a hundred partitions with a hundred tasks each."""


class MetricsPage:
    """The page ``/metrics`` of an endpoint. Not thread-safe, except :meth:`close`.

    Args:
        endpoint: ``HOST:PORT``.
        whose: Whose metrics they are, for messages.
        operation: The operation of its errors.
        timeout_s: Deadline of a reading in seconds, from the look-up of the name to the last byte.
    """

    def __init__(self, endpoint: str, *, whose: str, operation: str, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._where = f"{whose} at {endpoint[:100]}"
        self._operation = operation
        self._timeout_s = timeout_s
        host, _, port = endpoint.rpartition(":")  # TransferQueue writes an IPv6 address without brackets
        self._host, self._port = host.removeprefix("[").removesuffix("]"), port
        self._resolver = Resolver(self._host)
        self._socket: socket.socket | None = None  # http.client drops its own as soon as the answer begins
        self._closed = False

    def read(self, parse: Callable[[bytes], T]) -> T:
        """Return what *parse* makes of the page. The operation is named on its DataPlaneError too.

        Raises:
            DataPlaneUnavailable: Nothing listens there, the connection ended, or this page is closed.
            DataPlaneTimeout: The page was not complete in time.
            DataPlaneReadError: There is no such page, or it is too large.
            DataPlaneBadRequest: The endpoint is no address.
        """
        expired = threading.Event()
        try:
            return parse(self._fetch(expired))
        except DataPlaneError as error:
            error.operation = self._operation
            raise
        except (OSError, http.client.HTTPException) as error:
            failure: DataPlaneError
            if expired.is_set() or isinstance(error, TimeoutError):
                failure = self._late()
            elif isinstance(error, OSError):
                failure = DataPlaneUnavailable(f"{self._where} are gone: {error}")
            else:
                failure = DataPlaneReadError(f"{self._where} cannot be read: {type(error).__name__}: {error}"[:300])
            failure.operation = self._operation
            raise failure from error

    def close(self) -> None:
        """End a reading in flight, idempotently. Later readings raise DataPlaneUnavailable."""
        self._closed = True
        self._cut()

    def _late(self) -> DataPlaneTimeout:
        return DataPlaneTimeout(f"{self._where} did not answer within {self._timeout_s:g} s")

    def _fetch(self, expired: threading.Event) -> bytes:
        """Return the page. *expired* is set when the deadline passes; the connection is cut then."""
        deadline = time.monotonic() + self._timeout_s
        if not re.fullmatch(r"[0-9]{1,5}", self._port) or not 0 < int(self._port) < 65536:
            raise DataPlaneBadRequest(f"{self._endpoint[:100]!r} is not an address of metrics")
        address = self._resolver.resolve(self._timeout_s)
        left_s = deadline - time.monotonic()
        if address is None or left_s <= 0:
            raise self._late()
        # http.client uses no proxy and follows no redirect.
        connection = http.client.HTTPConnection(address, int(self._port), timeout=left_s)

        def expire() -> None:
            expired.set()
            self._cut()

        # A socket's timeout is that of one receive: a peer that sends a byte at a time would never exceed it.
        timer = threading.Timer(left_s, expire)
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            self._socket = connection.sock
            if self._closed:
                raise DataPlaneUnavailable("this reader is closed")
            if expired.is_set():  # before there was a socket to cut
                raise self._late()
            connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
            with connection.getresponse() as answer:
                body = answer.read(MAX_BYTES + 1)
                left = answer.length
        finally:
            timer.cancel()
            self._socket = None
            connection.close()
        if expired.is_set():
            raise self._late()
        if answer.status != HTTPStatus.OK:
            raise DataPlaneReadError(f"{self._where} answered {answer.status}")
        if len(body) > MAX_BYTES:
            raise DataPlaneReadError(f"{self._where} take more than {MAX_BYTES} bytes")
        if left or not body.endswith(b"\n"):
            raise DataPlaneReadError(f"{self._where} are cut short")
        return body

    def _cut(self) -> None:
        """Make every wait for the peer end."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)


def samples(page: bytes, used: tuple[str, ...]) -> Iterator[Sample]:
    """Yield the samples of a page whose names begin with one of *used*.

    Raises:
        DataPlaneReadError: The page is not in Prometheus's text format.
    """
    try:
        lines = page.decode("utf-8").split("\n")
        kept = "\n".join(line for line in lines if line.startswith(used)) + "\n"
        for family in text_string_to_metric_families(kept):
            yield from family.samples
    except Exception as error:  # whatever the parser raises for a text that is none
        raise DataPlaneReadError(f"the page is not in Prometheus's text format: {str(error)[:200]}") from error
