"""The exporter inside a Ray cluster: ``tq-exporter ray-submit``.

A detached actor that takes no CPU keeps one exporter process running on the head node. Ray restarts the actor when it
dies, and the actor restarts its exporter process. Both outlive the driver that submitted them. The exporter runs in a
process of its own, so that it shares no interpreter with Ray.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from dataplane.errors import DataPlaneError
from dataplane.visible import visible
from exporter.discovery.ray_driver import RAY_ENVIRONMENT, NoRayError, connect

__all__ = ["ACTOR", "Keeper", "KeeperStatus", "SubmitError", "status", "stop", "submit"]

ACTOR: Final = "tq_exporter"
"""Name of the actor, in a namespace of the same name."""

_DEADLINE_S: Final = 60.0
_STOP_S: Final = 8.0
_WRONG_ARGUMENTS: Final = 2
_LONGEST_PAUSE_S: Final = 60.0
# The kernel ends the exporter (PR_SET_PDEATHSIG, SIGTERM) when the thread that started it ends for any reason.
_RUN: Final = (
    "import ctypes, sys; ctypes.CDLL(None).prctl(1, 15); sys.path[:] = filter(None, sys.path); "
    "from exporter.cli import main; sys.exit(main())"
)


class SubmitError(Exception):
    """The exporter was not submitted, found or stopped; the message says why and what to do."""


class KeeperStatus(msgspec.Struct, frozen=True):
    """State of the exporter process.

    Attributes:
        state: ``running``, ``restarting``, ``failed`` (its arguments are wrong: no restart would help) or ``stopped``.
        node: Address of the node it runs on.
        pid: Its process id there, None while there is none.
        restarts: How often this actor has restarted it.
    """

    state: str
    node: str
    pid: int | None
    restarts: int


class Keeper:
    """Keeps one exporter process running. The class of the actor.

    Args:
        arguments: For ``tq-exporter run``.
        config_file: The text of the configuration file, None for none.
    """

    def __init__(self, arguments: Sequence[str], config_file: str | None) -> None:
        import ray

        self._node = ray.util.get_node_ip_address()
        self._folder = Path(tempfile.mkdtemp(prefix="tq-exporter-"))
        # The address of this cluster: "auto" may find another one on the same machine.
        arguments = ["--ray-address", ray.get_runtime_context().gcs_address, *arguments]
        if config_file is not None:
            path = self._folder / "exporter.yaml"
            path.write_text(config_file)
            arguments += ["--config", str(path)]
        self._command = [sys.executable, "-c", _RUN, "run", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._state, self._restarts = "restarting", 0
        self._stopping = threading.Event()
        threading.Thread(target=self._keep, name="tq-exporter-keeper", daemon=True).start()

    def status(self) -> KeeperStatus:
        """Return the state of the exporter process."""
        process = self._process
        pid = process.pid if process is not None and self._state == "running" else None
        return KeeperStatus(self._state, self._node, pid, self._restarts)

    def stop(self) -> None:
        """Stop the exporter and this actor."""
        import ray

        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            process.kill()
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()
        ray.actor.exit_actor()

    def _keep(self) -> None:
        pause_s = 1.0
        while not self._stopping.is_set():
            started = time.monotonic()
            self._process = subprocess.Popen(  # noqa: S603
                self._command, stdin=subprocess.DEVNULL, cwd=self._folder
            )
            self._state = "running"
            if self._process.wait() == _WRONG_ARGUMENTS:
                self._state = "failed"
                return
            self._state = "stopped" if self._stopping.is_set() else "restarting"
            pause_s = 1.0 if time.monotonic() - started > _LONGEST_PAUSE_S else min(2 * pause_s, _LONGEST_PAUSE_S)
            if self._stopping.wait(pause_s):
                return
            self._restarts += 1


def submit(address: str, arguments: Sequence[str], config_file: str | None, *, any_node: bool = False) -> KeeperStatus:
    """Start the exporter in the Ray cluster at *address*; return once its actor answers.

    Args:
        address: ``auto``, ``HOST:PORT`` of the GCS, or ``ray://HOST:PORT``.
        arguments: For ``tq-exporter run``.
        config_file: The text of a configuration file for it, None for none.
        any_node: Let Ray choose the node, rather than the head node.

    Raises:
        SubmitError: There is no such cluster, an exporter runs there already, or its node cannot run one.
    """
    with _connected(address) as ray:
        with contextlib.suppress(ValueError):
            ray.get_actor(ACTOR, namespace=ACTOR)
            raise SubmitError("an exporter runs in this cluster already: stop it with tq-exporter ray-submit --stop")
        options: dict[str, Any] = {} if any_node else {"resources": {"node:__internal_head__": 0.001}}
        keeper = ray.remote(Keeper).options(
            name=ACTOR, namespace=ACTOR, lifetime="detached", num_cpus=0, max_restarts=-1, **options
        )
        return _ask(ray, keeper.remote(list(arguments), config_file))


def status(address: str) -> KeeperStatus:
    """Return the state of the submitted exporter. Raises SubmitError when there is none."""
    with _connected(address) as ray:
        return _ask(ray, _find(ray))


def stop(address: str) -> None:
    """Stop the submitted exporter. Raises SubmitError when there is none."""
    with _connected(address) as ray:
        keeper = _find(ray)
        try:
            ray.get(keeper.stop.remote(), timeout=2 * _STOP_S)
        except ray.exceptions.RayActorError:
            return  # this is how an actor that exits itself looks
        except ray.exceptions.GetTimeoutError as error:
            raise SubmitError("the exporter's actor does not answer: see ray list actors") from error


def _find(ray: Any) -> Any:
    try:
        return ray.get_actor(ACTOR, namespace=ACTOR)
    except ValueError as error:
        raise SubmitError("no exporter was submitted to this cluster") from error


def _ask(ray: Any, keeper: Any) -> KeeperStatus:
    try:
        seen: KeeperStatus = ray.get(keeper.status.remote(), timeout=_DEADLINE_S / 2)
        return seen
    except ray.exceptions.GetTimeoutError as error:
        raise SubmitError("the exporter's actor does not start: see ray list actors") from error
    except ray.exceptions.RayActorError as error:
        missing = "No module named 'exporter" in str(error)
        remedy = "install tq-exporter on the cluster's nodes" if missing else "see ray list actors --detail"
        raise SubmitError(f"the exporter's actor died: {remedy}") from error


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to the cluster at *address* as a driver. Ends the process when the block outlasts the deadline."""
    os.environ.update(RAY_ENVIRONMENT)
    # Ray may block for minutes and ignore signals meanwhile.
    watchdog = threading.Timer(_DEADLINE_S, _give_up, [address])
    watchdog.daemon = True
    watchdog.start()
    try:
        ray = connect(address)
    except (NoRayError, DataPlaneError) as error:
        raise SubmitError(str(error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()
        watchdog.cancel()


def _give_up(address: str) -> None:
    sys.stderr.write(f"tq-exporter: Ray at {visible(address)} did not answer within {_DEADLINE_S:g} s\n")
    sys.stderr.flush()
    os._exit(1)
