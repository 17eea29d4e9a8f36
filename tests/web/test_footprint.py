"""What the process takes: memory by the number of keys, threads by the number of connections.

The controller is a stand-in of the soak, as no real one is needed to hold keys still. ``pytest -rP`` prints figures.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dataplane.net.addresses import split_host_port
from tests.soak.stand_in import Controllers, Run
from tests.support.exporter_process import AS_INSTALLED, ExporterProcess

FAST = ("--ping-interval", "500ms", "--metadata-interval", "500ms")
ENV = {**AS_INSTALLED, "TQ_EXPORTER_METADATA_MAX_CONTROLLER_SHARE": "1"}


class Standing(Run):
    """One partition of as many keys, which does not change."""

    def __init__(self, keys: int) -> None:
        super().__init__(1.0, 1, 1)
        self._rows = {f"{number // 8}_g{number % 8}": {"weight_version": 1} for number in range(keys)}

    def partitions(self, at: float) -> list[str]:
        return [self.LONG]

    def rows(self, partition: str, at: float) -> dict[str, dict[str, Any]]:
        return self._rows


@pytest.mark.parametrize(("keys", "limit_mb"), [(10_000, 60), (100_000, 85)])
def test_it_stays_small(keys: int, limit_mb: int, tmp_path: Path) -> None:
    file = tmp_path / "endpoint.json"
    with (
        Controllers(Standing(keys), file),
        ExporterProcess("--discovery-file", str(file), *FAST, env=ENV, forks=False) as exporter,
    ):
        exporter.wait_for(lambda seen: seen.value("dataplane_partition_keys", partition=Run.LONG) == keys, "keys")
        exporter.wait_for(
            lambda seen: (seen.value("tq_exporter_polls_total", source="metadata", outcome="ok") or 0) > 20, "polls"
        )
        for path in (
            "/metrics",
            "/api/v1/snapshot",
            "/",
            "/metrics",
            "/api/v1/history/hour",
            "/api/v1/groups?search=7&limit=1000",
        ):
            assert exporter.get(path)[0] == 200
        rss, threads = exporter.process.memory_info().rss, exporter.process.num_threads()
        with ExitStack() as stack:
            address = split_host_port(exporter.url.removeprefix("http://"))
            for _ in range(1000):
                stack.enter_context(socket.create_connection(address, timeout=20))
            assert exporter.get("/metrics")[0] == 200
            idle = exporter.process.num_threads()
        print(f"{keys} keys: {rss / 1e6:.0f} MB, {threads} threads, {idle} with 1,000 idle connections")
        assert rss <= limit_mb * 1e6
        assert idle <= threads + 2
