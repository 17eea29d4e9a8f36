"""A real ``mooncake_master``, in a network namespace of its own.

Its metadata server listens on all addresses whatever it is told, and a store needs an address that is not loopback. So
the tests that use one run in a namespace, where nobody else reaches them: :func:`in_namespace`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.waiting import wait_until

__all__ = ["ADDRESS", "MasterProcess", "in_namespace"]

ADDRESS = "10.77.0.1"
"""The namespace's own address that is not loopback."""

_SETUP = f"""set -e
ip link set lo up
ip link add mooncake0 type veth peer name mooncake1
ip addr add {ADDRESS}/24 dev mooncake0
ip link set mooncake0 up
ip link set mooncake1 up
exec "$@"
"""


def in_namespace(command: Sequence[str]) -> list[str]:
    """Return what runs *command*, as this user, in a network namespace of its own. Needs root, or ``sudo -n``."""
    inside = ["bash", "-c", _SETUP, "namespace"]
    if os.geteuid() == 0:
        return ["unshare", "--net", *inside, *command]
    user = ["setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups"]
    return ["sudo", "-n", "--preserve-env", "unshare", "--net", *inside, *user, *command]


class MasterProcess:
    """One master with its metadata server, as TransferQueue starts it; a context manager.

    Args:
        folder: For its log.
        flags: Further command-line flags; a later flag wins.
        port: Of its RPC; the metadata server and the metrics take the two before and 9003 + its distance to 50051.
    """

    def __init__(self, folder: Path, *flags: str, port: int = 50051) -> None:
        self.address = f"127.0.0.1:{port}"
        self.metadata_server = f"127.0.0.1:{port - 1}"
        self.metrics_port = 9003 + port - 50051
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}"
        self._log = folder / f"mooncake_master-{port}.log"
        self._flags = (
            "-client_ttl=30",
            "-default_kv_lease_ttl=999999",
            "-default_kv_soft_pin_ttl=999999",
            "--allow_evict_soft_pinned_objects=false",
            "--rpc_address=127.0.0.1",
            f"--rpc_port={port}",
            "--enable_http_metadata_server=true",
            "--http_metadata_server_host=127.0.0.1",
            f"--http_metadata_server_port={port - 1}",
            "--eviction_high_watermark_ratio=1.0",
            "--eviction_ratio=0.0",
            "-metrics_host=127.0.0.1",
            f"-metrics_port={self.metrics_port}",
            *flags,
        )
        self.start()

    def start(self) -> None:
        """Start it, again after :meth:`kill`; return when it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([_program(), *self._flags], stdout=log, stderr=subprocess.STDOUT)
        wait_until(self._answers, f"an answer of the master, see {self._log}")

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL it, also when it is stopped. Idempotent."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(timeout=10)

    def __enter__(self) -> MasterProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text(errors="replace")[-2000:]
        with suppress(OSError), urllib.request.urlopen(f"{self.metrics_url}/health", timeout=1) as answer:
            return bool(answer.status == 200)
        return False


def _program() -> str:
    """Return the master in the installed wheel, which leaves it to a script of its own to make it executable."""
    package = importlib.util.find_spec("mooncake")
    assert package is not None, "mooncake-transfer-engine-non-cuda is not installed: make test installs it"
    program = Path(next(iter(package.submodule_search_locations or ()))) / "mooncake_master"
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    return str(program)
