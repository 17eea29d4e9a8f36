"""A real local Ray with a real TransferQueue for tests, owned by a child process.

The test process needs no Ray of its own::

    with TQCluster() as cluster:
        cluster.put("train", ["a", "b"], tags=[{"weight_version": 1}, {"weight_version": 1}])
        reader = WireMetadataReader(cluster.controller.address)
        with frozen(cluster.controller.pid):    # SIGSTOP, then SIGCONT
            ...
        kill(cluster.controller.pid)            # SIGKILL
        cluster.restart_tq()                    # a new controller with new storage units, same Ray

In pytest take the fixtures of ``tests/conftest.py``: ``cluster`` (one Ray for the whole run, TransferQueue
healthy and empty at the start of each test, whatever the test before did to it).

What other processes need to attach: ``cluster.ray_address``, ``cluster.env`` (environment with Ray's
token), ``cluster.controller``, ``cluster.storage_units``, ``cluster.versions``, ``cluster.metrics_endpoint``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from dataplane.adapters.wire import WireMetadataReader
from dataplane.errors import DataPlaneError
from tests.support import forked_worker, forks
from tests.support.waiting import wait_until

__all__ = ["RAY_ENV", "Controller", "StorageUnit", "TQCluster", "frozen", "is_running", "kill"]

RAY_ENV = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(16),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes Ray and TransferQueue use 127.0.0.1 on Linux too
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # by default actors get what tests leave, which on two busy cores is next to nothing
    "OMP_NUM_THREADS": "1",
}
"""Ray's environment in every process of a test run: one token for all its clusters, loopback, no reports."""

_DRIVER = Path(__file__).with_name("cluster_driver.py")


@dataclass(frozen=True)
class Controller:
    """Where the controller is: its request socket (``tcp://127.0.0.1:port``), ids and process."""

    id: str
    address: str
    actor_id: str
    pid: int


@dataclass(frozen=True)
class StorageUnit:
    """Where a storage unit is: its put/get socket, id and process."""

    index: int
    id: str
    address: str
    pid: int


@contextlib.contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """SIGSTOP processes during the block. They continue afterwards, even when it fails."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            _await_stop(pid)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _await_stop(pid: int, timeout_s: float = 10.0) -> None:
    """Return when every thread has stopped: until the signal takes effect, a request may still be answered."""
    tasks = Path(f"/proc/{pid}/task")
    wait_until(lambda: all(_task_state(task) == "T" for task in tasks.iterdir()), f"SIGSTOP of {pid}", timeout_s)


def _task_state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
        return "T"


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def kill(pid: int, timeout_s: float = 10.0) -> None:
    """SIGKILL a process and return when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
    wait_until(lambda: not is_running(pid), f"SIGKILL of {pid}", timeout_s)


