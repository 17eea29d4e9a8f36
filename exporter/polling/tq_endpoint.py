"""Reads TransferQueue's own metrics over HTTP, and only what the exporter uses of them."""

from __future__ import annotations

import contextlib
import http.client
import math
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Final

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
from exporter.model.histogram import Histogram
from exporter.model.tasks import (
    CONTROLLER_OPERATIONS,
    OTHER_OPERATION,
    REQUEST_BOUNDS,
    ControllerRequests,
    ControllerState,
    OwnMetrics,
    TaskState,
)

__all__ = ["MAX_BYTES", "TqMetricsReader", "parse"]

MAX_BYTES: Final = 4 * 2**20
"""A larger page is refused: about a hundred partitions with a hundred tasks each."""

_USED: Final = ("tq_partition_", "tq_controller_request_", "tq_controller_memory_rss_bytes", "tq_controller_uptime_")


class TqMetricsReader:
    """Reads the page at TransferQueue's metrics endpoint. Not thread-safe, except :meth:`close`.

    Args:
        endpoint: ``HOST:PORT``.
        timeout_s: Deadline of a reading in seconds, from the look-up of the name to the last byte.
    """

    def __init__(self, endpoint: str, *, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        host, _, port = endpoint.rpartition(":")  # TransferQueue writes an IPv6 address without brackets
        self._host, self._port = host.removeprefix("[").removesuffix("]"), port
        self._resolver = Resolver(self._host)
        self._socket: socket.socket | None = None  # http.client drops its own as soon as the answer begins
        self._closed = False

    def read(self) -> OwnMetrics:
        """Return what the page shows.

        Raises:
            DataPlaneUnavailable: Nothing listens there, the connection ended, or this reader is closed.
            DataPlaneTimeout: The page was not complete in time.
            DataPlaneReadError: It is no page of TransferQueue's metrics, or too large.
            DataPlaneBadRequest: The endpoint is no address.
        """
        expired = threading.Event()
        try:
            return parse(self._fetch(expired))
        except DataPlaneError as error:
            error.operation = "tq_metrics"
            raise
        except (OSError, http.client.HTTPException) as error:
            failure: DataPlaneError
            if expired.is_set() or isinstance(error, TimeoutError):
                failure = self._late()
            elif isinstance(error, OSError):
                failure = DataPlaneUnavailable(f"{self._where} are gone: {error}")
            else:
                failure = DataPlaneReadError(f"{self._where} cannot be read: {type(error).__name__}: {error}"[:300])
            failure.operation = "tq_metrics"
            raise failure from error

    def close(self) -> None:
        """End a reading in flight, idempotently. Later readings raise DataPlaneUnavailable."""
        self._closed = True
        self._cut()

    @property
    def _where(self) -> str:
        return f"TransferQueue's metrics at {self._endpoint[:100]}"

    def _late(self) -> DataPlaneTimeout:
        return DataPlaneTimeout(f"{self._where} did not answer within {self._timeout_s:g} s")

    def _fetch(self, expired: threading.Event) -> bytes:
        """Return the page. *expired* is set when the deadline passes; the connection is cut then."""
        deadline = time.monotonic() + self._timeout_s
        if not re.fullmatch(r"[0-9]{1,5}", self._port) or not 0 < int(self._port) < 65536:
            raise DataPlaneBadRequest(f"{self._endpoint[:100]!r} is no address of metrics")
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


def parse(page: bytes) -> OwnMetrics:
    """Return what a page of TransferQueue's metrics shows. Values that are impossible count as unknown.

    Raises:
        DataPlaneReadError: It is not in Prometheus's text format, or not of TransferQueue's controller.
    """
    samples: dict[str, int] = {}
    consumed: dict[tuple[str, str], float] = {}
    produced: dict[tuple[str, str], float] = {}
    arrived: dict[str, int] = defaultdict(int)
    failed: dict[str, int] = defaultdict(int)
    sums: dict[str, float] = defaultdict(float)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    memory: int | None = None
    uptime: float | None = None
    for one in _samples(page):
        name, labels, value = one.name, one.labels, one.value
        partition, task = labels.get("partition_id", ""), labels.get("task_name", "")
        operation = labels.get("op_type", "")
        operation = operation if operation in CONTROLLER_OPERATIONS else OTHER_OPERATION
        if not (math.isfinite(value) and 0 <= value < 2**63):
            continue
        if name == "tq_partition_samples_total":
            samples[partition] = int(value)
        elif name == "tq_partition_consumption_progress":
            consumed[partition, task] = value
        elif name == "tq_partition_production_progress":
            produced[partition, task] = value
        elif name == "tq_controller_request_total":
            arrived[operation] += int(value)
        elif name == "tq_controller_request_errors_total":
            failed[operation] += int(value)
        elif name == "tq_controller_request_duration_seconds_sum":
            sums[operation] += value
        elif name == "tq_controller_request_duration_seconds_bucket":
            buckets[operation][_bound(labels)] += value
        elif name == "tq_controller_memory_rss_bytes":
            memory = int(value) or None
        elif name == "tq_controller_uptime_seconds":
            uptime = value
    if uptime is None:
        raise DataPlaneReadError("the page shows no metrics of TransferQueue's controller")
    # A share of nothing is unknown; TransferQueue says 0.
    tasks = [
        TaskState(partition, task, consumed.get((partition, task)), produced.get((partition, task)))
        for partition, task in sorted(consumed.keys() | produced.keys())
        if samples.get(partition)
    ]
    requests = tuple(
        ControllerRequests(
            operation,
            arrived[operation],
            failed.get(operation),
            _histogram(buckets.get(operation, {}), sums.get(operation, 0.0)),
        )
        for operation in CONTROLLER_OPERATIONS
        if operation in arrived
    )
    return OwnMetrics(samples, tasks, ControllerState(memory, requests), uptime)


def _samples(page: bytes) -> Iterator[Sample]:
    """Yield the samples that are used."""
    try:
        lines = page.decode("utf-8").split("\n")
        used = "\n".join(line for line in lines if line.startswith(_USED)) + "\n"
        for family in text_string_to_metric_families(used):
            yield from family.samples
    except Exception as error:  # whatever the parser raises for a text that is none
        raise DataPlaneReadError(f"the page is not in Prometheus's text format: {str(error)[:200]}") from error


def _bound(labels: Mapping[str, str]) -> float:
    try:
        return float(labels["le"])
    except (KeyError, ValueError):
        return math.nan


def _histogram(cumulative: dict[float, float], total: float) -> Histogram | None:
    """Return the histogram of cumulated buckets, None when its bounds are not the declared ones."""
    if tuple(sorted(cumulative)) != (*REQUEST_BOUNDS, math.inf):
        return None
    counts = [int(cumulative[bound]) for bound in sorted(cumulative)]
    below = [0, *counts[:-1]]
    steps = [count - last for count, last in zip(counts, below, strict=True)]
    return Histogram(REQUEST_BOUNDS, tuple(steps), total) if min(steps) >= 0 else None
