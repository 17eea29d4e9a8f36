"""The load on the data plane while a fault occurs."""

from __future__ import annotations

import os
import signal
import tempfile
from types import TracebackType
from typing import Final

from tests.support import forks
from tests.support.cluster import TQCluster
from tests.support.waiting import wait_until

__all__ = ["BUSY", "FULL", "IDLE", "LOADS", "PARTITION", "RESIDENT", "Load"]

PARTITION: Final = "flow"
"""Through which groups pass under load. It is empty now and then."""

IDLE: Final = "idle"
"""Two groups and no calls."""

FULL: Final = "10,000 keys"
"""10,000 groups of one key and no calls."""

BUSY: Final = "under load"
"""Two groups, and beside them a client that puts, claims, gets and clears in a loop."""

LOADS: Final = (IDLE, FULL, BUSY)

RESIDENT: Final = "resident"
"""The partition that exists under every load and does not change."""

_KEYS: Final = {IDLE: 2, FULL: 10_000, BUSY: 2}


class Load:
    """Puts a load on a healthy, empty data plane, and checks whether the job continues.

    Args:
        name: One of :data:`LOADS`.
        cluster: The data plane.
    """

    def __init__(self, name: str, cluster: TQCluster) -> None:
        self.name = name
        self.groups = _KEYS[name]
        cluster.put(RESIDENT, [f"r{i}_g0" for i in range(self.groups)], tags=[{"weight_version": 1}] * self.groups)
        self._cluster = cluster
        self._client = _Client(cluster) if name == BUSY else None
        if self._client is not None:
            self._client.await_rounds(3)

    def assert_goes_on(self, cluster: TQCluster) -> None:
        """Fail unless the job works on *cluster* after the fault. A client continues; on another Ray it restarts."""
        keys = ["one_g0", "two_g0"]
        cluster.put("after", keys, tags=[{"weight_version": 2}] * 2)
        assert sorted(cluster.list_rows("after")["after"]) == keys
        source = "result = len(tq.kv_batch_get(keys=keys, partition_id='after', select_fields=['tokens'])['tokens'])"
        assert cluster.run(source, keys=keys) == 2
        if self._client is not None:
            if cluster is not self._cluster:
                self._client.close()
                self._client, self._cluster = _Client(cluster), cluster
            self._client.await_rounds(3)

    def close(self) -> None:
        """Stop the client."""
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Client:
    """The process of :mod:`tests.faults.load_client`."""

    def __init__(self, cluster: TQCluster) -> None:
        self._progress = tempfile.TemporaryFile(prefix="tqx-load-")  # noqa: SIM115
        self._log = tempfile.TemporaryFile(prefix="tqx-load-log-")  # noqa: SIM115
        self._process = forks.start(
            "ray",
            ["-m", "tests.faults.load_client", cluster.ray_address],
            stdout=self._progress,
            stderr=self._log,
            env={**os.environ, **cluster.env},
        )

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def rounds(self) -> int:
        return int(os.pread(self._progress.fileno(), 20, 0) or 0)

    def await_rounds(self, more: int) -> None:
        """Wait until it has finished *more* rounds."""
        wanted = self.rounds + more
        try:
            wait_until(lambda: self.rounds >= wanted or not self.runs, "rounds of the client", 120.0)
            assert self.runs, f"the client ended with {self._process.returncode}"
        except AssertionError as error:
            end = os.fstat(self._log.fileno()).st_size
            log = os.pread(self._log.fileno(), 4000, max(end - 4000, 0)).decode(errors="replace")
            raise AssertionError(f"{error}\n{log}") from None

    def close(self) -> None:
        if self.runs:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._progress.close()
        self._log.close()
