"""Many exporters into one Prometheus, and over OTLP into one receiver: series, samples, bytes, memory and CPU time.

One process has the exporters, which render snapshots that differ and move on (``fleet_exporters``). The Prometheus that
is installed scrapes them, first a quarter of them, then half, then all; its figures are those of its own ``/metrics``.
What a series takes is the slope of its resident memory over its series. Then the same exporters push over OTLP/HTTP to
VictoriaMetrics (``.ci/victoria-metrics`` gets it), since Debian's Prometheus has no OTLP receiver.

    python -m benchmarks.fleet --exporters 200 --seconds 40
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.fleet_exporters import Process, Simulated, pushing, serving
from benchmarks.runner import Benchmark, Column, Report, Table
from tests.support.waiting import wait_until

_GIB = 8
_HEADROOM = 0.5
"""The share of the memory that is left to queries, rule evaluation, restarts and growth."""
_INTERVAL_S = 15.0
"""Both the usual scrape interval and the exporter's default push interval."""
_RUNS = 1_000
_VICTORIA = Path(__file__).parents[1] / "build/victoria-metrics/usr/bin/victoria-metrics"

_FLEET = (
    *(
        Column("receiver", "receiver", width=23),
        Column("compression", "compression"),
        Column("exporters", "exporters", "d"),
    ),
    *(Column("up", "up", "d"), Column("series", "series", ",d"), Column("samples", "samples/s", ",.0f")),
    *(Column("bytes", "bytes each time", ",.0f"), Column("rss_mb", "RSS, MB", ".0f")),
    *(Column("sample_us", "CPU, us/sample", ".2f"), Column("exporter_ms", "exporter, CPU ms", ".1f")),
)
_PARTS = (Column("part", "part of a run", width=38), Column("series", "series", "d"), Column("share", "%", ".0f"))
_FAMILIES = (*(Column("family", "metric", width=52), Column("series", "series", "d"), Column("share", "%", ".1f")),)
_PLAN = (*(Column("what", "what", width=60), Column("value", "value", ",.0f")),)


class Server:
    """A database under test, and the figures that it publishes of itself."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> str:
        """Return the body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            body: bytes = answer.read()
        return body.decode()

    def figures(self) -> dict[str, float]:
        """Return its own metrics, summed over their labels, and those of OTLP by themselves."""
        found: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                found[sample.name] += sample.value
                if sample.labels.get("type") == "opentelemetry":
                    found[f"{sample.name}:otlp"] += sample.value
        return dict(found)

    def post(self, path: str) -> None:
        """POST nothing."""
        urllib.request.urlopen(urllib.request.Request(self.url + path, method="POST"), timeout=30).close()


@contextmanager
def _running(command: Sequence[str], port: int, log: Path) -> Iterator[Server]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    server = Server(port)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            return bool(server.get("/metrics"))
        except OSError:
            return False

    try:
        wait_until(answers, f"an answer of {command[0]}")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(report: Report, options: argparse.Namespace) -> None:
    """Measure what a run exposes, then the fleet pulled and pushed, then say what that means for a thousand runs."""
    _what_a_run_exposes(report)
    table = report.table("fleet", f"A fleet, every {options.interval:g} s", _FLEET)
    with tempfile.TemporaryDirectory(prefix="fleet") as folder:
        slope = _pulled(table, options, Path(folder))
        if _VICTORIA.exists():
            for compression in ("none", "gzip"):
                _pushed(table, options, Path(folder) / compression, compression)
        else:
            table.note("OTLP was not measured: VictoriaMetrics is not there; .ci/victoria-metrics gets it.")
    _plan(report, table, slope)


