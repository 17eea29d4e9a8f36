"""The exporter registers with RL-Insight's real server, without its Prometheus, Grafana and Tempo."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import rl_insight
from exporter.cli import main
from exporter.config import ConfigError
from exporter.config.model import Tracking
from exporter.rl_insight import SERVER_VARIABLE, Registration, server_url
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]

# Its own command would listen on all interfaces.
_SERVER = """
import socket, sys, uvicorn
from omegaconf import OmegaConf
from rl_insight.server.http_api import create_app
off = {"prometheus": {"enable": True, "prometheus_port": 1}, "tempo": {"enable": False}, "grafana": {"enable": False}}
app = create_app(OmegaConf.create({"server": {"data_dir": sys.argv[1], "runtime_dir": sys.argv[1]}, **off}))
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])
"""


@dataclass
class Server:
    """RL-Insight's server, and what its Prometheus is told to scrape."""

    url: str
    folder: Path

    @property
    def targets(self) -> list[dict[str, Any]]:
        file = self.folder / "targets" / "prometheus-targets.yml"
        return yaml.safe_load(file.read_text()) if file.exists() else []


@contextmanager
def _running(folder: Path, port: int = 0) -> Iterator[Server]:
    command = [sys.executable, "-c", _SERVER, str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(f"http://127.0.0.1:{process.stdout.readline().strip()}", folder)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _running(tmp_path_factory.mktemp("insight")) as server:
        yield server


def test_an_exporter_registers_itself(server: Server) -> None:
    arguments = ("--controller", "tcp://127.0.0.1:1", "--run", "blue")
    with ExporterProcess(*arguments, env={SERVER_VARIABLE: server.url + "/"}) as exporter:
        address = exporter.url.removeprefix("http://")
        said = f"registered with RL-Insight at {server.url}: it scrapes {address} as job tq-exporter"
        wait_until(lambda: said in exporter.log, "the registration", 30.0)
        (found,) = [one for one in server.targets if one["targets"] == [address]]
        assert found["labels"] == {"component": "tq-exporter", "run": "blue", "rl_insight_job": "tq-exporter"}
        assert exporter.stop() == 0
        assert f"RL-Insight keeps the target {address}" in exporter.log


def test_a_server_that_comes_later_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(rl_insight, "_RETRY_S", 0.1)
    with _running(tmp_path / "first") as first:
        url = first.url
    registration = Registration(url, "127.0.0.1", 9464, scheme="http")
    registration.start()
    wait_until(lambda: caplog.records, "a failure", 10.0)
    with _running(tmp_path / "second", int(url.rpartition(":")[2])) as second:
        wait_until(lambda: second.targets, "the registration", 30.0)
        registration.stop()
    assert caplog.text.count("cannot register with RL-Insight") == 1


def test_tls_and_a_password_are_said(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    registration = Registration(server.url, "0.0.0.0", 9465, scheme="https", protected=True)
    assert registration.register() == "127.0.0.1:9465", "the address towards the server"
    (found,) = [one for one in server.targets if one["targets"] == ["127.0.0.1:9465"]]
    assert found["labels"]["__scheme__"] == "https"
    registration.start()
    wait_until(lambda: "has no password for this exporter" in caplog.text, "the remark", 10.0)
    registration.stop()


def test_a_refusal_says_why(server: Server) -> None:
    registration = Registration(server.url + "/elsewhere", "127.0.0.1", 9464, scheme="http")
    with pytest.raises(HTTPException, match="404 Not Found"):
        registration.register()


def test_the_configuration_wins_over_the_variable() -> None:
    environ = {SERVER_VARIABLE: " http://training:18080/ "}
    assert server_url(Tracking(), {}) is None
    assert server_url(Tracking(), environ) == "http://training:18080"
    assert server_url(Tracking(rl_insight="http://mine:1"), environ) == "http://mine:1"
    with pytest.raises(ConfigError, match=r"RL_INSIGHT_SERVER_URL: 'training' is not the URL of a server; write http:"):
        server_url(Tracking(), {SERVER_VARIABLE: "training"})


def test_without_a_server_nothing_runs() -> None:
    Registration(None, "127.0.0.1", 9464, scheme="http").start()
    assert SERVER_VARIABLE not in os.environ


# What its command "server start" does with --extra-dashboard-dir; it does not start without Grafana's binary.
_STAGE = """
import pathlib, sys
from rl_insight.server.runtime import _stage_grafana_dashboards
from rl_insight.utils.monitor_config_loader import load_server_config_file
conf = load_server_config_file(None)
conf.grafana.extra_dashboard_dir = sys.argv[1]
staged = _stage_grafana_dashboards(conf, pathlib.Path(sys.argv[2]))
print(*sorted(str(path.relative_to(staged)) for path in staged.rglob("tq-*.json")), sep="\\n")
"""


def test_its_grafana_takes_the_dashboards(tmp_path: Path) -> None:
    assert main(["dashboards", "--rl-insight", str(tmp_path / "ours")]) == 0
    command = [sys.executable, "-c", _STAGE, str(tmp_path / "ours"), str(tmp_path / "runtime")]
    staged = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    names = [path.name for path in (ROOT / "dashboards" / "grafana").glob("*.json")]
    assert staged == [f"TransferQueue/{name}" for name in sorted(names)]


def test_two_folders_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboards", "--rl-insight", str(tmp_path), "-o", str(tmp_path)]) == 2
    assert "--rl-insight: and -o are two folders; give one of them" in capsys.readouterr().err
