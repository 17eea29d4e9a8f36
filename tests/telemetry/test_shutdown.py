"""Shutdown: the process ends in time whatever the receiver does, and the last data is pushed if possible."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.otlp_receiver import grpc_receiver, http_receiver

# Builds telemetry, records a span and a poll to push, and exits.
PROGRAM = """
import logging, sys, time
from exporter.config import Config, Otlp
from exporter.model.snapshot import Snapshot
from exporter.telemetry import Telemetry

logging.basicConfig(level=logging.INFO)
config = Config(otlp=Otlp(endpoint=sys.argv[1], protocol=sys.argv[2], interval=float(sys.argv[3]), timeout=30.0))
telemetry = Telemetry(config, lambda: Snapshot(1.0, 1.0))
with telemetry.tracer.start_as_current_span("tq_exporter.poll", attributes={"tq_exporter.notable": "slow"}):
    telemetry.recorder.poll("ping", "ok")
time.sleep(0.3)  # long enough for the first push to hang where the interval is short
print("ready", flush=True)
sys.stdin.readline()
telemetry.shutdown(timeout_s=1.0)
"""
# Shutdown has 1 s, each push 30 s: a shutdown that waits for a push takes much longer than this on any machine.
END_S = 10.0


@pytest.mark.parametrize("interval", [0.05, 3600.0], ids=["a push in flight", "nothing in flight"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("fault", ["silent", "mute handshake", "refused"])
def test_it_ends_in_time(fault: str, protocol: str, interval: float) -> None:
    with _faulty(fault) as url:
        _, took = _run(url, protocol, interval)
    assert took < END_S


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_what_is_left_is_pushed(protocol: str) -> None:
    with (http_receiver if protocol == "http/protobuf" else grpc_receiver)() as receiver:
        _run(receiver.url, protocol, 3600.0)
        names = {m.name for m in receiver.last_metrics().resource_metrics[0].scope_metrics[0].metrics}
        assert "tq_exporter.polls" in names
        assert receiver.last_traces().resource_spans[0].scope_spans[0].spans[0].name == "tq_exporter.poll"


def _run(url: str, protocol: str, interval: float) -> tuple[str, float]:
    """Return the program's log and the seconds that its shutdown took."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, protocol, str(interval)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        started = time.monotonic()
        _, log = process.communicate("\n", timeout=60)
        took = time.monotonic() - started
    assert process.returncode == 0, log
    assert "Traceback" not in log
    return log, took


@contextmanager
def _faulty(fault: str) -> Iterator[str]:
    """A receiver that accepts but never answers, one that does not accept, or none."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        if fault == "silent":
            server.listen(16)
        elif fault == "mute handshake":
            server.listen(0)
            for _ in range(2):  # with its queue full, Linux leaves further connects unanswered
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"
