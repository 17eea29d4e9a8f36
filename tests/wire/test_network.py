"""A network that loses, cuts, delays or falsifies replies: the error, and that the next call works."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from dataplane.adapters.wire import WireMetadataReader
from dataplane.adapters.wire import connection as _wire_connection
from dataplane.errors import DataPlaneError, DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from tests.support.fake_router import FakeRouter, reply
from tests.support.faulty_proxy import FaultyProxy


def answer(request: dict[str, Any]) -> Sequence[bytes]:
    if request["request_type"] == "GET_LIST_PARTITIONS":
        return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["train"]})
    rows = {"u_g0": {"weight_version": 3}}
    return reply("KV_LIST_RESPONSE", {"partition_info": {request["body"]["partition_id"]: rows}, "message": "success"})


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    with FakeRouter(answer) as router, FaultyProxy(router.address) as between:
        yield between


def recovers(reader: WireMetadataReader) -> None:
    """Ask until the network works for *reader* again: leftovers of the fault may fail a call or two."""
    deadline = time.monotonic() + 20
    while True:
        try:
            assert reader.list_partitions() == ["train"]
            return
        except DataPlaneError:
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (FaultyProxy.stall, DataPlaneTimeout),
        (FaultyProxy.drop, DataPlaneTimeout),
        (lambda proxy: proxy.delay(0.6), DataPlaneTimeout),
        (FaultyProxy.reset, DataPlaneUnavailable),
        (FaultyProxy.truncate, DataPlaneReadError),
        (FaultyProxy.garbage, DataPlaneReadError),
        (lambda proxy: proxy.replace(lambda payload: b"\xff" * len(payload)), DataPlaneReadError),
        (lambda proxy: proxy.replace(lambda payload: payload[:-3]), DataPlaneReadError),
        (lambda proxy: proxy.replace(lambda payload: payload.replace(b"train", b"brain")), DataPlaneReadError),
        (lambda proxy: proxy.flood(2**20), DataPlaneReadError),
    ],
    ids=["stall", "drop", "late", "reset", "truncate", "garbage", "nonsense", "short", "other partition", "too long"],
)
def test_every_fault_is_its_typed_error_and_the_reader_recovers(
    proxy: FaultyProxy, fault: Callable[[FaultyProxy], None], error: type[DataPlaneError]
) -> None:
    timeout_s = 0.5 if error is DataPlaneTimeout else 10.0
    reader = WireMetadataReader(proxy.address, timeout_s=timeout_s, max_reply_bytes=2**16)
    recovers(reader)
    fault(proxy)
    for _ in range(4):
        with pytest.raises(error):
            reader.list_metadata("train")
    proxy.heal()
    recovers(reader)
    assert [group.weight_version for group in reader.list_metadata("train")] == [3]
    reader.close()


def test_a_reply_to_another_request_is_never_taken_for_an_answer(proxy: FaultyProxy) -> None:
    reader = WireMetadataReader(proxy.address, timeout_s=10.0)
    proxy.swap()
    assert reader.list_partitions() == ["train"]  # there is no other reply to swap it with yet
    for ask in (lambda: reader.list_metadata("train"), reader.ping, lambda: reader.list_metadata("train")):
        with pytest.raises(DataPlaneReadError, match="in answer to a request for"):
            ask()
    proxy.heal()
    recovers(reader)
    reader.close()


def test_a_delay_within_the_deadline_is_no_error(proxy: FaultyProxy) -> None:
    reader = WireMetadataReader(proxy.address, timeout_s=20.0)
    proxy.delay(0.1)
    assert reader.ping() >= 0.1
    assert reader.controller_seconds >= 0.1
    reader.close()


def test_a_request_on_a_connection_whose_end_was_not_noticed_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeRouter(answer) as first:
        reader = WireMetadataReader(first.address, timeout_s=20.0)
        reader.ping()
    monkeypatch.setattr(_wire_connection._Channel, "is_ready", lambda channel: channel.sent_at is None)
    with FakeRouter(answer, first.address) as second:
        assert reader.list_partitions() == ["train"]
        assert len(second.requests) == 1
    reader.close()


def test_a_request_that_was_worked_on_is_not_sent_again() -> None:
    with FakeRouter(lambda _: None) as router, FaultyProxy(router.address) as proxy:
        reader = WireMetadataReader(proxy.address, timeout_s=20.0)

        def cut() -> None:
            proxy.reset()
            proxy.heal()

        timer = threading.Timer(0.5, cut)
        timer.start()
        with pytest.raises(DataPlaneError):  # the error depends on whether the probe runs at the moment of the reset
            reader.ping()
        timer.join()
        assert len(router.requests) == 1
        reader.close()


STARVED = """
import os, resource, sys
from dataplane.adapters.wire import WireMetadataReader
from dataplane.errors import DataPlaneError
reader = WireMetadataReader(sys.argv[1], timeout_s=20.0)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
said = []
for _ in range(3):
    try:
        reader.ping()
    except DataPlaneError as error:
        said.append(f"{type(error).__name__}: {'no socket can be made' in str(error)}")
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
print(said, reader.list_partitions())
"""


def test_a_lack_of_descriptors_is_not_taken_for_a_lost_peer() -> None:
    with FakeRouter(answer) as router:
        command = [sys.executable, "-c", STARVED, router.address]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == f"{['DataPlaneReadError: True'] * 3} ['train']"
