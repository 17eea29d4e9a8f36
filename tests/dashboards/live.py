"""Parts of the live test: accelerated rules, a real Prometheus and Alertmanager, a webhook, and a training job."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server

from dataplane import build_data_plane_client
from dataplane.errors import DataPlaneError
from dataplane.observability import MetricsDataPlaneClient
from exporter.demo.stack import alertmanager_command, free_port, prometheus_command, prometheus_config
from exporter.shipped import rules
from tests.support.waiting import wait_until

__all__ = ["FACTOR", "Job", "Monitoring", "scaled"]

FACTOR = 30
"""Factor by which the rules run faster than shipped: 5 minutes become 10 seconds."""

_UNITS = {"s": 1, "m": 60, "h": 3600}
_FIELDS = ("for", "group_wait", "group_interval", "repeat_interval")


def scaled(text: str) -> str:
    """Return rules or routes with every range, ``for``, ``keep_firing_for`` and interval divided by FACTOR."""

    def shorter(found: re.Match[str]) -> str:
        return f"{max(1, int(found[1]) * _UNITS[found[2]] // FACTOR)}s"

    text = re.sub(r"(?<=\[)(\d+)([smh])(?=\])", shorter, text)
    for field in _FIELDS:
        text = re.sub(rf"(?<={field}: )(\d+)([smh])$", shorter, text, flags=re.MULTILINE)
    return text


class Monitoring:
    """A Prometheus that scrapes *jobs*, an Alertmanager, and the receiver of its webhooks.

    Args:
        jobs: Name to addresses.
        thresholds: Other than the defaults.
    """

    def __init__(self, jobs: Mapping[str, Sequence[str]], thresholds: Mapping[str, float]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tqlive"))
        self.received: deque[tuple[str, str]] = deque()  # status and name of each alert, in order of arrival
        self._processes: list[subprocess.Popen[bytes]] = []
        self._webhook = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._webhook.serve_forever, daemon=True).start()
        try:
            self._start(jobs, thresholds)
        except BaseException:
            self.close()
            raise

    def _start(self, jobs: Mapping[str, Sequence[str]], thresholds: Mapping[str, float]) -> None:
        written = rules.write(self.folder / "rules", thresholds)
        for path in written:
            path.write_text(scaled(path.read_text()))
        route = self.folder / "rules" / "alertmanager.yaml"
        receiver = f"http://127.0.0.1:{self._webhook.server_port}"
        route.write_text(route.read_text().replace("http://127.0.0.1:9099", receiver))
        alertmanager, self._port = free_port(), free_port()
        config = self.folder / "prometheus.yaml"
        config.write_text(prometheus_config(jobs, self.folder / "rules", f"127.0.0.1:{alertmanager}", interval="1s"))
        data = self.folder / "alertmanager", self.folder / "prometheus"
        for command in (
            alertmanager_command(route, data[0], alertmanager),
            prometheus_command(config, data[1], self._port),
        ):
            with (self.folder / "log").open("ab") as log:
                self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        for port in (alertmanager, self._port):
            wait_until(partial(self._is_ready, port), f"port {port} is ready")

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the result of an instant query. An invalid query fails the test."""
        asked = {"query": expression} | ({} if at is None else {"time": str(at)})
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return [series for series in result if series["value"][1] != "NaN"] if isinstance(result, list) else []

    def broken_rules(self) -> list[str]:
        """Return the rules whose last evaluation failed."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/rules", timeout=30) as answer:
            groups = json.load(answer)["data"]["groups"]
        return [
            f"{rule['name']}: {rule['lastError']}" for g in groups for rule in g["rules"] if rule["health"] == "err"
        ]

    def close(self) -> None:
        """Stop everything."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._webhook.shutdown()
        self._webhook.server_close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ready(self, port: int) -> bool:
        log = (self.folder / "log").read_text()
        assert all(process.poll() is None for process in self._processes), log
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2).close()
            return True
        return False

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.extend((alert["status"], alert["labels"]["alertname"]) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def __enter__(self) -> Monitoring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Job:
    """A small training job with the instrumented client, in a thread: its metrics are at ``address``.

    Attributes:
        generating: Whether it puts a group about five times a second.
        training: Whether it takes ready groups.
        failing: Whether it writes groups that it soon gives up.
        version: The trainer's weight version. Its puts are one version behind.
        foreign: A key of the partition ``foreign`` that another process put. The job reads it repeatedly.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._provider = MeterProvider([PrometheusMetricReader(scope_info_enabled=False, registry=registry)])
        self._server, _ = start_http_server(0, addr="127.0.0.1", registry=registry)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.generating = self.training = True
        self.failing = False
        self.version = 1
        self.foreign: str | None = None
        self._ending = threading.Event()
        self._stale = threading.Event()
        self._client: MetricsDataPlaneClient | None = None
        self._thread = threading.Thread(target=self._run, name="job", daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Attach again soon, since the data plane was replaced."""
        self._stale.set()

    def close(self) -> None:
        """Stop the job."""
        self._ending.set()
        self._thread.join(60)
        self._server.shutdown()
        self._server.server_close()
        self._provider.shutdown()

    def _run(self) -> None:
        while not self._ending.wait(0.2):
            with suppress(DataPlaneError):
                if self._stale.is_set():
                    self._stale.clear()
                    self._let_go()
                if self._client is None:
                    inner = build_data_plane_client({"enabled": True, "timeout_s": 2.0}, bootstrap=False)
                    self._client = MetricsDataPlaneClient(inner, meter_provider=self._provider)
                self._work(self._client)
        self._let_go()

    def _let_go(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _work(self, client: MetricsDataPlaneClient) -> None:
        import torch
        from tensordict import TensorDict

        client.ping()
        client.publish_weight_version(self.version, groups_per_step=1)
        if self.foreign is not None:
            client.get_samples([self.foreign], "foreign", ["tokens"])
            client.clear_samples([uuid4().hex], "foreign")  # nobody has put it, so its origin is unknown
        if self.failing:
            unfinished = [found for found in client.list_metadata("train") if found.state == "uncommitted"]
            if len(unfinished) >= 10:  # each lives for two seconds, so that polls see it
                client.evict([key for found in unfinished[:5] for key in found.keys], "train")
        if self.generating or self.failing:
            group = uuid4().hex
            tag = {
                "group_id": group,
                "weight_version": self.version - 1,
                "created_at": time.time(),
                "committed": not self.failing,
                "expected_num_keys": 2,
                "size_bytes": 64,
            }
            fields = TensorDict({"tokens": torch.ones(2, 4)}, batch_size=[2])
            client.put_samples([f"{group}/0", f"{group}/1"], "train", fields=fields, tags=[tag, tag])
        if self.training:
            groups = [found for found in client.list_metadata("train") if found.state == "ready"]
            for ready in groups if not self.generating else groups[:-3]:
                client.get_samples(ready.keys, "train", ["tokens"])
                client.pop(ready.keys, "train")
