"""What the exporter's process takes: memory by the number of keys, and CPU time at the default intervals.

Replies come from a process that has them ready, for the public client from a real TransferQueue. Between two polls 3 %
of the groups change. The floor of the memory is the exporter without a controller, that of the CPU time a bare socket
that receives the same replies.

    python -m benchmarks.footprint
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil
import zmq

from benchmarks.replay import Replay
from benchmarks.rows import SHAPES, Queue
from benchmarks.runner import Benchmark, Column, Report
from dataplane.adapters.wire.protocol import encode_request
from dataplane.discovery.record import Endpoint, encode_endpoint
from tests.support.exporter_process import ExporterProcess

_GROUP = 16
_CHANGED = 0.03
_BARS_MB = {0: 55, 10_000: 60, 100_000: 100, 1_000_000: 700}
_MAX_CPU_PERCENT = 0.5
_METADATA_INTERVAL_S = 10.0
_POLLS = "tq_exporter_polls_total"
_LARGE = {
    "TQ_EXPORTER_METADATA_MAX_CONTROLLER_SHARE": "1",
    "TQ_EXPORTER_METADATA_MAX_CONTROLLER_STALL": "60s",
    "TQ_EXPORTER_METADATA_MAX_REPLY_BYTES": "1GiB",
    "TQ_EXPORTER_METADATA_MAX_MEMORY": "4GiB",
    "TQ_EXPORTER_METADATA_TIMEOUT": "60s",
}
_FAST = ("--ping-interval", "1s", "--metadata-interval", "500ms")

_RESIDENT = (Column("rss_mb", "RSS, MB", ".0f"), Column("peak_mb", "peak, MB", ".0f"))
_MEMORY = (
    *(Column("keys", "keys", ",d"), Column("group", "group", "d"), Column("reply_mb", "reply, MB", ".1f")),
    *_RESIDENT,
    *(Column("per_byte", "(RSS - idle)/reply", ".2f"), Column("threads", "threads", "d")),
)
_READERS = (Column("reader", "reader"), *_RESIDENT)
_CPU = (
    *(Column("keys", "keys", ",d"), Column("seconds", "seconds", ".0f"), Column("polls", "polls", "d")),
    *(Column("share", "of a core, %", ".2f"), Column("transfer", "transfer alone, %", ".2f")),
    Column("own", "without transfer, %", ".2f"),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Measure memory, then CPU time."""
    table = report.table("memory", f"Memory of the exporter, tags {options.tags}", _MEMORY)
    with ExporterProcess(*_FAST, "--controller", "tcp://127.0.0.1:1") as exporter:
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 0, "the first polls")
        idle_mb, peak_mb = _memory_mb(exporter.process)
        table.row(keys=0, rss_mb=idle_mb, peak_mb=peak_mb, threads=exporter.process.num_threads())
    report.bar("RSS without a controller, MB", idle_mb, _BARS_MB[0])
    for keys, group in (*((keys, _GROUP) for keys in options.keys), (options.ones, 1)):
        figures = _with_keys(keys, group, options.tags, options.polls)
        table.row(keys=keys, group=group, **figures, per_byte=(figures["rss_mb"] - idle_mb) / figures["reply_mb"])
        if group == _GROUP and keys in _BARS_MB:
            report.bar(f"RSS at {keys:,} keys, MB", figures["rss_mb"], _BARS_MB[keys])
    _measure_readers(report)
    cpu = report.table("cpu", "CPU time of the exporter at the default intervals", _CPU)
    for keys in options.cpu_keys:
        shares = _cpu_shares(keys, options.tags, options.window)
        cpu.row(keys=keys, seconds=options.window, **shares)
        if keys == 100_000:
            report.bar("% of a core at 100,000 keys without the transfer", shares["own"], _MAX_CPU_PERCENT)


