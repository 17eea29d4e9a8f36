"""``tq-exporter healthcheck``: what counts as healthy, its message otherwise, and which exporter it asks."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from exporter import cli, health
from exporter.config import Listen
from exporter.health import UnhealthyError, check_health
from exporter.model.snapshot import Snapshot
from exporter.web import WebServer
from tests.support.exporter_process import ExporterProcess
from tests.support.snapshots import empty_snapshot
from tests.support.waiting import wait_until

NOWHERE = ("--controller", "tcp://127.0.0.1:1")


class Exporter:
    """A server in this process whose health a test sets."""

    def __init__(self) -> None:
        self.alive = True
        self.snapshot: Snapshot = replace(empty_snapshot(), ready=True)
        self.web = WebServer(
            Listen("127.0.0.1", 0),
            scrape=lambda accept, names: (b"", "text/plain"),
            snapshot=lambda: self.snapshot,
            alive=lambda: self.alive,
        )
        self.web.listen()
        self.web.start()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    made = Exporter()
    wait_until(lambda: said() != f"process {os.getpid()} is not an exporter of this user", "the socket")
    yield made
    made.web.stop()


def said(*, ready: bool = False) -> str:
    """Return what a check of this process says, empty when it is well."""
    try:
        check_health(os.getpid(), ready=ready)
    except UnhealthyError as error:
        return str(error)
    return ""


def test_a_live_loop_is_well(exporter: Exporter) -> None:
    assert said() == said(ready=True) == ""


def test_a_loop_that_has_stopped_is_not(exporter: Exporter) -> None:
    exporter.alive = False
    assert said() == "the poll loop or the web server has stopped"


def test_a_server_that_accepts_no_connection_is_not(exporter: Exporter) -> None:
    server = exporter.web._server
    server.servers = []
    server._accepting.get_loop().call_soon_threadsafe(server._accepting.cancel)
    wait_until(server._accepting.done, "the end of the task")
    assert said() == "the poll loop or the web server has stopped"


def test_readiness_is_the_first_round(exporter: Exporter) -> None:
    exporter.snapshot = empty_snapshot()
    assert said() == ""
    assert said(ready=True) == "the first round of polls is not done"


def test_nobody_there_is_not_well(exporter: Exporter) -> None:
    exporter.web.stop()
    assert said() == f"process {os.getpid()} is not an exporter of this user"


def test_something_else_on_the_socket_is_not_well(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter.web.stop()
    monkeypatch.setattr(health, "_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"\0{health._PREFIX}mute")
        mute.listen()
        assert said() == f"the exporter, process {os.getpid()}, does not answer: timed out"


def test_two_exporters_are_told_apart_by_process_and_a_stopped_one_is_not_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "_TIMEOUT_S", 0.5)
    with ExporterProcess(*NOWHERE) as one, ExporterProcess(*NOWHERE) as other:
        assert cli.main(["healthcheck"]) == 2
        line = capsys.readouterr().err
        assert "--pid: is needed: the processes " in line
        assert {str(one.process.pid), str(other.process.pid)} <= set(line.replace(",", "").split())
        one.process.send_signal(signal.SIGSTOP)
        assert cli.main(["healthcheck", "--pid", str(other.process.pid)]) == 0
        assert cli.main(["healthcheck", "--pid", str(one.process.pid)]) == 1
        assert capsys.readouterr().err.endswith(f"process {one.process.pid}, does not answer: timed out\n")


def test_a_server_that_ends_at_once_leaves_no_socket() -> None:
    for _ in range(20):
        Exporter().web.stop()
    gc.collect()  # a socket that is left is a warning here, which is an error
    assert said() == f"process {os.getpid()} is not an exporter of this user"
