"""Many simulated exporters in one process: real rendering of snapshots that differ and move on with each collection.

Each has a telemetry pipeline of its own. They are scraped on paths of one server (``/17/metrics``), or they push.
"""

from __future__ import annotations

import gzip
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from benchmarks.otlp import push
from exporter.conditions import CONDITIONS
from exporter.config import Config, Otlp
from exporter.model.condition import Condition
from exporter.model.snapshot import LAG_BOUNDS, RESIDENCE_BOUNDS, Histogram, Snapshot
from exporter.model.storage import StorageRequests, StorageState
from exporter.telemetry import Telemetry
from tests.support.snapshots import flow, partition, rich_snapshot, with_totals

__all__ = ["Process", "Served", "Simulated", "pushing", "serving"]

_NAMES = ("train", "val", "rollout_staging", "ref")
_OPERATIONS = ("PUT_DATA", "GET_DATA", "CLEAR_DATA", "GET_METRICS")


class Simulated:
    """One run's exporter.

    Args:
        number: Chooses the run's name and what its data plane looks like.
        partitions: How many partitions it has; None for 1 to 4.
        units: How many storage units; None for 1 to 8.
        otlp: Where to push.
    """

    def __init__(
        self, number: int, *, partitions: int | None = None, units: int | None = None, otlp: Otlp | None = None
    ) -> None:
        self._random = random.Random(number)
        drawn = self._random.randint(1, len(_NAMES)), self._random.randint(1, 8)
        self._partitions, self._units = partitions or drawn[0], units or drawn[1]
        self._step = self._random.randint(1, 1000)
        self.telemetry = Telemetry(Config(run=f"run-{number}", otlp=otlp or Otlp()), self._snapshot)

    def advance(self) -> None:
        """Let the time of one interval pass."""
        self._step += 1
        for _ in range(3):
            self.telemetry.recorder.ping(self._random.uniform(0.0005, 0.02), None)
        self.telemetry.recorder.poll("metadata", "ok")

    def _snapshot(self) -> Snapshot:
        rich, step, draw = rich_snapshot(), self._step, self._random
        names = [
            _NAMES[index] if index < len(_NAMES) else f"part_{chr(97 + index)}" for index in range(self._partitions)
        ]
        parts = tuple(partition(name, groups=draw.randint(5, 90), newest=step // 4, versions=4) for name in names)
        flows = tuple(
            replace(
                flow(name),
                arrived=7 * step + 3,
                completed=7 * step,
                departed=7 * step - 2,
                residence=Histogram(RESIDENCE_BOUNDS, (step,) * (len(RESIDENCE_BOUNDS) + 1), 31.5 * step),
                departure_lag=Histogram(LAG_BOUNDS, (step,) * (len(LAG_BOUNDS) + 1), 2.0 * step),
            )
            for name in names
        )
        storage = tuple(
            StorageState(
                index,
                f"TQ_STORAGE_UNIT_{index}",
                capacity=10_000,
                keys=draw.randint(100, 9_000),
                memory_bytes=draw.randint(10**8, 10**9),
                requests=tuple(StorageRequests(name, 40 * step, 40 * step, 0.5 * step) for name in _OPERATIONS),
            )
            for index in range(self._units)
        )
        now = time.time()
        conditions = tuple(Condition(r.name, r.stage, r.severity, False, degrades=r.degrades) for r in CONDITIONS)
        return with_totals(
            replace(
                rich,
                taken_at=now,
                partitions=parts,
                statuses=tuple(replace(rich.statuses[0], partition=name, listed_at=now) for name in names),
                flows=flows,
                storage=storage,
                store=None,
                samples=(),
                tasks=(),
                conditions=conditions,
                sources=tuple(replace(source, last_success=now) for source in rich.sources),
                reference_version=step // 4,
            )
        )


class Served(NamedTuple):
    """What a process of exporters has done: scrapes or pushes, their bytes (scrapes only), and its CPU seconds."""

    times: int
    size: int
    cpu_s: float


class Process:
    """A process with many exporters."""

    def __init__(self, target: Any, *arguments: object) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()
        self.port: int = self._pipe.recv()

    def served(self) -> Served:
        """Return what it has done so far."""
        self._pipe.send("tell")
        return Served(*self._pipe.recv())

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


@contextmanager
def serving(exporters: int, *, compress: bool) -> Iterator[Process]:
    """Serve that many exporters on one port of loopback."""
    process = Process(_serve, exporters, compress)
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def pushing(exporters: int, url: str, interval_s: float, *, compress: bool) -> Iterator[Process]:
    """Let that many exporters push to *url* once per interval, spread over it."""
    process = Process(_push, exporters, url, interval_s, compress)
    try:
        yield process
    finally:
        process.stop()


def _serve(pipe: Connection, exporters: int, compress: bool) -> None:
    fleet = [Simulated(number) for number in range(exporters)]
    counts = {"count": 0, "size": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one = fleet[int(self.path.split("/")[1])]
            one.advance()
            body, kind = one.telemetry.scrape(self.headers.get("Accept"))
            self.send_response(200)
            if compress:
                body = gzip.compress(body, 6)
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # it was too late for the scraper, which has gone
                self.wfile.write(body)
            counts["count"] += 1
            counts["size"] += len(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_address[1])
    while pipe.recv():
        pipe.send((counts["count"], counts["size"], time.process_time()))


def _push(pipe: Connection, exporters: int, url: str, interval_s: float, compress: bool) -> None:
    os.environ["OTEL_EXPORTER_OTLP_COMPRESSION"] = "gzip" if compress else "none"
    otlp = Otlp(endpoint=url, interval=3600.0, timeout=10.0)
    fleet = [Simulated(number, otlp=otlp) for number in range(exporters)]
    pushed = 0
    pipe.send(0)
    due = time.monotonic()
    while True:
        for one in fleet:
            due += interval_s / exporters
            if pipe.poll(max(due - time.monotonic(), 0.0)):
                pipe.recv()
                pipe.send((pushed, 0, time.process_time()))
            one.advance()
            push(one.telemetry)
            pushed += 1
