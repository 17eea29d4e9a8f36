"""The supervisor: starts the cluster process and the exporter, shows what the exporter sees, and stops everything."""

from __future__ import annotations

import os
import queue
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from exporter.config import Listen
from exporter.demo import processes
from exporter.demo.protocol import Event, Options, Order
from exporter.demo.scenarios import HEALTHY, SCENARIOS
from exporter.demo.screen import Screen
from exporter.model.snapshot import Snapshot

__all__ = ["DemoError", "DemoRequest", "supervise"]

_REFRESH_S: Final = 1.0
_STEP_S: Final = 0.2
_EXPORTER_START_S: Final = 30.0
_EXPORTER_FINDS_S: Final = 120.0
# Actors, storage units and Ray each take a few seconds to stop. After this time they are killed.
_CLUSTER_ENDS_S: Final = 30.0
_LONGEST_FOLDER: Final = 30
_LOG_TAIL_LINES: Final = 15
# Variables that would make the demo's Ray or exporter use a cluster or receiver outside of the demo.
_FOREIGN: Final = re.compile(r"RAY_|TQ_EXPORTER_")
# The actors get their OpenTelemetry settings from the command line; Ray's own agent must get none.
_NOT_FOR_RAY: Final = re.compile(r"OTEL_")


class DemoError(RuntimeError):
    """The demo cannot start or continue. The first line says why and what to do; log lines may follow."""


@dataclass(frozen=True)
class DemoRequest:
    """The arguments of the command line.

    Attributes:
        listen: Where the exporter serves HTTP.
        duration: Seconds to run once the exporter sees the data plane, None until a signal.
        logs: Folder of the logs and the recording, None for one that is removed at the end.
        convention, scenario, rollouts, seed, otlp, chaos: See :class:`~exporter.demo.protocol.Options`.
        default_intervals: Whether the exporter polls as rarely as it does in production.
    """

    listen: Listen
    duration: float | None
    logs: Path | None
    convention: str
    scenario: str
    rollouts: int
    seed: int
    otlp: str | None
    chaos: float | None
    default_intervals: bool = False


def supervise(request: DemoRequest, screen: Screen) -> None:
    """Run the demo until its duration is over or SIGINT or SIGTERM arrives. Leaves nothing behind.

    Raises:
        DemoError: It could not start, or a part of it failed.
    """
    stop = threading.Event()
    with _signals_set(stop):
        processes.adopt_orphans()
        folder = Path(tempfile.mkdtemp(prefix="tqdemo", dir=_short_folder()))
        demo = _Demo(request, screen, folder, stop)
        try:
            demo.run()
        finally:
            demo.end()
            shutil.rmtree(folder, ignore_errors=True)


