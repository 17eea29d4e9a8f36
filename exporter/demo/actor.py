"""The base class of the demo's actors: a loop that can be stopped, a log file, telemetry, a connection.

The classes are plain; the cluster process makes Ray actors of them. Such an actor has more than one thread, so that it
can answer ``stop`` while ``run`` is at work.
"""

from __future__ import annotations

import importlib
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from dataplane.errors import DataPlaneError
from dataplane.observability import MetricsDataPlaneClient
from exporter.demo.instruments import ProcessTelemetry
from exporter.demo.protocol import Options
from exporter.demo.reattaching import ReattachingClient, attach
from exporter.demo.scenarios import SCENARIOS
from exporter.demo.writers import WRITERS

__all__ = ["THREADS", "Actor", "TelemetrySetUp", "log_to"]

THREADS = 4
"""Threads of an actor: one for its loop, the others for calls that must not wait for it."""

_FLUSH_S = 3.0

TelemetrySetUp = Callable[[str, str, str | None], ProcessTelemetry]
"""Takes ``service.name``, ``service.instance.id`` and the OTLP receiver."""


class Actor(ABC):
    """One process of the training job.

    Args:
        options: The demo run.
        name: The actor's name, for example ``rollout-0``; also names its log file.
        telemetry: Sets up the process's OpenTelemetry.
    """

    def __init__(self, options: Options, name: str, telemetry: TelemetrySetUp = ProcessTelemetry) -> None:
        self.options = options
        self.name = name
        self.writer = WRITERS[options.convention]
        self.scenario = SCENARIOS[options.scenario]
        self.stopping = threading.Event()
        self.logger = log_to(Path(options.logs) / f"{name}.log", name)
        self.telemetry = telemetry(f"demo-{name.partition('-')[0]}", name, options.otlp)
        self.connection = ReattachingClient(
            lambda: attach(propagate=options.otlp is not None), self.stopping, self.logger
        )

    def warm_up(self) -> None:
        """Import the modules that the first attach needs, which takes seconds."""
        importlib.import_module("transfer_queue")

    def at_work(self, timeout_s: float) -> str:
        """Wait until :meth:`run` is attached to the data plane; return the URL of this process's metrics.

        Raises:
            TimeoutError: It was not attached within *timeout_s* seconds.
        """
        if not self.connection.attached.wait(timeout_s):
            raise TimeoutError(f"{self.name} was not attached to the data plane within {timeout_s:g} s")
        return self.telemetry.url

    def run(self) -> str:
        """Work until :meth:`stop` and return a summary. Raises only errors that are not DataPlaneErrors."""
        try:
            while (client := self.connection.client()) is not None:
                try:
                    self.work(client)
                except DataPlaneError as error:
                    if self.connection.failed(error):
                        self.lost()
        except Exception:
            self.logger.exception("ended by an error other than a DataPlaneError")
            raise
        finally:
            self.connection.close()
            self.telemetry.shutdown(_FLUSH_S)
        errors = ", ".join(f"{count} {kind}" for kind, count in sorted(self.connection.errors.items())) or "none"
        summary = f"{self.summary()}; attached {self.connection.attachments} times; errors: {errors}"
        self.logger.info("ended: %s", summary)
        return summary

    def stop(self) -> None:
        """Make :meth:`run` return soon."""
        self.stopping.set()

    @abstractmethod
    def work(self, client: MetricsDataPlaneClient) -> None:
        """Do one small piece of work. Must wait only on ``self.stopping``."""

    @abstractmethod
    def lost(self) -> None:
        """Forget the work in flight, since the connection is lost."""

    @abstractmethod
    def summary(self) -> str:
        """Return a short text about the work done."""


def log_to(path: Path, name: str) -> logging.Logger:
    """Return the logger of one demo process. It and the ``dataplane`` package write to *path*."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger(f"demo.{name}")
    for each in (logger, logging.getLogger("dataplane")):
        each.setLevel(logging.INFO)
        each.propagate = False
        each.addHandler(handler)
    return logger
