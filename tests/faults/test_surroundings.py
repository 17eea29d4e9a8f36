"""The exporter's environment fails: discovery, the OTLP receiver, the disk, the clock, file descriptors."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psutil
import pytest

from exporter.demo.stack import free_port
from tests.faults.load import IDLE, PARTITION
from tests.faults.matrix import Begin, Row
from tests.faults.proxied import ENV, FILE_LOOKUPS, UNITS, amid_a_round, both, record_at, through
from tests.support.cluster import TQCluster
from tests.support.exporter_process import Exposition
from tests.support.faulty_proxy import FaultyProxy
from tests.support.moving_clock import MovingClock
from tests.support.otlp_receiver import http_receiver
from tests.support.small_disk import small_disk
from tests.support.waiting import wait_until

STAND_IN: Final = Path(__file__).with_name("stand_in")


@pytest.fixture
def proxy(cluster: TQCluster) -> Iterator[FaultyProxy]:
    with FaultyProxy(cluster.controller.address) as between:
        yield between


# Discovery


@pytest.mark.fault("discovery hangs", in_ci=IDLE)
def test_a_look_up_that_hangs_is_ended_and_counted(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    looks_up_in_vain(cluster, proxy, tmp_path, begin, b"hang", "DataPlaneTimeout")


@pytest.mark.fault("discovery prints garbage", in_ci=IDLE)
def test_a_look_up_that_prints_garbage_is_counted(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    looks_up_in_vain(cluster, proxy, tmp_path, begin, b"garbage", "DataPlaneReadError")


def looks_up_in_vain(
    cluster: TQCluster, proxy: FaultyProxy, folder: Path, begin: Begin, answer: bytes, error_type: str
) -> None:
    """The controller moves to another address while the look-up's child process gives *answer*."""
    look_up = folder / "look-up"
    look_up.write_bytes(record_at(proxy.address, cluster) + b"\n")
    env = {
        **ENV,
        "PYTHONPATH": str(STAND_IN),
        "TEST_LOOK_UP": str(look_up),
        "TQ_EXPORTER_DISCOVERY_TIMEOUT": "5s",
    }
    gone = "DataPlaneUnavailable"
    with begin(cluster, "--ray-address", "127.0.0.1:1", env=env) as row:
        look_up.write_bytes(answer)
        proxy.reset()
        row.expect(
            up=0,
            discovery="lost",
            errors={**both(gone), "discover": error_type},
            tolerated=amid_a_round(gone),
            partitions=False,
            storage=UNITS,
            within=20,
        )
        assert len(row.exporter.process.children(recursive=True)) <= 1
        look_up.write_bytes(record_at(cluster.controller.address, cluster) + b"\n")
        row.recover(cluster, "the look-up answers: the controller is at another address", restarts=0, lookups=6)
        assert not row.exporter.process.children(recursive=True)


# OTLP


@pytest.mark.fault("OTLP endpoint refused, hung, answers 500", in_ci=IDLE)
def test_a_broken_otlp_receiver_touches_nothing_else(cluster: TQCluster, tmp_path: Path, begin: Begin) -> None:
    file = tmp_path / "endpoint.json"
    file.write_bytes(record_at(cluster.controller.address, cluster))
    with http_receiver() as receiver, FaultyProxy(receiver.url.replace("http", "tcp"), zmtp=False) as between:
        flags = ("--discovery-file", str(file), "--otlp", between.address.replace("tcp", "http"))
        env = {"TQ_EXPORTER_OTLP_INTERVAL": "1s", "TQ_EXPORTER_OTLP_TIMEOUT": "1s"}
        with begin(cluster, *flags, env=env) as row:
            receiver.last_metrics()
            between.reset()
            pushes_fail(row, "")
            between.stall()
            pushes_fail(row, "hung")
            receiver.status = 500
            between.heal()
            pushes_fail(row, "answers 500")
            arrived = len(receiver.metrics)
            receiver.status = 200
            row.recover(
                cluster,
                "it takes in again",
                restarts=0,
                lookups=FILE_LOOKUPS,
                also=lambda _: len(receiver.metrics) > arrived + 1,
            )


