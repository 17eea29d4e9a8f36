"""The probe on real sockets: refused, reset, silent, killed, stopped."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from dataplane.net.probe import ConnectionProbe

_ROUTER = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.bind(sys.argv[1])
print(router.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
while True:
    router.recv_multipart()
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def peer() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process with a real ROUTER, and its address."""
    process = _start_router("tcp://127.0.0.1:*")
    try:
        yield process
    finally:
        _kill(process[0])


def _start_router(bind: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", _ROUTER, bind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _address(server: socket.socket) -> str:
    return f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_listening_and_silent_is_connected(listener: socket.socket) -> None:
    probe = ConnectionProbe(_address(listener))
    assert probe.verdict(0.05) == "connected"
    assert probe.verdict(0.0) == "connected"
    probe.close()


def test_refused_is_gone(listener: socket.socket) -> None:
    address = _address(listener)
    listener.close()
    probe = ConnectionProbe(address)
    assert [probe.verdict() for _ in range(3)] == ["gone"] * 3
    probe.close()


def test_unknown_host_name_is_gone() -> None:
    assert ConnectionProbe("tcp://no-such-host.invalid:5555").verdict() in ("gone", "unknown")


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
def test_accept_then_reset_is_gone(listener: socket.socket, delay_s: float) -> None:
    """A proxy whose backend is gone."""

    def reset_each() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            time.sleep(delay_s)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    thread = threading.Thread(target=reset_each, daemon=True)
    thread.start()
    probe = ConnectionProbe(_address(listener))
    assert [probe.verdict(10.0) for _ in range(3)] == ["gone"] * 3
    probe.close()
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_connection_to_itself_is_gone(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect to a free local port can get that very port as its source, and then succeeds."""
    address = _address(listener)
    listener.close()

    def connect_from_the_port_itself(host: str, port: int) -> tuple[socket.socket, int]:
        sock = socket.socket()
        sock.bind((host, port))
        sock.setblocking(False)
        return sock, sock.connect_ex((host, port))

    monkeypatch.setattr("dataplane.net.probe._start_connect", connect_from_the_port_itself)
    probe = ConnectionProbe(address)
    assert probe.verdict() == "gone"
    probe.close()


def test_full_accept_queue_is_unknown_not_gone(listener: socket.socket) -> None:
    listener.listen(0)
    waiting = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        waiting.append(client)
    probe = ConnectionProbe(_address(listener))
    assert probe.verdict(0.05) == "unknown"
    probe.close()
    for client in waiting:
        client.close()


def test_live_peer_is_connected_then_gone_when_killed_then_back(peer: tuple[subprocess.Popen[str], str]) -> None:
    process, address = peer
    probe = ConnectionProbe(address)
    assert probe.verdict() == "connected"
    _kill(process)
    assert probe.verdict() == "gone"
    successor, _ = _start_router(address)
    assert probe.verdict() == "connected"
    probe.close()
    _kill(successor)


@pytest.mark.parametrize("stopped_before_first_verdict", [True, False])
def test_stopped_peer_stays_connected_for_150_verdicts_while_its_accept_queue_fills(
    peer: tuple[subprocess.Popen[str], str], stopped_before_first_verdict: bool
) -> None:
    process, address = peer
    probe = ConnectionProbe(address)
    if not stopped_before_first_verdict:
        assert probe.verdict() == "connected"
    os.kill(process.pid, signal.SIGSTOP)
    assert {probe.verdict(0.05) for _ in range(150)} == {"connected"}

    context = zmq.Context()
    impatient = []
    for _ in range(150):
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(address)
        impatient.append(dealer)
    assert probe.verdict(0.05) == "connected"
    for dealer in impatient:
        dealer.close()
    context.term()

    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert probe.verdict() == "gone"
    probe.close()


def test_150_verdicts_open_one_connection(listener: socket.socket) -> None:
    probe = ConnectionProbe(_address(listener))
    for _ in range(150):
        probe.verdict(0.0)
    connection, _ = listener.accept()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    connection.close()
    probe.close()


def test_end_of_stream_behind_a_greeting_is_gone(listener: socket.socket) -> None:
    probe = ConnectionProbe(_address(listener))
    assert probe.verdict(0.0) == "connected"
    connection, _ = listener.accept()
    connection.sendall(b"greeting")
    connection.close()
    listener.close()
    assert probe.verdict() == "gone"
    probe.close()


def test_a_suspect_peer_is_watched_before_it_counts_as_connected(listener: socket.socket) -> None:
    probe = ConnectionProbe(_address(listener))
    assert probe.verdict(0.0) == "connected"
    connection, _ = listener.accept()
    assert probe.verdict(0.05, suspect=True) == "connected"
    connection.sendall(b"greeting")

    def end() -> None:
        listener.close()
        connection.close()

    timer = threading.Timer(0.1, end)
    timer.start()
    assert probe.verdict(10.0, suspect=True) == "gone"
    timer.join()
    probe.close()


def test_closed_probe_holds_nothing_and_says_unknown(listener: socket.socket) -> None:
    probe = ConnectionProbe(_address(listener))
    assert probe.verdict(0.0) == "connected"
    connection, _ = listener.accept()
    probe.close()
    probe.close()
    assert connection.recv(1) == b""
    connection.close()
    assert probe.verdict() == "unknown"


def test_threads_share_one_probe(peer: tuple[subprocess.Popen[str], str]) -> None:
    _, address = peer
    probe = ConnectionProbe(address)
    verdicts: list[str] = []
    threads = [threading.Thread(target=lambda: verdicts.extend(probe.verdict() for _ in range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == ["connected"] * 400
    probe.close()
