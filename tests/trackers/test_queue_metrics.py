"""What a trainer's own logger reads from a real exporter, and that it never holds the trainer up."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest

from dataplane import tracking
from dataplane.tracking import QueueMetrics, Readings, Window
from tests.situations.frameworks import nemo_rl
from tests.situations.player import Job
from tests.support.certificates import Authority
from tests.support.exporter_process import ExporterProcess


def test_it_reads_what_is_there_and_what_happened_since(job: Job) -> None:
    queue = QueueMetrics(job.exporter.url, timeout=10.0)
    job.shows({"rollout_data": nemo_rl("a", 1) | nemo_rl("b", 1)})
    first = queue.read()
    assert first["tq/exporter_up"] == first["tq/up"] == 1
    assert first["tq/rollout_data/ready"] == first["tq/training/ready"] == 2
    assert first["tq/trainer_version"] == 1
    assert "tq/rollout_data/completed_per_s" not in first, "nothing is known about the time before"
    job.shows({"rollout_data": nemo_rl("b", 1) | nemo_rl("c", 2)}, rounds=2)
    second = queue.read()
    assert second["tq/rollout_data/lag_max"] == 1
    assert second["tq/rollout_data/completed_per_s"] > 0
    assert second["tq/rollout_data/departed_per_s"] > 0
    assert second["tq/rollout_data/evicted_share"] == 0
    assert second["tq/rollout_data/residence_mean_s"] > 0


def test_what_is_not_known_is_missing(job: Job) -> None:
    """Nobody has found a data plane yet."""
    assert set(QueueMetrics(job.exporter.url, timeout=10.0).read()) <= {
        "tq/exporter_up",
        "tq/up",
        "tq/controllers",
        "tq/critical_conditions",
        "tq/warning_conditions",
    }


@pytest.fixture
def job() -> Iterator[Job]:
    with Job() as job:
        yield job


def test_over_tls_with_a_password(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("exporter")
    hashed = bcrypt.hashpw(b"s3cret pass", bcrypt.gensalt(4)).decode()
    config = tmp_path / "web.yml"
    config.write_text(
        f"tls_server_config: {{cert_file: {pair.cert}, key_file: {pair.key}}}\nbasic_auth_users: {{ana: '{hashed}'}}\n"
    )
    arguments = ("--web.config.file", str(config), "--controller", "tcp://127.0.0.1:1")
    with ExporterProcess(*arguments) as exporter:
        ca = str(authority.file)
        right = QueueMetrics(exporter.url, timeout=10.0, username="ana", password="s3cret pass", ca_file=ca)
        assert right.read()["tq/up"] == 0
        in_url = exporter.url.replace("://", "://ana:s3cret%20pass@")
        assert QueueMetrics(in_url, timeout=10.0, ca_file=ca).read()["tq/exporter_up"] == 1
        wrong = QueueMetrics(exporter.url, timeout=10.0, username="ana", password="no", ca_file=ca)
        assert wrong.read() == {"tq/exporter_up": 0.0}
        assert QueueMetrics(exporter.url, timeout=10.0).read() == {"tq/exporter_up": 0.0}, "the authority is unknown"


@contextmanager
def _server(*answer: bytes, pause_s: float = 0.0) -> Iterator[str]:
    """Serve *answer* piece by piece to each connection; without one, nothing."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)  # unread, it would reset the connection
                    for piece in answer:
                        stop.wait(pause_s)
                        try:
                            connection.sendall(piece)
                        except OSError:
                            break
                    if not answer:
                        stop.wait()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://me:hunter2@127.0.0.1:{listener.getsockname()[1]}"
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        HEAD.replace(b"200 OK", b"404 Not Found") + b'{"at": 1, "since": 0, "gauges": {"tq/up": 1}, "counters": {}}',
        HEAD + b"not JSON",
        HEAD + b"[]",
        HEAD + b'{"at": "x"}',
        HEAD + b'{"at": 1, "since": 0, "gauges": {"tq/up": null}, "counters": {}}',
        HEAD + b'{"at": 1, "since": 0, "gauges": {"tq/up": NaN}, "counters": {}}',
        HEAD + b'{"at": 1, "since": 0, "gauges": [], "counters": 5}',
        HEAD + b"[" * 100_000,
    ],
)
def test_an_answer_that_is_none_raises_nothing(answer: bytes) -> None:
    with _server(answer) as url:
        assert QueueMetrics(url, timeout=10.0).read() == {"tq/exporter_up": 0.0}