def pushes_fail(row: Row, phase: str) -> None:
    """Expect that two more pushes of metrics fail, and that nothing else changes."""
    failed = partial(Exposition.value, name="tq_exporter_otlp_exports_total", signal="metrics", outcome="failed")
    before = failed(row.exporter.scrape()) or 0
    also = lambda seen: (failed(seen) or 0) >= before + 2  # noqa: E731
    row.expect(phase, up=1, discovery="found", partitions=True, storage=UNITS, also=also, within=20)


# Disk


@pytest.mark.fault("disk full for the log", in_ci=IDLE)
def test_a_log_that_cannot_be_written_stops_nothing(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "logs") as disk:
        on_the_disk = partial(tempfile.NamedTemporaryFile, dir=disk.path)
        monkeypatch.setattr(tempfile, "NamedTemporaryFile", on_the_disk)  # the exporter's standard error goes there
        with through(proxy, cluster, tmp_path, begin) as row:
            disk.fill()
            written = row.exporter.log
            proxy.reset()  # so that there is something to log
            gone = "DataPlaneUnavailable"
            tolerated = amid_a_round(gone)
            row.expect(up=0, discovery="lost", errors=both(gone), tolerated=tolerated, partitions=False, storage=UNITS)
            assert len(row.exporter.log) - len(written) < 4096, "the disk was not full"
            disk.free()
            proxy.heal()
            row.recover(cluster, "there is space again", restarts=0, lookups=FILE_LOOKUPS)
            assert "the ping poll works again" in row.exporter.log
            assert row.exporter.stop() == 0


def test_it_ends_in_order_when_nothing_can_be_printed() -> None:
    port = free_port()
    arguments = ("--listen", f"127.0.0.1:{port}", "--controller", "tcp://127.0.0.1:1")
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen([sys.executable, "-m", "exporter.cli", "run", *arguments], stdout=full, stderr=full)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "readiness")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            status: int = answer.status
            return status == 200
    except OSError:
        return False