class TQCluster:
    """A Ray cluster and a TransferQueue; a context manager that leaves no process and no folder behind.

    Args:
        storage_units: Number of storage units.
        capacity: Rows that all units together hold, None for no limit.
        polling_mode: TransferQueue's ``controller.polling_mode``.
        sampler: TransferQueue's ``controller.sampler``.
        metrics: Start TransferQueue's own Prometheus endpoint too.
        mooncake: TransferQueue's options of MooncakeStore, which has no storage units; None for SimpleStorage.
        with_tq: Start TransferQueue; False leaves a Ray with nothing in it.
        python: The interpreter of the owning process, to test another TransferQueue than this process has.
        cpus: CPUs that Ray believes to have, None for what TransferQueue and a few tasks need.
        preload: Modules that the workers need, imported once for all. They must not import Ray.
        variables: Further environment variables of the cluster's processes.
        timeout_s: Deadline of each command, the start included.
    """

    def __init__(
        self,
        *,
        storage_units: int = 2,
        capacity: int | None = None,
        polling_mode: bool = True,
        sampler: str = "SequentialSampler",
        metrics: bool = False,
        mooncake: Mapping[str, Any] | None = None,
        with_tq: bool = True,
        python: str = sys.executable,
        cpus: int | None = None,
        preload: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        timeout_s: float = 180.0,
    ) -> None:
        self._tq_options = {
            "storage_units": storage_units,
            "capacity": capacity,
            "polling_mode": polling_mode,
            "sampler": sampler,
            "metrics": metrics,
            "mooncake": None if mooncake is None else dict(mooncake),
        }
        self._interpreter = python
        self._program = [str(_DRIVER), *preload]
        self._variables = dict(variables or {})
        self._cpus = storage_units + 4 if cpus is None else cpus
        self._timeout_s = timeout_s
        self._controller: Controller | None = None
        self._running_options: dict[str, Any] = {}
        self.storage_units: tuple[StorageUnit, ...] = ()
        self.metrics_endpoint: str | None = None
        try:
            self._start_ray()
        except RuntimeError:  # Ray gives its own processes 30 s to start, which is not enough for a machine under load
            self._start_ray()
        if with_tq:
            try:
                self.start_tq()
            except BaseException:
                self.close()
                raise

    def _start_ray(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tqx"))
        self.log_path = self.folder / "driver.log"
        environment = {**os.environ, **self._variables, **self.env, "RAY_gcs_server_port_wait_time_s": "120"}
        pipe = subprocess.PIPE
        with self.log_path.open("wb") as log:
            self._process: subprocess.Popen[bytes] | forks.Fork
            if forks.are_served() and self._interpreter == sys.executable:
                self._process = forks.start(
                    "ray", self._program, stdin=pipe, stdout=pipe, stderr=log, env=environment, cwd=self.folder
                )
            else:
                self._process = subprocess.Popen(
                    [self._interpreter, "-u", *self._program],
                    stdin=pipe,
                    stdout=pipe,
                    stderr=log,
                    env=environment,
                    cwd=self.folder,
                    start_new_session=True,
                )
        try:
            started = self._call("ray_init", temp_dir=str(self.folder), num_cpus=self._cpus)
        except BaseException:
            self.close()
            raise
        self.ray_address: str = started["ray_address"]
        self.versions: dict[str, str] = started["versions"]

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that a process must set before it imports Ray to attach: :data:`RAY_ENV`."""
        return dict(RAY_ENV)

    @property
    def controller(self) -> Controller:
        """The running TransferQueue's controller; only while there is one."""
        assert self._controller is not None, "TransferQueue is not running"
        return self._controller

    @property
    def pid(self) -> int:
        """The process that owns Ray and TransferQueue."""
        return self._process.pid

    def start_tq(self, **options: Any) -> None:
        """Start TransferQueue, in place of one that runs. *options* override the constructor's for this start."""
        self._running_options = {**self._tq_options, **options}
        self._adopt(self._call("start_tq", **self._running_options))

    def stop_tq(self) -> None:
        """Stop the controller and the storage units, even when they are frozen. Ray stays."""
        self._call("stop_tq")
        self._controller, self.storage_units, self.metrics_endpoint = None, (), None

    def restart_tq(self, **options: Any) -> None:
        """Replace TransferQueue by an empty one: a new controller, new storage units, new addresses."""
        self.start_tq(**options)

    def make_healthy(self) -> None:
        """Bring TransferQueue back to its first configuration, and empty it."""
        if self._controller is None:
            self.start_tq()
            return
        pids = [self._controller.pid, *(unit.pid for unit in self.storage_units)]
        healthy = all(is_running(pid) for pid in pids) and self._answers_under_its_id()
        if self._running_options != self._tq_options or not healthy:
            self.restart_tq()
            return
        self.clear_all()

    def _answers_under_its_id(self) -> bool:
        """Whether the controller answers as itself: one that loaded a checkpoint answers as the one that saved it."""
        reader = WireMetadataReader(self.controller.address, controller_id=self.controller.id, timeout_s=10.0)
        try:
            reader.ping()
        except DataPlaneError:
            return False
        finally:
            reader.close()
        return True

    def put(
        self,
        partition_id: str,
        keys: Sequence[str],
        tags: Sequence[dict[str, Any]] | None = None,
        fields: Sequence[str] | None = ("tokens",),
    ) -> None:
        """Write rows with the public API: *fields* get a small int64 tensor each; None writes only tags."""
        tag_list = None if tags is None else list(tags)
        self._call("put", partition_id=partition_id, keys=list(keys), tags=tag_list, fields=list(fields or ()))

    def list_rows(self, partition_id: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the answer of the public ``kv_list``: partition to key to tag."""
        rows: dict[str, dict[str, Any]] = self._call("list_rows", partition_id=partition_id)
        return rows

    def clear_all(self) -> None:
        """Clear every partition with all its data."""
        self._call("clear_all")

    def run(self, source: str, **values: Any) -> Any:
        """Run Python in the owning process, with ``tq``, ``ray``, ``torch``, ``TensorDict`` and *values* in scope.

        Returns:
            The code's variable ``result``, passed as JSON (``repr`` for values that JSON cannot represent).
        """
        return self._call("run", source=source, values=values)

    def run_program(
        self, arguments: Sequence[str], variables: Mapping[str, str], folder: Path, log: Path, timeout_s: float
    ) -> bool:
        """Run a Python program, a driver of this Ray, as a fork of the process that has imported torch.

        Args:
            arguments: Its file and its arguments.
            variables: Environment variables on top of this process's and :attr:`env`.
            folder: Its working directory.
            log: Gets its output.
            timeout_s: Its deadline.

        Returns:
            Whether it succeeded.
        """
        environment = {**os.environ, **self.env, "RAY_ADDRESS": self.ray_address, **variables}
        with log.open("wb") as output, open(os.devnull) as nothing:
            descriptors = [nothing.fileno(), output.fileno(), output.fileno()]
            server = str(self.folder / "workers")
            return forked_worker.run(server, list(arguments), environment, str(folder), descriptors, timeout_s)

    def close(self) -> None:
        """Stop every process of this cluster and remove its folder. Idempotent."""
        family: set[psutil.Process] = set()
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()  # the owner stops TransferQueue and Ray, then exits
        deadline = time.monotonic() + 30
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess):  # Ray starts workers until its end
                family.update(psutil.Process(self._process.pid).children(recursive=True))
            time.sleep(0.25)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=10)
        _, left = psutil.wait_procs(family, timeout=5)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        # A process that ends late may still write a log, which recreates the folder.
        quiet_since = time.monotonic()
        deadline = quiet_since + 5
        while time.monotonic() < deadline and time.monotonic() - quiet_since < 0.5:
            if self.folder.exists():
                shutil.rmtree(self.folder, ignore_errors=True)
                quiet_since = time.monotonic()
            time.sleep(0.1)

    def __enter__(self) -> TQCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _adopt(self, described: dict[str, Any]) -> None:
        self._controller = Controller(**described["controller"])
        self.storage_units = tuple(StorageUnit(**unit) for unit in described["storage_units"])
        self.metrics_endpoint = described["metrics_endpoint"]

    def _call(self, command: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        request = json.dumps({"command": command, "arguments": arguments})
        try:
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
            line = self._read_line()
        except (BrokenPipeError, ValueError):
            line = b""
        if not line:
            raise RuntimeError(f"the owner of the test cluster is gone or mute at {command!r}:\n{self._log_tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}\n{answer['traceback']}")
        return answer["result"]

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + self._timeout_s
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(descriptor, 65536) if ready else b""
            if not chunk:
                return b""
            line += chunk
        return line

    def _log_tail(self) -> str:
        try:
            return self.log_path.read_text(errors="replace")[-4000:]
        except OSError:
            return "(no log)"
