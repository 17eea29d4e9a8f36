"""A real demo for tests: ``tq-exporter demo`` as a user starts it, watched from outside."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import psutil

from tests.support.exporter_process import Exposition
from tests.support.forked_worker import SOCKET
from tests.support.forks import look_up_env
from tests.support.waiting import wait_until

__all__ = ["DemoProcess", "forking_env"]

START_S = 240.0
_MARK = "DEMO_TEST_MARK"


class DemoProcess:
    """The demo on free ports, with a folder for temporary files of its own.

    Args:
        arguments: Flags of the demo.
        forks: Whether Ray's workers are forks (:mod:`tests.support.forked_worker`), a third of the CPU time.

    Attributes:
        logs: Folder of the log files, kept for the length of the ``with`` block.
    """

    def __init__(self, *arguments: str, forks: bool = True) -> None:
        self._mark = uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="tqt"))  # short: Ray puts Unix sockets into it
        self.logs = Path(tempfile.mkdtemp(prefix="tqt-logs"))
        self._out = self.logs / "demo.out"
        env = {"TMPDIR": str(self.folder), **(forking_env(self.logs) if forks else {})}
        command = [sys.executable, "-m", "exporter.cli", "demo", "--listen", "127.0.0.1:0", "--logs", str(self.logs)]
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env, _MARK: self._mark},
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """Its output so far."""
        return self._out.read_text()

    @property
    def urls(self) -> dict[str, str]:
        """Name of each process to the URL of its metrics."""
        return dict(re.findall(r"^(\S+) +(http://\S+/metrics)$", self.out, re.MULTILINE))

    def log(self, name: str) -> str:
        """The log of one of its processes."""
        return (self.logs / f"{name}.log").read_text()

    def wait_until_ready(self) -> None:
        """Wait until it prints its URLs."""
        wait_until(lambda: "logs   " in self.out or self._process.poll() is not None, "the demo is up", START_S)
        assert self._process.poll() is None, self.out

    def scrape(self, name: str = "exporter") -> Exposition:
        """Return the present metrics of one of its processes."""
        with urllib.request.urlopen(self.urls[name], timeout=10) as answer:
            return Exposition(answer.read().decode())

    def send(self, number: int) -> None:
        """Send the demo's first process a signal."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Wait for the demo's end and return its exit code."""
        return self._process.wait(timeout_s)

    def left_behind(self, within_s: float = 0.0) -> list[str]:
        """Return what is left of it: processes, ports that answer, files. Waits *within_s* seconds for them to go."""
        deadline = time.monotonic() + within_s
        while True:
            left = [f"process {process.pid}: {process.info['cmdline']}" for process in self._processes()]
            left += [f"port of {name}: {url}" for name, url in self.urls.items() if _answers(url)]
            left += [f"file {path}" for path in self.folder.iterdir()]
            if not left or time.monotonic() >= deadline:
                return left
            time.sleep(0.2)

    def close(self) -> None:
        """Kill whatever is left of it."""
        if self._process.poll() is None:
            self.send(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        for process in self._processes():
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.logs, ignore_errors=True)

    def __enter__(self) -> DemoProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _processes(self) -> list[psutil.Process]:
        """Return every descendant of the demo, even of parents that have died: each inherited the mark."""
        return [
            process
            for process in psutil.process_iter(["cmdline", "environ", "status"])
            if (process.info["environ"] or {}).get(_MARK) == self._mark
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]


def forking_env(folder: Path) -> dict[str, str]:
    """Return the variables that let the workers of a demo's Ray be forks, made by a process with its socket there."""
    return {**look_up_env(), SOCKET: str(folder / "workers")}


def _answers(url: str) -> bool:
    host, _, port = url.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0