@pytest.mark.fault("disk full for the discovery file", in_ci=IDLE)
def test_a_discovery_file_that_was_cut_keeps_what_was_found(cluster: TQCluster, tmp_path: Path, begin: Begin) -> None:
    record = record_at(cluster.controller.address, cluster)
    with small_disk(tmp_path / "shared") as disk:
        file = disk.path / "endpoint.json"
        file.write_bytes(record)
        with begin(cluster, "--discovery-file", str(file), env=ENV) as row:
            disk.fill()
            write_until_full(file, record)
            file.write_bytes(file.read_bytes()[: -len(record) // 2])  # no longer a valid record, wherever it was cut
            row.expect(
                up=1, discovery="found", errors={"discover": "DataPlaneReadError"}, partitions=True, storage=UNITS
            )
            disk.free()
            file.write_bytes(record)
            row.recover(cluster, "there is space again, and the record is whole", restarts=0, lookups=FILE_LOOKUPS)


def write_until_full(file: Path, record: bytes) -> None:
    """Write a file in place (which users must not do) on a full disk."""
    with file.open("wb", buffering=0) as writer, contextlib.suppress(OSError):
        while True:
            writer.write(record)


# Clock

_DAY_S: Final = 86_400.0


@pytest.mark.fault("clock jumped forward and back", in_ci=IDLE)
def test_a_clock_that_jumps_changes_what_is_dated_and_nothing_else(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    clock = MovingClock(tmp_path)
    with through(proxy, cluster, tmp_path, begin, clock.env) as row:
        for phase, jump_s in (("", _DAY_S), ("back by two days", -_DAY_S)):
            clock.jump(jump_s)
            row.expect(
                phase, up=1, discovery="found", partitions=True, storage=UNITS, also=partial(is_dated, jump_s=jump_s)
            )
        clock.jump(0)
        row.recover(cluster, "the clock is right", restarts=0, lookups=FILE_LOOKUPS, also=partial(is_dated, jump_s=0.0))
        assert row.exporter.stop() == 0


def is_dated(seen: Exposition, jump_s: float) -> bool:
    """Whether the last successes are current by the exporter's clock."""
    name = "dataplane_source_last_success_timestamp_seconds"
    return all(
        abs((seen.value(name, source=source) or 0) - (time.time() + jump_s)) < 300
        for source in ("ping", "metadata", "storage")
    )


# File descriptors

UP: Final = {"ping": 1, "metadata": 1, "storage": 1}
UNREADABLE: Final = ("discover", "DataPlaneReadError")


@pytest.mark.fault("file descriptors exhausted", in_ci=IDLE)
def test_without_free_descriptors_what_is_connected_goes_on(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        before, process = row.scrape_before(), row.exporter.process
        with starved(row.exporter.url, process) as get:
            while errors_between(before, seen := Exposition(get("/metrics")[1])).get(UNREADABLE, 0) < 1:
                assert errors_between(before, seen).keys() <= {UNREADABLE}
                assert seen.value("dataplane_up") == 1
                assert gauges(seen) == gauges(before)
                time.sleep(0.5)
            assert seen.by("dataplane_source_up", "source") == {**UP, "discovery": 0}
            assert (get("/healthz"), get("/readyz")) == ((200, "ok\n"), (200, "ready\n"))
            row.note("without a free descriptor: up 1, all gauges stay, health 200 / 200, discover DataPlaneReadError")
            proxy.reset()
            proxy.heal()
            time.sleep(3.0)  # in case a connection cannot be made again
        kinds = ("DataPlaneUnavailable", "DataPlaneTimeout", "DataPlaneReadError")
        errors = [(name, kind) for name in ("ping", "list_partitions", "list_metadata") for kind in kinds]
        phase = "the connections were reset, and there are descriptors again"
        row.recover(cluster, phase, restarts=0, lookups=FILE_LOOKUPS, errors=[UNREADABLE, *errors])


def errors_between(before: Exposition, after: Exposition) -> dict[tuple[str, str], float]:
    """Return how much the error counters grew."""

    def counts(seen: Exposition) -> dict[tuple[str, str], float]:
        return {(one["operation"], one["error_type"]): value for one, value in seen.samples("dataplane_errors_total")}

    old = counts(before)
    return {key: value - old[key] for key, value in counts(after).items() if value != old[key]}


def gauges(seen: Exposition) -> set[tuple[str, str]]:
    """Return the exposed series of storage units and of partitions at rest; that of the load is empty now and then."""
    return {
        (name, labels.get("partition") or labels["storage_unit"])
        for name, labels in seen.series()
        if ("partition" in labels or "storage_unit" in labels) and labels.get("partition") != PARTITION
    }


@contextmanager
def starved(url: str, process: psutil.Process) -> Iterator[Callable[[str], tuple[int, str]]]:
    """Let the exporter open no file or socket. Yields a function that sends a GET on an earlier connection."""
    host, port = url.removeprefix("http://").split(":")
    connections = [socket.create_connection((host, int(port)), timeout=10) for _ in range(60)]
    wait_until(lambda: n_accepted(process, int(port)) >= len(connections), "that the connections are accepted")
    before = process.rlimit(psutil.RLIMIT_NOFILE)

    def forbid_more() -> None:
        process.rlimit(psutil.RLIMIT_NOFILE, (lowest_free(process), before[1]))

    def get(path: str) -> tuple[int, str]:
        with connections.pop() as connection, connection.makefile("rb") as answer:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            head, _, body = answer.read().partition(b"\r\n\r\n")
        forbid_more()  # nor with the descriptor of this connection
        return int(head.split()[1]), body.decode()

    try:
        forbid_more()
        yield get
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, before)
        for connection in connections:
            connection.close()


def n_accepted(process: psutil.Process, port: int) -> int:
    """Return how many connections to its port the process holds."""
    return sum(one.laddr.port == port and bool(one.raddr) for one in process.net_connections("tcp"))


def lowest_free(process: psutil.Process) -> int:
    """Return the next free descriptor of the process. With this as its limit, it can open none."""
    seen = []
    for _ in range(20):  # a descriptor that is in use for a moment only must not count as taken
        used = {int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir()}
        seen.append(next(number for number in range(len(used) + 1) if number not in used))
        time.sleep(0.005)
    return min(seen)
