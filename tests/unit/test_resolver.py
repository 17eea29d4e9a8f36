"""Host names whose look-up hangs, fails or is late, and how the probe and the wire reader handle it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dataplane.adapters.wire import WireMetadataReader
from dataplane.errors import DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.net import resolver as _resolver
from dataplane.net.probe import ConnectionProbe
from dataplane.net.resolver import Resolver
from tests.support.fake_router import FakeRouter, reply
from tests.support.waiting import wait_until

NAME = "controller.ray.svc"


class NameServer:
    """Replaces the system's resolver for :data:`NAME`: hangs until the test gives it an answer."""

    def __init__(self, system: Callable[..., Any]) -> None:
        self.asked = 0
        self.answer: str | OSError | None = None
        self._system = system
        self._told = threading.Event()

    def say(self, answer: str | OSError) -> None:
        self.answer = answer
        self._told.set()

    def hang(self) -> None:
        self._told.clear()

    def getaddrinfo(self, host: str, *arguments: Any, flags: int = 0, **options: Any) -> Any:
        if host != NAME or flags & socket.AI_NUMERICHOST:
            return self._system(host, *arguments, flags=flags, **options)
        self.asked += 1
        assert self._told.wait(60)
        if isinstance(self.answer, OSError):
            raise self.answer
        return self._system(self.answer, *arguments, **options)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.say("127.0.0.1")
    wait_until(lambda: not resolver_threads(), "the end of the look-up", 10.0)


def resolver_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dataplane-resolver"]


@pytest.mark.parametrize(("host", "numeric"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("127.1", "127.0.0.1")])
def test_a_numeric_host_needs_no_look_up(host: str, numeric: str) -> None:
    assert Resolver(host).resolve(0.0) == numeric
    assert not resolver_threads()


def test_a_name_that_the_machine_knows() -> None:
    assert Resolver("localhost").resolve(10.0) == "127.0.0.1"


def test_a_hanging_look_up_costs_one_thread_and_its_answer_goes_to_the_next_who_asks(names: NameServer) -> None:
    resolver = Resolver(NAME)
    assert [resolver.resolve(0.001) for _ in range(50)] == [None] * 50
    assert (names.asked, len(resolver_threads())) == (1, 1)
    names.say("127.0.0.2")
    assert resolver.resolve(10.0) == "127.0.0.2"
    wait_until(lambda: not resolver_threads(), "the end of the look-up", 10.0)
    names.say("127.0.0.3")
    assert resolver.resolve(10.0) == "127.0.0.3"
    assert names.asked == 2


def test_an_answer_that_came_long_ago_is_not_used(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(NAME)
    assert resolver.resolve(0.0) is None
    names.say("127.0.0.2")
    wait_until(lambda: not resolver_threads(), "the end of the look-up", 10.0)
    monkeypatch.setattr(_resolver, "_KEPT_S", -1.0)
    names.say("127.0.0.3")
    assert resolver.resolve(10.0) == "127.0.0.3"


def test_a_failed_look_up_is_raised_and_asked_again(names: NameServer) -> None:
    resolver = Resolver(NAME)
    names.say(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            resolver.resolve(10.0)
    assert names.asked == 2


def test_a_name_that_no_name_may_be_is_unknown() -> None:
    with pytest.raises(socket.gaierror) as caught:
        Resolver("a" * 70 + ".example").resolve(10.0)
    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize(
    ("code", "verdict"), [(socket.EAI_NONAME, "gone"), (socket.EAI_AGAIN, "unknown"), (None, "unknown")]
)
def test_the_probe_judges_a_name_in_time(names: NameServer, code: int | None, verdict: str) -> None:
    if code is not None:
        names.say(socket.gaierror(code, "no"))
    probe = ConnectionProbe(f"tcp://{NAME}:5555")
    # Without an answer the probe returns at its deadline; with one it returns as soon as the answer is there.
    assert probe.verdict(0.01 if code is None else 10.0) == verdict
    probe.close()


def test_the_probe_connects_once_the_name_is_known(names: NameServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        probe = ConnectionProbe(f"tcp://{NAME}:{server.getsockname()[1]}")
        assert probe.verdict(0.01) == "unknown"
        names.say("127.0.0.1")
        wait_until(lambda: not resolver_threads(), "the end of the look-up", 10.0)
        assert probe.verdict(0.1) == "connected"
        probe.close()


def test_a_reader_whose_name_hangs_times_out_and_closes_at_once(names: NameServer) -> None:
    reader = WireMetadataReader(f"tcp://{NAME}:5555", timeout_s=0.05)
    for _ in range(3):
        with pytest.raises(DataPlaneTimeout, match=f"the name {NAME} was not resolved"):
            reader.ping()
    assert (names.asked, len(resolver_threads())) == (1, 1)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            reader.ping(timeout_s=50.0)
        except DataPlaneUnavailable as error:
            caught.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.05)  # so that it is probably waiting by now; it must end in any case
    reader.close()
    asking.join(10.0)
    assert [str(error) for error in caught] == ["this reader is closed"]


@pytest.mark.parametrize(
    ("code", "error"), [(socket.EAI_NONAME, DataPlaneUnavailable), (socket.EAI_AGAIN, DataPlaneTimeout)]
)
def test_a_reader_says_why_a_name_is_of_no_use(names: NameServer, code: int, error: type[Exception]) -> None:
    names.say(socket.gaierror(code, "the resolver's reason"))
    reader = WireMetadataReader(f"tcp://{NAME}:5555", timeout_s=10.0)
    with pytest.raises(error, match=f"the name {NAME} cannot be resolved: the resolver's reason"):
        reader.ping()
    reader.close()


def test_a_reader_follows_a_name_to_its_next_address(names: NameServer) -> None:
    names.say("127.0.0.1")
    with FakeRouter(lambda _: reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["first"]})) as first:
        port = first.address.rpartition(":")[2]
        reader = WireMetadataReader(f"tcp://{NAME}:{port}", timeout_s=10.0)
        assert reader.list_partitions() == ["first"]
    names.say("127.0.0.2")
    answer = reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["second"]})
    with FakeRouter(lambda _: answer, f"tcp://127.0.0.2:{port}"):
        with contextlib.suppress(DataPlaneReadError):  # the end of the first is noticed before or after the request
            reader.list_partitions()
        assert reader.list_partitions() == ["second"]
    reader.close()
