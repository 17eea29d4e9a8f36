"""A real exporter process for tests: started, scraped, and stopped at the end of its ``with`` block."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.support.forks import Fork, are_served, look_up_env, start
from tests.support.waiting import wait_until

__all__ = ["AS_INSTALLED", "ExporterProcess", "Exposition"]

AS_INSTALLED = {"PYTHONPATH": str(Path(__file__).with_name("as_installed"))}
"""Environment of an exporter whose memory is measured: it loads nothing that only the tests install."""

_OURS = (sys.executable, "-m", "exporter.cli")


class Exposition:
    """One scrape, parsed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def samples(self, name: str, **labels: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the samples of *name* that carry all of *labels*."""
        return [(found, value) for found, value in self._samples.get(name, []) if labels.items() <= dict(found).items()]

    def series(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Return name and labels of every sample."""
        for name, found in self._samples.items():
            for labels, _ in found:
                yield name, labels

    def value(self, name: str, **labels: str) -> float | None:
        """Return the one sample of *name* with *labels*, None when there is none."""
        found = self.samples(name, **labels)
        assert len(found) <= 1, f"{name} {labels} is not unique: {found}"
        return found[0][1] if found else None

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Return the values of *name* with *labels*, keyed by *label*."""
        return {found[label]: value for found, value in self.samples(name, **labels)}


class ExporterProcess:
    """``tq-exporter run`` on a free port of loopback.

    Args:
        arguments: Further flags, for example ``"--controller", "tcp://127.0.0.1:1"``.
        env: Environment on top of this process's own, for example a cluster's.
        program: Another installation's ``tq-exporter``.
        forks: Whether it and its look-ups may be forks (:mod:`tests.support.forks`), a third of the CPU time.
    """

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = _OURS,
        forks: bool = True,
    ) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="tq-exporter-", suffix=".log")  # noqa: SIM115
        command = [*program, "run", "--listen", "127.0.0.1:0", *arguments]
        environment = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | Fork
        if forks and are_served() and program == _OURS and "LD_PRELOAD" not in environment:
            if ("--ray-address" in arguments or "RAY_ADDRESS" in environment) and "PYTHONPATH" not in environment:
                environment |= look_up_env()
            self._process = start("exporter", command[1:], stdout=self._log, stderr=subprocess.STDOUT, env=environment)
        else:
            self._process = subprocess.Popen(
                command,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        try:
            wait_until(lambda: self._address() is not None or self._process.poll() is not None, "the address", 30.0)
            address = self._address()
            assert address is not None, f"the exporter ended with {self._process.poll()}:\n{self.log}"
            self.url = address
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """The process's output so far."""
        return Path(self._log.name).read_text()

    @property
    def process(self) -> psutil.Process:
        """The running process."""
        return psutil.Process(self._process.pid)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def scrape(self) -> Exposition:
        """Return the present content of ``/metrics``."""
        status, body = self.get("/metrics")
        assert status == 200, body
        return Exposition(body)

    def snapshot(self) -> dict[str, Any]:
        """Return ``/api/v1/snapshot``."""
        status, body = self.get("/api/v1/snapshot")
        assert status == 200, body
        snapshot: dict[str, Any] = json.loads(body)
        return snapshot

    def wait_for(self, condition: Callable[[Exposition], bool], what: str, timeout_s: float = 60.0) -> Exposition:
        """Scrape until *condition* holds, and return that scrape."""
        seen: list[Exposition] = []

        def holds() -> bool:
            assert self._process.poll() is None, f"the exporter ended with {self._process.returncode}:\n{self.log}"
            seen[:] = [self.scrape()]
            return condition(seen[0])

        try:
            wait_until(holds, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-3000:]}") from None
        return seen[0]

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Send a signal and return the exit code."""
        self._process.send_signal(number)
        return self._process.wait(timeout_s)

    def close(self) -> None:
        """Stop the process, by SIGKILL if necessary."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        self._log.close()

    def __enter__(self) -> ExporterProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _address(self) -> str | None:
        found = re.search(r"(https?://[^\s\"/]+)/metrics", self.log)
        return found[1] if found else None