def test_a_mute_exporter_costs_the_timeout_and_no_second_thread() -> None:
    with _server() as url:
        queue = QueueMetrics(url, timeout=0.2)
        before = threading.active_count()
        for _ in range(5):
            assert queue.read() == {"tq/exporter_up": 0.0}
            assert threading.active_count() <= before + 1


def test_a_resolver_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake: here no resolver can be made to hang."""
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hang.wait())
    queue = QueueMetrics("http://exporter.example:9464", timeout=0.1)
    waited_s = -time.thread_time()
    assert queue.read() == {"tq/exporter_up": 0.0}
    assert queue.read() == {"tq/exporter_up": 0.0}, "the first one still hangs, so this one asks nothing"
    assert waited_s + time.thread_time() < 1
    hang.set()


def test_an_answer_in_drops_ends_at_the_deadline() -> None:
    with _server(HEAD, *[b"x"] * 50, pause_s=0.1) as url:
        queue = QueueMetrics(url, timeout=0.3)
        assert queue.read() == {"tq/exporter_up": 0.0}


def test_it_logs_each_change_once_and_no_password(caplog: pytest.LogCaptureFixture) -> None:
    good = HEAD + b'{"at": 1, "since": 0, "gauges": {}, "counters": {}}'
    with _server(b"garbage\r\n\r\n") as url:
        queue = QueueMetrics(url, timeout=10.0)
        queue.read()
        queue.read()
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert "hunter2" not in caplog.text
    with _server(good) as url:
        queue._port = int(url.rpartition(":")[2])
        queue.read()
        queue.read()
    assert "answers again" in caplog.records[1].message
    assert len(caplog.records) == 2


@pytest.mark.parametrize("url", ["", "127.0.0.1:9464", "ftp://h:1", "http://"])
def test_an_address_that_is_none_is_said_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="give http://HOST:PORT"):
        QueueMetrics(url)


def test_it_needs_the_standard_library_alone() -> None:
    """Loaded by its path, since the package around it needs msgspec."""
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('tracking', sys.argv[1]);"
        "module = importlib.util.module_from_spec(spec); sys.modules['tracking'] = module;"
        "spec.loader.exec_module(module);"
        "print(module.QueueMetrics('http://127.0.0.1:1', timeout=5).read())"
    )
    command = [sys.executable, "-I", "-S", "-c", code, tracking.__file__]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "{'tq/exporter_up': 0.0}\n"


def _at(at: float, *, since: float = 0.0, **counters: float) -> Readings:
    return Readings(at, since, None, {"tq/up": 1.0}, {f"tq/t/{name}": count for name, count in counters.items()})


def test_rates_are_over_at_least_half_a_minute() -> None:
    window = Window()
    window.add(_at(0, completed=0))
    assert window.add(_at(10, completed=10))["tq/t/completed_per_s"] == 1
    assert window.add(_at(60, completed=10))["tq/t/completed_per_s"] == 0, "a reading after a minute is about that one"
    assert window.add(_at(61, completed=60))["tq/t/completed_per_s"] == pytest.approx(50 / 51)


def test_the_share_is_of_those_that_left_and_is_missing_if_none_did() -> None:
    window = Window()
    window.add(_at(0, departed=4, evicted=0))
    assert window.add(_at(30, departed=8, evicted=1))["tq/t/evicted_share"] == 0.25
    assert "tq/t/evicted_share" not in window.add(_at(60, departed=8, evicted=1))


def test_counters_that_began_anew_say_nothing() -> None:
    window = Window()
    window.add(_at(0, arrived=9, completed=9))
    assert window.add(_at(30, arrived=10, completed=1)) == {"tq/up": 1.0}
    assert window.add(_at(60, since=50, arrived=20, completed=20)) == {"tq/up": 1.0}, "another exporter"
    assert window.add(_at(90, since=50, arrived=50, completed=20))["tq/t/arrived_per_s"] == 1


def test_readings_survive_pickle() -> None:
    assert pickle.loads(pickle.dumps(_at(1))) == _at(1)