class _Demo:
    def __init__(self, request: DemoRequest, screen: Screen, folder: Path, stop: threading.Event) -> None:
        self._request = request
        self._screen = screen
        self._folder = folder
        self._stop = stop
        self._logs = (request.logs or folder / "logs").absolute()
        self._env = _environment(folder)
        self._cluster: subprocess.Popen[bytes] | None = None
        self._exporter: subprocess.Popen[bytes] | None = None
        self._url = ""
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def run(self) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._screen.say("starting Ray and TransferQueue (about 20 s on an idle machine) …")
        self._start_cluster()
        up = self._wait_for("data_plane", "Ray and TransferQueue")
        if up is None:
            return
        self._screen.say("TransferQueue is up; starting the exporter, the rollouts and the trainer …")
        self._start_exporter(up.ray_address)
        ready = self._wait_for("ready", "the rollouts and the trainer")
        if ready is None:
            return
        self._say_where_to_look(ready.metrics)
        self._show()

    def end(self) -> None:
        """Ask the exporter and the cluster process to stop, wait, and kill what is left."""
        self._screen.close()
        children = [process for process in (self._exporter, self._cluster) if process is not None]
        if not children:
            return
        self._screen.say("stopping …")
        if self._exporter is not None:
            self._exporter.terminate()
        self._order("end")
        processes.end_all(children, _CLUSTER_ENDS_S)
        for process in children:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()

    def _start_cluster(self) -> None:
        request = self._request
        options = Options(
            folder=str(self._folder),
            logs=str(self._logs),
            convention=request.convention,
            scenario=request.scenario,
            rollouts=request.rollouts,
            seed=request.seed,
            otlp=request.otlp,
            chaos=request.chaos,
        )
        env = {name: value for name, value in self._env.items() if not _NOT_FOR_RAY.match(name)}
        command = [sys.executable, "-m", "exporter.demo.cluster"]
        self._cluster = processes.start(command, env=env, log=self._logs / "cluster.log", piped=True)
        self._order(options)
        threading.Thread(target=self._read_events, args=(self._cluster,), daemon=True).start()

    def _order(self, order: Options | Order) -> None:
        if self._cluster is None or self._cluster.stdin is None:
            return
        with suppress(BrokenPipeError):  # the cluster process is dead; its last event says why
            self._cluster.stdin.write(msgspec.json.encode(order) + b"\n")
            self._cluster.stdin.flush()

    def _start_exporter(self, ray_address: str) -> None:
        command = [sys.executable, "-m", "exporter.cli", "run", "--listen", str(self._request.listen)]
        command += ["--ray-address", ray_address, "--history-file", str(self._logs / "run.tqr")]
        if not self._request.default_intervals:
            command += ["--ping-interval", "1s", "--metadata-interval", "1s"]
        if self._request.otlp is not None:
            command += ["--otlp", self._request.otlp]
        log = self._logs / "exporter.log"
        self._exporter = processes.start(command, env=self._env, log=log)
        deadline = time.monotonic() + _EXPORTER_START_S
        while not self._stop.is_set():
            found = re.search(r"(http://[^\s\"/]+)/metrics", log.read_text(errors="replace"))
            if found is not None:
                self._url = found[1]
                return
            self._screen.wait("the exporter", _EXPORTER_START_S - deadline + time.monotonic(), _EXPORTER_START_S)
            if self._exporter.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the exporter did not start; its log ends with:\n{_tail(log)}")
            self._stop.wait(_STEP_S)

    def _say_where_to_look(self, metrics: Mapping[str, str]) -> None:
        say = self._screen.say
        say(f"exporter   {self._url}/metrics")
        say(f"           {self._url}/  {self._url}/api/v1/snapshot")
        for name, url in metrics.items():
            say(f"{name:<10} {url}")
        kept = "kept" if self._request.logs else "removed at the end; --logs keeps them"
        say(f"logs       {self._logs} ({kept})")
        if self._request.scenario != HEALTHY:
            say(f"scenario   {self._request.scenario}: {SCENARIOS[self._request.scenario].about}")
        say("Ctrl-C ends the demo." if self._request.duration is None else f"runs for {self._request.duration:g} s")

    def _show(self) -> None:
        """Show what the exporter sees until the duration is over. It starts when the exporter sees the data plane."""
        ends: float | None = None
        find_by: float | None = time.monotonic() + _EXPORTER_FINDS_S
        was_up = False
        while not self._stop.is_set():
            self._take_events()
            self._check_exporter()
            snapshot = self._ask_exporter()
            self._screen.show(snapshot)
            is_up = snapshot is not None and snapshot.up
            if is_up and not was_up:
                self._order("watched")
            was_up = is_up
            now = time.monotonic()
            if find_by is not None and not is_up:
                waited_s = _EXPORTER_FINDS_S - find_by + now
                self._screen.wait("the exporter to find TransferQueue", waited_s, _EXPORTER_FINDS_S)
            if find_by is not None and is_up:
                find_by = None
                ends = None if self._request.duration is None else now + self._request.duration
            if find_by is not None and now > find_by:
                log = _tail(self._logs / "exporter.log")
                raise DemoError(f"the exporter did not find TransferQueue within {_EXPORTER_FINDS_S:g} s:\n{log}")
            wait_s = _REFRESH_S if ends is None else min(_REFRESH_S, ends - now)
            if wait_s <= 0:
                return
            self._stop.wait(wait_s)

    def _wait_for(self, kind: str, what: str) -> Event | None:
        """Return the next event of *kind*, for which *what* is the user's word; None when the demo is stopped first."""
        began = time.monotonic()
        while not self._stop.is_set():
            self._screen.wait(what, time.monotonic() - began)
            self._check_exporter()
            event = self._next_event(_STEP_S)
            if event is not None and event.kind == kind:
                return event
        return None

    def _take_events(self) -> None:
        while self._next_event(None) is not None:
            pass

    def _next_event(self, wait_s: float | None) -> Event | None:
        try:
            event = self._events.get(block=wait_s is not None, timeout=wait_s)
        except queue.Empty:
            return None
        if event is None:
            raise DemoError(f"the cluster process ended; its log ends with:\n{_tail(self._logs / 'cluster.log')}")
        if event.kind == "failed":
            raise DemoError(f"{event.text}\n{_tail(self._logs / 'cluster.log')}")
        if event.kind == "news":
            self._screen.say(event.text)
        return event

    def _read_events(self, cluster: subprocess.Popen[bytes]) -> None:
        assert cluster.stdout is not None
        with suppress(ValueError):  # the pipe was closed while it was read: the demo is stopping
            for text in cluster.stdout:
                self._events.put(msgspec.json.decode(text, type=Event))
        self._events.put(None)

    def _check_exporter(self) -> None:
        if self._exporter is not None and self._exporter.poll() is not None:
            raise DemoError(f"the exporter exited unexpectedly:\n{_tail(self._logs / 'exporter.log')}")

    def _ask_exporter(self) -> Snapshot | None:
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/snapshot", timeout=2) as answer:  # noqa: S310 - our own
                return msgspec.json.decode(answer.read(), type=Snapshot)
        except (OSError, ValueError):
            return None


def _environment(folder: Path) -> dict[str, str]:
    """Return this process's environment, without variables that point to another Ray and with an isolated Ray."""
    env = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
    return env | {
        "TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # A token of its own, so that Ray neither reads nor writes one in the user's home.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 on Linux too
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _short_folder() -> str | None:
    """Return the parent of the demo's folder. Ray puts Unix sockets there, whose paths must stay below 107 bytes."""
    return "/tmp" if len(tempfile.gettempdir()) > _LONGEST_FOLDER and os.access("/tmp", os.W_OK) else None  # noqa: S108


def _tail(log: Path) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
    except OSError:
        return "(no log)"


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """Make SIGINT and SIGTERM set *stop*. Further signals have no effect, so that the shutdown can finish."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