def _measure_readers(report: Report) -> None:
    """Measure the memory with each reader, on the same TransferQueue with one row."""
    table = report.table("readers", "Memory of the exporter by reader, without keys", _READERS)
    report.cluster.clear_all()
    report.cluster.put("train", ["a_g0"], tags=[{"weight_version": 1}])
    controller = report.cluster.controller
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "endpoint.json"
        file.write_bytes(encode_endpoint(Endpoint(controller.address, controller_id=controller.id)))
        for reader in ("wire", "client"):
            with ExporterProcess("--discovery-file", str(file), "--reader", reader, *_FAST) as exporter:
                exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), "groups")
                rss_mb, peak_mb = _memory_mb(exporter.process)
                table.row(reader=reader, rss_mb=rss_mb, peak_mb=peak_mb)


def _with_keys(keys: int, group: int, tags: str, polls: int) -> dict[str, float]:
    queue = Queue(keys, group, tags)
    with Replay() as replay:
        size = replay.list("train", queue.rows())
        with ExporterProcess(*_FAST, "--controller", replay.address, env=_LARGE) as exporter:
            exporter.wait_for(lambda seen: seen.value("dataplane_partition_keys", partition="train") == keys, "keys")
            for _ in range(polls):
                queue.change(_CHANGED)
                replay.list("train", queue.rows())
                _wait_for_polls(exporter, 2)  # the first may have been under way
            for path in ("/metrics", "/api/v1/snapshot", "/"):
                assert exporter.get(path)[0] == 200
            rss_mb, peak_mb = _memory_mb(exporter.process)
            threads = exporter.process.num_threads()
    return {"reply_mb": size / 1e6, "rss_mb": rss_mb, "peak_mb": peak_mb, "threads": threads}


def _cpu_shares(keys: int, tags: str, window_s: float) -> dict[str, float]:
    """Return per cent of a core: the process's, that of receiving its replies alone, and the difference."""
    queue = Queue(keys, _GROUP, tags)
    with Replay() as replay:
        replay.list("train", queue.rows())
        with ExporterProcess("--controller", replay.address, env=_LARGE) as exporter:
            exporter.wait_for(lambda seen: seen.value("dataplane_partition_keys", partition="train") == keys, "keys")
            polls, used, until = _polls(exporter), _cpu_s(exporter.process), time.monotonic() + window_s
            while (left_s := until - time.monotonic()) > 0:
                queue.change(_CHANGED)
                replay.list("train", queue.rows())
                time.sleep(min(left_s, _METADATA_INTERVAL_S))
            used = _cpu_s(exporter.process) - used
            polls = _polls(exporter) - polls
        transfer = _transfer_s(replay.address) * polls
    return {
        "polls": polls,
        "share": used / window_s * 100,
        "transfer": transfer / window_s * 100,
        "own": (used - transfer) / window_s * 100,
    }


def _transfer_s(address: str, times: int = 5) -> float:
    """Return the CPU seconds that this process needs to receive one listing from a bare socket."""
    request = encode_request("KV_LIST", "benchmark", {"partition_id": "train"})
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(address)
        started = 0.0
        for number in range(times + 1):
            socket.send(request)
            socket.recv(copy=False)
            if number == 0:
                started = time.process_time()
        return (time.process_time() - started) / times


def _wait_for_polls(exporter: ExporterProcess, count: int) -> None:
    until = _polls(exporter) + count
    exporter.wait_for(lambda seen: (seen.value(_POLLS, source="metadata", outcome="ok") or 0) >= until, "polls")


def _polls(exporter: ExporterProcess) -> int:
    return int(exporter.scrape().value(_POLLS, source="metadata", outcome="ok") or 0)


def _memory_mb(process: psutil.Process) -> tuple[float, float]:
    """Return the resident memory now and at its peak, in MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return process.memory_info().rss / 1e6, int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this system does not tell a process's memory")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--ones", type=int, default=1_000_000, help="groups of one row (default %(default)s)")
    parser.add_argument("--tags", choices=SHAPES, default="recovery", help="shape of the tags (default %(default)s)")
    parser.add_argument("--polls", type=int, default=3, help="changes that are polled (default %(default)s)")
    parser.add_argument("--cpu-keys", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--window", type=float, default=25.0, help="seconds of CPU time (default %(default)s)")


BENCHMARK = Benchmark(
    "footprint", __doc__, measure, "--keys 10000 --ones 1000 --polls 1 --cpu-keys 1000 --window 3", _options
)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
