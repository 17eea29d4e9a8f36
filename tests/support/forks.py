"""Python programs of a test as forks of a server of the test run, which has imported what they need.

``forks.start("ray", ["-m", "tests.faults.load_client", address])`` is ``subprocess.Popen`` of Python, and saves the
time of the imports: 4 s of CPU time for torch and Ray, half a second for the exporter. A test of how a program starts,
what it imports or how much memory it has starts a process of its own.

Each test run has a server of each kind, started by the first test that needs it (:mod:`tests.support.forked_worker`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from tests.support import forked_worker

__all__ = ["Fork", "are_served", "clean_up", "look_up_env", "prepare", "run", "server", "start"]

_FOLDER: Final = "TEST_FORK_SERVERS"
_OWNER: Final = "TEST_FORK_SERVERS_OWNER"
_MODULES: Final = {
    "ray": forked_worker.PRELOADED,
    "exporter": (
        *("exporter.app", "exporter.arguments", "exporter.discovery.address", "exporter.discovery.file"),
        *("exporter.discovery.ray_child", "uvicorn.lifespan.off", "uvicorn.loops.asyncio"),
    ),
}
_START_S: Final = 120.0


def prepare() -> None:
    """Make the folder of the servers of a test run, which this process and its workers share."""
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="tqf")
    os.environ[_OWNER] = str(os.getpid())


def clean_up() -> None:
    """Remove the folder. The servers end with the process that made it."""
    shutil.rmtree(os.environ.pop(_FOLDER), ignore_errors=True)


def are_served() -> bool:
    """Whether this process belongs to a test run, which has servers."""
    return _FOLDER in os.environ


def leave() -> None:
    """Let this process start programs of its own, as if it belonged to no test run."""
    os.environ.pop(_FOLDER, None)


def look_up_env() -> dict[str, str]:
    """Return the variables that let the look-ups of an exporter or a demo be forks."""
    return {"PYTHONPATH": str(Path(__file__).with_name("forked")), "TEST_LOOK_UP_SOCKET": server("ray")}


class Fork:
    """A running program, with those members of ``subprocess.Popen`` that tests use."""

    def __init__(self, pid: int, connection: Any, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self._take_code()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._take_code()
        assert self.returncode is not None
        return self.returncode

    def _take_code(self) -> None:
        with self._connection:
            said = self._connection.recv(32)
        self.returncode = int(said) if said else -signal.SIGKILL

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


def start(
    kind: str,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdin: int | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
) -> Fork:
    """Start a program.

    Args:
        kind: ``ray`` has torch, tensordict and Ray imported, ``exporter`` the exporter.
        arguments: The program and its arguments, as after ``python`` on the command line.
        env: All of its environment variables, None for those of this process.
        cwd: Its working directory, None for that of this process.
        stdin: ``subprocess.PIPE``, None for nothing to read.
        stdout: ``subprocess.PIPE``, a file, or None for this process's.
        stderr: ``subprocess.STDOUT``, a file, or None for this process's.
    """
    source, to_program = os.pipe() if stdin == subprocess.PIPE else (os.open(os.devnull, os.O_RDONLY), None)
    from_program, output = os.pipe() if stdout == subprocess.PIPE else (None, os.dup(_descriptor(stdout, 1)))
    errors = output if stderr == subprocess.STDOUT else _descriptor(stderr, 2)
    environment = dict(os.environ if env is None else env)
    try:
        pid, connection = forked_worker.request(
            server(kind), arguments, environment, str(cwd or Path.cwd()), [source, output, errors], orderly=True
        )
    finally:
        os.close(source)
        os.close(output)
    return Fork(
        pid,
        connection,
        None if to_program is None else open(to_program, "wb"),
        None if from_program is None else open(from_program, "rb", buffering=0),
    )


def run(
    kind: str, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as ``subprocess.run`` does with ``capture_output=True`` and ``text=True``."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        program = start(kind, arguments, env=env, stdout=output, stderr=errors)
        try:
            code = program.wait(timeout)
        finally:
            program.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, output.read(), errors.read())


def _descriptor(file: int | IO[Any] | None, default: int) -> int:
    if file is None:
        return default
    return file if isinstance(file, int) else file.fileno()


def server(kind: str) -> str:
    """Return where the server of a kind listens; start it if it does not run."""
    folder = Path(os.environ[_FOLDER])
    path = folder / kind
    with (folder / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _start_server(path, _MODULES[kind])
    return str(path)


def _start_server(path: Path, modules: Sequence[str]) -> None:
    script = forked_worker.__file__
    # A test that needs another TransferQueue sets PYTHONPATH for its own processes, and may be the first to need forks.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with path.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, script, "--serve", str(path), "--while", os.environ[_OWNER], *modules],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=env,
        )
    deadline = time.monotonic() + _START_S
    while not path.exists():
        assert process.poll() is None, path.with_suffix(".log").read_text()
        assert time.monotonic() < deadline, "the server of forks does not start"
        time.sleep(0.01)
    process.returncode = 0  # it outlives this process, which therefore never waits for it
