"""Discovery through Ray: starts a look-up process, reads its one line of output, and kills it at the deadline."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from dataplane import errors
from dataplane.discovery.record import Endpoint, decode_endpoint
from dataplane.errors import DataPlaneError, DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from exporter.discovery import DiscoveryKind
from exporter.discovery.ray_driver import RAY_ENVIRONMENT
from exporter.model.results import Absent, Found

__all__ = ["RayDiscovery", "decode_answer", "run_child"]

# Not with -m, which would put the working directory before the installed packages.
_COMMAND: Final = (
    sys.executable,
    "-c",
    "import sys; sys.path[:] = filter(None, sys.path); from exporter.discovery.ray_lookup import main; main()",
)
# Variables for a training job or for this process, which would change how the look-up attaches.
_NOT_INHERITED: Final = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RUNTIME_ENV_HOOK", "RAY_LOGGING_CONFIG_ENCODING")
# The answer is one line. Of unlimited output the last part is enough to see that it is not an answer.
_MAX_SAID: Final = 1 << 20
_TOKEN_TROUBLE: Final = re.compile(rb"Unauthenticated|InvalidAuthToken|RAY_AUTH_TOKEN")


class RayDiscovery:
    """Asks the Ray cluster at *address* for the controller, in a process that is killed after *timeout_s* seconds.

    Args:
        address: ``auto``, ``HOST:PORT`` of the GCS, or ``ray://HOST:PORT``.
        timeout_s: Hard deadline of one look-up.
        command: How to start a look-up; for tests.
    """

    kind: Final[DiscoveryKind] = "ray"
    recheck_s: Final[float | None] = None

    def __init__(self, address: str, *, timeout_s: float = 30.0, command: tuple[str, ...] = _COMMAND) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._command = command
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    def look(self, previous: Endpoint | None) -> Found | Absent:
        """See :meth:`exporter.discovery.Discovery.look`.

        Raises:
            DataPlaneTimeout: Ray or the controller actor gave no answer in time.
            DataPlaneUnavailable: Ray refused us or ended the look-up, or :meth:`close` did.
            DataPlaneBadRequest: Ray and TransferQueue are not installed here, or not in the cluster's version.
            DataPlaneReadError: The look-up's answer cannot be read.
            DataPlaneNotReady: The controller's actor is there and is starting.
        """
        arguments = [self._address, "--deadline", str(self._timeout_s)]
        if previous is not None and previous.actor_id is not None:
            arguments += ["--previous", previous.actor_id]
        child = self._start(arguments)
        try:
            output, noise, ended = _listen(child, self._timeout_s)
        finally:
            self._end(child)
        if self._closed:
            raise DataPlaneUnavailable("discovery was closed during a look-up", operation="discover")
        if not ended:
            message = f"Ray at {self._address} did not answer within {self._timeout_s:g} s (wrong port or token?)"
            raise DataPlaneTimeout(message + _hint(noise), operation="discover")
        if not output.strip():
            message = f"the look-up at Ray {self._address} ended (exit code {child.returncode}) without an answer"
            raise DataPlaneUnavailable(f"{message}: {_last_line(noise)}{_hint(noise)}", operation="discover")
        return decode_answer(output, noise)

    def close(self) -> None:
        """See :meth:`exporter.discovery.Discovery.close`."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                _kill_group(self._child)

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise DataPlaneUnavailable("discovery is closed", operation="discover")
            try:
                self._child = start_child([*self._command, *arguments])
            except OSError as error:
                message = f"cannot start a look-up process: {error.strerror or error}"
                raise DataPlaneUnavailable(message, operation="discover") from error
            return self._child

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        with self._lock:
            _kill_group(child)
            self._child = None
        _reap(child)


def start_child(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process that asks Ray; raises OSError."""
    environment = {
        name: value for name, value in os.environ.items() if name not in _NOT_INHERITED and not name.startswith("OTEL_")
    }
    return subprocess.Popen(  # noqa: S603 - a fixed command and checked arguments
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment, **RAY_ENVIRONMENT},
        start_new_session=True,  # in a process group of its own: killed as a unit, receives no Ctrl-C
    )


def run_child(command: Sequence[str], timeout_s: float) -> tuple[bytes, str]:
    """Run a process that asks Ray, and return the last part of its output, and what explains that it gave none.

    It is killed after *timeout_s* seconds, with all that it started; it has said nothing then.

    Raises:
        OSError: It cannot be started.
    """
    child = start_child(command)
    try:
        output, noise, ended = _listen(child, timeout_s)
    finally:
        _kill_group(child)
        _reap(child)
    if not ended:
        return b"", f"no answer within {timeout_s:g} s" + _hint(noise)
    return output, (_last_line(noise) if not output.strip() else "") + _hint(noise)


def _reap(child: subprocess.Popen[bytes]) -> None:
    child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _listen(child: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes, bool]:
    """Return the last part of what *child* wrote to stdout and to stderr, and whether it exited in time."""
    said = {child.stdout: b"", child.stderr: b""}
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for pipe in said:
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and (wait_s := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(wait_s):
                chunk = os.read(key.fd, _MAX_SAID)
                if not chunk:
                    selector.unregister(key.fileobj)
                said[key.fileobj] = (said[key.fileobj] + chunk)[-_MAX_SAID:]  # type: ignore[index]
        ended = not selector.get_map()
    return said[child.stdout], said[child.stderr], ended


class _Answer(msgspec.Struct):
    absent: bool = False
    ended: bool = False
    detail: str = ""
    error_type: str | None = None


def decode_answer(output: bytes, noise: bytes = b"") -> Found | Absent:
    """Decode the line of JSON that a look-up printed.

    Args:
        output: What it wrote on standard output.
        noise: What it wrote on standard error, which shows why Ray refused.

    Raises:
        DataPlaneError: The error in the line, or DataPlaneReadError when it cannot be read.
    """
    try:
        answer = msgspec.json.decode(output, type=_Answer)
        if answer.error_type is None:
            return Absent(answer.ended, answer.detail) if answer.absent else Found(decode_endpoint(output))
    except ValueError as error:
        excerpt = repr(output[:120].decode(errors="replace"))
        raise DataPlaneReadError(f"cannot read the look-up's answer {excerpt}", operation="discover") from error
    known = answer.error_type in errors.ERROR_TYPES
    kind: type[DataPlaneError] = getattr(errors, answer.error_type) if known else DataPlaneReadError
    raise kind(answer.detail + _hint(output + noise), operation="discover")


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill the look-up and every process that it started. Call it before the child is reaped: ids are reused."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _hint(noise: bytes) -> str:
    # Ray's exception says only "Failed to connect"; its core writes the reason to standard error.
    if not _TOKEN_TROUBLE.search(noise):
        return ""
    return "; Ray refused the token: give this process the cluster's RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH"


def _last_line(noise: bytes) -> str:
    lines = [line for line in noise[-4000:].decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it printed nothing"
