"""The network to the controller fails: a proxy in front of the real controller delays, cuts and falsifies replies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.faults.load import BUSY, FULL, IDLE
from tests.faults.matrix import Begin, Row
from tests.faults.proxied import FILE_LOOKUPS, UNITS, amid_a_round, both, through
from tests.support.cluster import TQCluster
from tests.support.faulty_proxy import FaultyProxy


@pytest.fixture
def proxy(cluster: TQCluster) -> Iterator[FaultyProxy]:
    with FaultyProxy(cluster.controller.address) as between:
        yield between


@pytest.mark.fault("network to the controller dropped", in_ci=FULL)
def test_a_dropped_network_is_silence(cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        proxy.drop()
        is_silent(row)
        proxy.heal()
        row.recover(cluster, "the network is back", restarts=0, lookups=FILE_LOOKUPS)


@pytest.mark.fault("network stalls", in_ci=IDLE)
def test_a_stalled_network_is_silence(cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        proxy.stall()
        is_silent(row)
        proxy.heal()
        row.recover(cluster, "the network continues and delivers what it held back", restarts=0, lookups=FILE_LOOKUPS)


@pytest.mark.fault("replies come late, after the deadline", in_ci=IDLE)
def test_late_replies_are_silence_and_answer_nothing(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        proxy.delay(4.0)
        is_silent(row)
        proxy.heal()
        row.recover(cluster, "the network is fast again", restarts=0, lookups=FILE_LOOKUPS)


def is_silent(row: Row) -> None:
    """Expect the state for a controller that does not answer in time."""
    kind = "DataPlaneTimeout"
    tolerated = amid_a_round(kind)
    row.expect(up=0, discovery="found", errors=both(kind), tolerated=tolerated, partitions=False, storage=UNITS)


@pytest.mark.fault("network delays replies within the deadline", in_ci=IDLE)
def test_a_slow_network_is_seen_and_is_no_error(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        proxy.delay(0.2)
        row.expect(
            up=1,
            discovery="found",
            partitions=True,
            storage=UNITS,
            also=lambda seen: (seen.value("dataplane_source_duration_seconds", source="ping") or 0) >= 0.2,
        )
        proxy.heal()
        row.recover(cluster, "the network is fast again", restarts=0, lookups=FILE_LOOKUPS)


@pytest.mark.fault("network resets connections", in_ci=BUSY)
def test_a_network_that_resets_is_a_lost_controller(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        proxy.reset()
        kind = "DataPlaneUnavailable"
        tolerated = amid_a_round(kind)
        row.expect(up=0, discovery="lost", errors=both(kind), tolerated=tolerated, partitions=False, storage=UNITS)
        proxy.heal()
        row.recover(cluster, "connections are accepted", restarts=0, lookups=FILE_LOOKUPS)


def is_unreadable(row: Row, phase: str = "") -> None:
    """Expect the state for a controller whose replies cannot be read."""
    kind = "DataPlaneReadError"
    tolerated = amid_a_round(kind)
    row.expect(phase, up=0, discovery="found", errors=both(kind), tolerated=tolerated, partitions=False, storage=UNITS)


@pytest.mark.fault("network truncates replies", in_ci=FULL)
def test_a_reply_that_is_cut_is_no_answer(cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        proxy.truncate()
        is_unreadable(row)
        proxy.heal()
        row.recover(cluster, "replies are whole", restarts=0, lookups=FILE_LOOKUPS)


@pytest.mark.fault("network answers garbage", in_ci=IDLE)
def test_garbage_is_no_answer(cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        proxy.garbage()
        is_unreadable(row)
        proxy.replace(lambda reply: bytes(byte ^ 0xA5 for byte in reply[:1000]))
        is_unreadable(row, "noise in frames that are well formed")
        proxy.heal()
        row.recover(cluster, "replies are the controller's own", restarts=0, lookups=FILE_LOOKUPS)


@pytest.mark.fault("network answers another request", in_ci=IDLE)
def test_the_reply_to_another_request_is_no_answer(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    with through(proxy, cluster, tmp_path, begin) as row:
        proxy.swap()
        is_unreadable(row)
        proxy.replace(under_other_names)
        kind = "DataPlaneReadError"
        row.expect(
            "listings of other partitions",
            up=1,
            discovery="found",
            errors={"list_metadata": kind},
            tolerated=both(kind).items(),
            partitions=False,
            storage=UNITS,
        )
        proxy.heal()
        row.recover(cluster, "replies are in order", restarts=0, lookups=FILE_LOOKUPS)


def under_other_names(payload: bytes) -> bytes:
    """Rename the partitions of a listing; leave any other reply as it is."""
    reply: dict[str, Any] = msgspec.msgpack.decode(payload)
    if reply["request_type"] != "KV_LIST_RESPONSE":
        return payload
    listed = reply["body"]["partition_info"]
    reply["body"]["partition_info"] = {f"not {name}": rows for name, rows in listed.items()}
    return msgspec.msgpack.encode(reply)


REPLY_BYTES = 200 * 2**20


@pytest.mark.fault("a reply of 200 MB", in_ci=IDLE)
def test_a_huge_reply_takes_bounded_memory_and_gives_it_back(
    cluster: TQCluster, proxy: FaultyProxy, tmp_path: Path, begin: Begin
) -> None:
    patience = {"TQ_EXPORTER_METADATA_TIMEOUT": "60s"}  # long enough to read the reply to its end on any machine
    with through(proxy, cluster, tmp_path, begin, patience) as row:
        before = row.exporter.process.memory_info().rss
        with peak_memory(row.exporter.process) as peak:
            proxy.flood(REPLY_BYTES)
            row.expect(
                up=1,
                discovery="found",
                errors={"list_metadata": "DataPlaneReadError"},
                partitions=False,
                storage=UNITS,
                within=30,
            )
            proxy.heal()
            row.recover(cluster, "replies are the controller's own", restarts=0, lookups=FILE_LOOKUPS)
        grown, kept = peak() - before, row.exporter.process.memory_info().rss - before
        row.note(
            f"memory: {before >> 20} MB before, "
            f"at most {grown >> 20} MB more during the fault, {kept >> 20} MB more after it"
        )
        # Mainly the size of one reply. On a busy machine the next reply may start before the last one's memory is
        # freed.
        assert grown <= 2 * REPLY_BYTES + 64 * 2**20
        assert kept <= 64 * 2**20


@contextmanager
def peak_memory(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """Watch a process's resident memory during the block. Yields a function that returns the highest value."""
    seen = [process.memory_info().rss]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            seen.append(max(seen.pop(), process.memory_info().rss))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        watching.join()