def _pulled(table: Table, options: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Fill a row for each size; return the memory of a Prometheus without series and of a series, in bytes."""
    points: list[tuple[float, float]] = []
    sizes = sorted({max(options.exporters // share, 1) for share in (4, 2, 1)})
    for compression, steps in (("gzip", sizes), ("none", sizes[-1:])):
        with (
            serving(sizes[-1], compress=compression == "gzip") as fleet,
            _prometheus(folder / compression, fleet.port, options.interval) as (prometheus, targets),
        ):
            for exporters in steps:
                targets(exporters)
                wait_until(lambda: _up(prometheus) == exporters, f"{exporters} exporters up", 120.0)  # noqa: B023
                row = _window(prometheus, fleet, options, "prometheus_tsdb_head_samples_appended_total")
                series = int(prometheus.figures()["prometheus_tsdb_head_series"])
                table.row(
                    receiver=f"Prometheus {_version(prometheus)}",
                    compression=compression,
                    exporters=exporters,
                    up=int(_up(prometheus)),
                    series=series,
                    **row,
                )
                if compression == "gzip":
                    points.append((series, row["rss_mb"] * 1e6))
    if len(points) < 2:
        return 0.0, points[0][1] / points[0][0]
    slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
    return intercept, slope


def _pushed(table: Table, options: argparse.Namespace, folder: Path, compression: str) -> None:
    port = _free_port()
    command = [str(_VICTORIA), f"-storageDataPath={folder}-data", f"-httpListenAddr=127.0.0.1:{port}"]
    log = folder.with_suffix(".log")
    with (
        _running([*command, "-retentionPeriod=1d"], port, log) as victoria,
        pushing(
            options.exporters, f"{victoria.url}/opentelemetry", options.interval, compress=compression == "gzip"
        ) as fleet,
    ):
        row = _window(victoria, fleet, options, "vm_rows_inserted_total:otlp", read="vm_tcplistener_read_bytes_total")
        series = json.loads(victoria.get("/api/v1/status/tsdb"))["data"]["totalSeries"]
        found = quote('count({__name__="dataplane.up"})')
        up = json.loads(victoria.get(f"/prometheus/api/v1/query?query={found}&nocache=1"))["data"]["result"]
        version = (_VICTORIA.parents[2] / "version").read_text().partition("+")[0]
        table.row(
            receiver=f"VictoriaMetrics {version}",
            compression=compression,
            exporters=options.exporters,
            up=int(up[0]["value"][1]) if up else 0,
            series=series,
            **row,
        )


@contextmanager
def _prometheus(folder: Path, fleet_port: int, interval_s: float) -> Iterator[tuple[Server, Callable[[int], None]]]:
    """Run Prometheus; yield it, and what lets it scrape that many exporters."""
    program = shutil.which("prometheus")
    assert program is not None, "prometheus is not installed; .ci/tools installs it"
    folder.mkdir()
    file, port = folder / "prometheus.yml", _free_port()

    def write(exporters: int) -> None:
        groups = [
            {
                "targets": [f"127.0.0.1:{fleet_port}"],
                "labels": {"__metrics_path__": f"/{n}/metrics", "instance": f"run-{n}"},
            }
            for n in range(exporters)
        ]
        every = f"{interval_s * 1000:.0f}ms"
        job = {"job_name": "fleet", "scrape_interval": every, "scrape_timeout": every, "static_configs": groups}
        file.write_text(json.dumps({"scrape_configs": [job]}))  # JSON is YAML

    write(0)
    data = ["--storage.tsdb.path", str(folder / "data"), "--storage.tsdb.retention.time", "2h"]
    listen = ["--config.file", str(file), "--web.listen-address", f"127.0.0.1:{port}", "--web.enable-lifecycle"]
    with _running([program, *listen, *data], port, folder / "log") as server:

        def targets(exporters: int) -> None:
            write(exporters)
            server.post("/-/reload")

        yield server, targets


def _window(
    server: Server, fleet: Process, options: argparse.Namespace, samples: str, *, read: str = ""
) -> dict[str, float]:
    """Return what happened in a window, after every exporter was collected at least once.

    *samples* and *read* are the server's counters of samples and of bytes; without *read* the exporters' are taken.
    """
    settle_s = 1.5 * options.interval + 1
    time.sleep(settle_s)
    before, did, started = server.figures(), fleet.served(), time.monotonic()
    resident = []
    while (left_s := started + options.seconds - time.monotonic()) > 0:
        time.sleep(min(1.0, left_s))
        resident.append(server.figures()["process_resident_memory_bytes"])
    after, done, took_s = server.figures(), fleet.served(), time.monotonic() - started
    collections = max(done.times - did.times, 1)
    size = after[read] - before[read] if read else done.size - did.size
    count = max(after.get(samples, 0) - before.get(samples, 0), 1)
    cpu_s = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    return {
        "samples": count / took_s,
        "bytes": size / collections,
        "rss_mb": max(resident) / 1e6,
        "sample_us": cpu_s / count * 1e6,
        "exporter_ms": (done.cpu_s - did.cpu_s) / collections * 1e3,
    }


def _up(prometheus: Server) -> float:
    answer = json.loads(prometheus.get("/api/v1/query?query=sum(up)"))["data"]["result"]
    return float(answer[0]["value"][1]) if answer else 0.0


def _version(prometheus: Server) -> str:
    version: str = json.loads(prometheus.get("/api/v1/status/buildinfo"))["data"]["version"]
    return version.partition("+")[0]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# What a run exposes


def _what_a_run_exposes(report: Report) -> None:
    def samples(partitions: int, units: int) -> list[str]:
        one = Simulated(1, partitions=partitions, units=units)
        one.advance()
        body, _ = one.telemetry.scrape(None)
        one.telemetry.shutdown(1.0)
        return [line for line in body.decode().splitlines() if not line.startswith("#")]

    typical = samples(2, 4)
    partition = len(samples(3, 4)) - len(typical)
    unit = len(samples(2, 5)) - len(typical)
    table = report.table("fleet_parts", "What a run with 2 partitions and 4 storage units exposes", _PARTS)
    for part, series in (
        ("run with 2 partitions and 4 storage units", len(typical)),
        ("of these a partition", partition),
        ("of these a storage unit", unit),
        ("the rest, independent of the run's size", len(typical) - 2 * partition - 4 * unit),
    ):
        table.row(part=part, series=series, share=series / len(typical) * 100)
    families = Counter(re.sub(r"_(bucket|sum|count)$", " (histogram)", re.split(r"[{ ]", line)[0]) for line in typical)
    table = report.table("fleet_families", "The largest metrics of that run", _FAMILIES)
    for family, series in families.most_common(12):
        table.row(family=family, series=series, share=series / len(typical) * 100)


def _plan(report: Report, fleet: Table, memory: tuple[float, float]) -> None:
    """Say what the figures mean for a thousand runs and for one Prometheus."""
    empty, per_series = memory
    full = {row["compression"]: row for row in fleet.rows if str(row["receiver"]).startswith("Prometheus")}
    plain, packed = full["none"], full["gzip"]
    series = float(packed["series"] or 0) / float(packed["exporters"] or 1)
    sizes = [float(row["bytes"] or 0) / 1e3 * _RUNS / _INTERVAL_S for row in (plain, packed)]
    usable = _GIB * 2**30 * (1 - _HEADROOM) - empty
    table = report.table("fleet_plan", f"What that means, each run collected every {_INTERVAL_S:g} s", _PLAN)
    for what, value in (
        ("series of a run, mean", series),
        (f"series of {_RUNS:,} runs", series * _RUNS),
        (f"samples/s of {_RUNS:,} runs", series * _RUNS / _INTERVAL_S),
        (f"kB/s of {_RUNS:,} runs, plain", sizes[0]),
        (f"kB/s of {_RUNS:,} runs, gzip", sizes[1]),
        ("memory of a Prometheus with a series, bytes per series", per_series),
        ("memory of a Prometheus without series, MB", empty / 1e6),
        (f"MB for {_RUNS:,} runs", (empty + per_series * series * _RUNS) / 1e6),
        (f"exporters that {1 - _HEADROOM:.0%} of {_GIB} GiB hold", usable / (per_series * series)),
        ("cores for them, %", usable / per_series / _INTERVAL_S * float(packed["sample_us"] or 0) / 1e4),
    ):
        table.row(what=what, value=value)
    steps = sum(row["receiver"] == packed["receiver"] and row["compression"] == "gzip" for row in fleet.rows)
    table.note(
        f"Extrapolated: resident memory = {empty / 1e6:.0f} MB + {per_series / 1e3:.1f} kB for each series, a line "
        f"through the largest resident memory at {steps} sizes of the fleet."
    )


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exporters", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=12.0, metavar="S", help="of each window (default %(default)s)")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between scrapes (default %(default)s)")


BENCHMARK = Benchmark("fleet", __doc__, measure, "--exporters 4 --seconds 0.5 --interval 0.5", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
