"""``top`` and ``once --watch`` as people run them: in a pipe, on a terminal, and while the exporter is away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping

import pytest

from exporter import cli
from exporter.config import Listen
from exporter.remote import Remote, parse_url
from exporter.terminal.frame import RemoteFeed
from exporter.web import WebServer
from tests.dashboards.simulated import Simulated
from tests.diagnosis.incidents import play
from tests.diagnosis.test_command import serving

_BY_S = 60.0


@pytest.fixture(scope="module")
def stalled() -> Iterator[Simulated]:
    with play("stalled-trainer") as run:
        yield run


@pytest.fixture(scope="module")
def url(stalled: Simulated) -> Iterator[str]:
    with serving(stalled) as url:
        yield url


class Terminal:
    """A command on a terminal of its own."""

    def __init__(
        self, *arguments: str, columns: int = 60, rows: int = 24, env: Mapping[str, str] | None = None
    ) -> None:
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exporter.cli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**clean, "TERM": "xterm-256color", **(env or {})},
            start_new_session=True,
        )
        self.seen = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(
            self.slave if hasattr(self, "slave") else self.master,
            termios.TIOCSWINSZ,
            struct.pack("HHHH", rows, columns, 0, 0),
        )

    def until(self, text: str) -> str:
        """Read until *text* was written; return what was written since the last call."""
        deadline = time.monotonic() + _BY_S
        found = ""
        while text not in found:
            assert time.monotonic() < deadline, f"{text!r} is not in {found!r}"
            ready, _, _ = select.select([self.master], [], [], 0.2)
            if ready:
                found += os.read(self.master, 65536).decode(errors="replace")
        self.seen += found
        return found

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        """Return the exit code, and check that the terminal is as it was."""
        code = self.process.wait(_BY_S)
        assert termios.tcgetattr(self.slave) == self.before
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def on_terminal(*arguments: str, **settings: object) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, **settings)  # type: ignore[arg-type]
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_terminal_shows_the_page_follows_its_size_and_ends_with_q(url: str) -> None:
    with on_terminal("top", "--url", url, "--interval", "500ms") as terminal:
        narrow = terminal.until("q ends")
        narrow += terminal.until("!! 132 groups are ready")
        assert "\x1b[?1049h" in narrow
        assert "versions" not in narrow
        terminal.resize(110, 24)
        terminal.until("versions")
        terminal.press(b"q")
        terminal.until("\x1b[?1049l")
        assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_puts_the_terminal_back(url: str, number: signal.Signals) -> None:
    with on_terminal("top", "--url", url) as terminal:
        terminal.until("!! 132")
        terminal.process.send_signal(number)
        terminal.until("\x1b[?1049l")
        assert terminal.end() == 0


def test_no_colour(url: str) -> None:
    with on_terminal("top", "--url", url, env={"NO_COLOR": "1"}) as terminal:
        terminal.until("!! 132")
        terminal.press(b"q")
        terminal.until("\x1b[?1049l")
        assert re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.seen) is None


def test_a_dumb_terminal_gets_one_page(url: str) -> None:
    with on_terminal("top", "--url", url, env={"TERM": "dumb"}) as terminal:
        terminal.until("Polls: ")
        assert terminal.end() == 0
        assert "\x1b" not in terminal.seen


def test_once_watches_on_a_terminal_until_q_and_prints_what_it_saw() -> None:
    with on_terminal("once", "--watch", "--controller", "tcp://127.0.0.1:1", columns=200) as terminal:
        terminal.until("q ends; own polls")
        terminal.press(b"q")
        terminal.until("TransferQueue did not answer")
        assert "Sources" in terminal.seen
        assert terminal.end() == 1


def test_a_pipe_gets_one_page(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--url", url]) == 0
    out = capsys.readouterr().out
    assert out.startswith("TransferQueue degraded")
    assert "\x1b" not in out


def test_a_pipe_without_an_exporter(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--url", "127.0.0.1:1"]) == 1
    assert "refuses connections" in capsys.readouterr().err


def test_a_pipe_gets_a_page_per_interval(url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "exporter.cli", "top", "--url", url, "--watch", "--interval", "500ms"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pages = 0
        while pages < 2:
            pages += process.stdout.readline().startswith("TransferQueue degraded")
        process.stdout.close()  # as `head` does
        assert process.wait(_BY_S) == 1
        assert process.stderr.read() == ""


def test_what_is_away_comes_back(stalled: Simulated) -> None:
    def serve(port: int) -> WebServer:
        web = WebServer(
            Listen("127.0.0.1", port),
            scrape=lambda accept, names: (b"", "text/plain"),
            snapshot=lambda: stalled.snapshot,
            alive=lambda: True,
            history=stalled.history,
        )
        web.listen()
        web.start()
        return web

    web = serve(0)
    now = [100.0]
    feed = RemoteFeed(Remote(parse_url(web._address())), lambda: now[0])
    first = feed.next()
    assert (first.snapshot, first.lost_since) == (stalled.snapshot, None)
    assert first.recent is not None
    port = int(web._address().rpartition(":")[2])
    web.stop()
    lost = feed.next()
    now[0] = 200.0
    assert (lost.snapshot, lost.lost_since, feed.next().lost_since) == (stalled.snapshot, 100.0, 100.0)
    assert "refuses connections" in lost.why
    web = serve(port)
    try:
        back = feed.next()
        assert (back.lost_since, back.why) == (None, "")
    finally:
        web.stop()
