"""Which connection is closed when there are too many."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from exporter.web import connections as connections_module
from exporter.web.connections import Connections


class Line:
    """Connections with both ends accessible to the test."""

    def __init__(self, limit: int) -> None:
        self.connections = Connections(limit)
        self.sockets: list[socket.socket] = []

    def connect(self, host: str) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        theirs.settimeout(20)
        self.connections.add(ours, host)
        return ours, theirs


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line(4)
    yield made
    for each in made.sockets:
        each.close()


def is_open(theirs: socket.socket) -> bool:
    theirs.setblocking(False)
    try:
        return theirs.recv(1) != b""
    except BlockingIOError:
        return True


def test_the_oldest_that_is_still_asking_goes(line: Line) -> None:
    old, *rest = [line.connect("10.0.0.1")[1] for _ in range(5)]
    assert not is_open(old)
    assert all(map(is_open, rest))


def test_an_address_that_floods_crowds_out_itself(line: Line) -> None:
    _, scraper = line.connect("10.0.0.1")
    flood = [line.connect("10.0.0.2")[1] for _ in range(50)]
    assert is_open(scraper)
    assert [is_open(each) for each in flood] == [False] * 47 + [True] * 3


def four_being_answered(line: Line) -> list[tuple[socket.socket, socket.socket]]:
    held = [line.connect("10.0.0.1") for _ in range(4)]
    for ours, _ in held:
        line.connections.enter(ours, "answering")
    return held


def test_what_is_being_answered_stays_and_the_next_waits_for_it(line: Line) -> None:
    held = four_being_answered(line)
    newcomer: list[socket.socket] = []
    waiting = threading.Thread(target=lambda: newcomer.append(line.connect("10.0.0.1")[1]))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert all(is_open(theirs) for _, theirs in held)
    line.connections.remove(held[2][0])
    waiting.join(30)
    assert is_open(newcomer[0])


def test_a_client_that_does_not_take_its_answer_goes_after_a_while(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    held = four_being_answered(line)
    line.connections.enter(held[1][0], "sending")
    monkeypatch.setattr(connections_module, "_SENDING_S", 0.0)
    time.sleep(0.01)
    line.connect("10.0.0.1")
    assert [is_open(theirs) for _, theirs in held] == [True, False, True, True]


def test_the_tls_socket_is_the_one_that_is_ended(line: Line) -> None:
    ours, theirs = line.connect("10.0.0.1")
    wrapped = ours.dup()
    line.sockets.append(wrapped)
    line.connections.replace(ours, wrapped)
    ours.close()
    line.connections.shed()
    assert not is_open(theirs)


def test_a_handshake_that_begins_after_its_end_is_ended(line: Line) -> None:
    ours, theirs = line.connect("10.0.0.1")
    line.connections.shed()
    line.connections.replace(ours, ours)
    line.connections.enter(ours, "sending")
    line.connections.remove(ours)
    assert not is_open(theirs)


def test_closing_ends_all_and_lets_the_waiting_go(line: Line) -> None:
    held = four_being_answered(line)
    late: list[socket.socket] = []
    waiting = threading.Thread(target=lambda: late.append(line.connect("10.0.0.1")[1]))
    waiting.start()
    waiting.join(0.2)
    line.connections.close()
    waiting.join(30)
    assert not any(is_open(theirs) for _, theirs in held)
    assert not is_open(late[0])
