"""``tq-exporter healthcheck``: what counts as healthy, and its message otherwise."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.config import Config, ConfigError, Listen, load_config
from exporter.model.snapshot import Snapshot
from exporter.web import WebServer
from exporter.web.healthcheck import UnhealthyError, check_health
from tests.support.snapshots import empty_snapshot


class Exporter:
    """A server whose health a test sets."""

    def __init__(self) -> None:
        self.alive = True
        self.snapshot: Snapshot = replace(empty_snapshot(), ready=True)
        self.web = WebServer(
            Listen("127.0.0.1", 0),
            scrape=lambda accept, names: (b"", "text/plain"),
            snapshot=lambda: self.snapshot,
            alive=lambda: self.alive,
        )
        self.port = self.web.listen()[1]
        self.web.start()

    def config(self, host: str = "127.0.0.1", web: Path | None = None) -> Config:
        given = {"--listen": f"{host}:{self.port}", "--web.config.file": None if web is None else str(web)}
        return load_config(given, {})


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    made = Exporter()
    yield made
    made.web.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_live_loop_is_well(exporter: Exporter, host: str) -> None:
    check_health(exporter.config(host))
    check_health(exporter.config(host), "/readyz")


def test_a_loop_that_has_stopped_is_not(exporter: Exporter) -> None:
    exporter.alive = False
    with pytest.raises(UnhealthyError, match="the poll loop has stopped"):
        check_health(exporter.config())


def test_readiness_is_the_first_round(exporter: Exporter) -> None:
    exporter.snapshot = empty_snapshot()
    check_health(exporter.config())
    with pytest.raises(UnhealthyError, match="the first round of polls is not done"):
        check_health(exporter.config(), "/readyz")


def test_nobody_there_is_not_well(exporter: Exporter) -> None:
    exporter.web.stop()
    with pytest.raises(UnhealthyError, match=rf"no answer at 127\.0\.0\.1:{exporter.port}: .*refused"):
        check_health(exporter.config())


def test_something_else_there_is_not_well(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.web.healthcheck._TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        exporter.port = mute.getsockname()[1]
        with pytest.raises(UnhealthyError, match="timed out"):
            check_health(exporter.config())


def test_a_broken_web_configuration_ends_no_exporter_that_works(
    exporter: Exporter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web = tmp_path / "web.yml"
    web.write_text("basic_auth_users: {alice: secret}\n")
    check_health(exporter.config(web=web))
    assert "basic_auth_users.alice: is not a bcrypt hash" in caplog.text


def test_any_free_port_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match="listen: port 0 is any free one"):
        check_health(load_config({"--listen": "127.0.0.1:0"}, {}))
