"""Cost of one OTLP push, compared with a scrape of the same snapshot.

The push goes over HTTP to a process that reads it and does nothing. What is measured is the CPU time of this process,
so the receiver does not count: collecting, rendering, encoding, compressing and sending. The scrape is made in process,
as text.

    python -m benchmarks.otlp
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from multiprocessing.connection import Connection

from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from benchmarks.runner import Benchmark, Column, Report
from benchmarks.snapshots import filled
from exporter.config import Config, Otlp
from exporter.telemetry import Telemetry

_COLUMNS = (
    *(Column("partitions", "partitions", "d"), Column("compression", "compression"), Column("bytes", "bytes", ",d")),
    *(Column("push_ms", "push, CPU ms", ".1f"), Column("scrape_ms", "scrape, CPU ms", ".1f")),
    Column("ratio", "push/scrape", ".2f"),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Push and scrape in turns, for each number of partitions, with and without compression."""
    table = report.table("otlp", "One push over OTLP/HTTP compared with one scrape", _COLUMNS)
    with receiver() as (url, sizes):
        for partitions, compression in product(options.partitions, ("none", "gzip")):
            table.row(
                partitions=partitions,
                compression=compression,
                **_measure(partitions, compression, url, sizes, options.times),
            )


def _measure(partitions: int, compression: str, url: str, sizes: Connection, times: int) -> dict[str, float]:
    snapshot = filled(partitions)
    config = Config(otlp=Otlp(endpoint=url, interval=3600.0, timeout=30.0))
    with _variable("OTEL_EXPORTER_OTLP_COMPRESSION", compression):  # the SDK's exporter reads it
        telemetry = Telemetry(config, lambda: snapshot)
    pushes, scrapes, size = [], [], 0
    for _ in range(times + 1):
        started = time.process_time()
        push(telemetry)
        pushed = time.process_time()
        telemetry.scrape(None)
        scrapes.append(time.process_time() - pushed)
        pushes.append(pushed - started)
        size = sizes.recv()
    telemetry.shutdown(5.0)
    sizes.recv()  # of the push at the shutdown
    push_s, scrape_s = statistics.median(pushes[1:]), statistics.median(scrapes[1:])
    return {"bytes": size, "push_ms": push_s * 1e3, "scrape_ms": scrape_s * 1e3, "ratio": push_s / scrape_s}


def push(telemetry: Telemetry) -> None:
    """Push now. A flush of the whole provider would also fill the reader that scrapes use."""
    for reader in telemetry._meter_provider._metric_readers:
        if isinstance(reader, PeriodicExportingMetricReader):
            reader.collect()


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def receiver() -> Iterator[tuple[str, Connection]]:
    """A process that accepts every push; yield its URL, and where it tells the size of each."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_receive, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}", ours
    finally:
        process.kill()
        process.join()
        ours.close()


def _receive(pipe: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            self.rfile.read(size)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            pipe.send(size)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--times", type=int, default=15, help="pushes of each kind (default %(default)s)")


BENCHMARK = Benchmark("otlp", __doc__, measure, "--partitions 1 10 --times 3", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
