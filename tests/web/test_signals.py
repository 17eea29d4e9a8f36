"""What a running exporter does at SIGHUP and SIGUSR1. Both end a process that does not handle them."""

from __future__ import annotations

import os
import signal
import zipfile
from pathlib import Path

import pytest

from exporter.model.snapshot import Snapshot
from exporter.terminal.state_line import state_line
from exporter.web import Guard
from tests.support.exporter_process import ExporterProcess
from tests.support.snapshots import rich_snapshot
from tests.support.waiting import wait_until


def test_the_exporter_reads_its_log_level_again_and_tells_its_state(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yaml"
    web = tmp_path / "web.yml"
    web.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    kept = tmp_path / "kept"
    settings = f"discovery: {{controller: 'tcp://127.0.0.1:1'}}\nweb: {{config_file: {web}}}\n"
    settings += f"diagnose: {{directory: {kept}}}\n"
    file.write_text(settings)
    with ExporterProcess("--config", str(file)) as exporter:

        def send(number: signal.Signals, *said: str) -> None:
            exporter.process.send_signal(number)
            wait_until(lambda: all(text in exporter.log for text in said), f"{said} in the log")

        send(signal.SIGHUP, "the log level is info; other changes", "the web configuration was read again")
        file.write_text(f"{settings}log: {{level: error}}\n")
        send(signal.SIGHUP, "the log level is error")
        send(signal.SIGUSR1, "state: discovery ", ", not up, ", "polling: runs", f"wrote a diagnosis to {kept}/")
        (written,) = kept.iterdir()
        assert zipfile.ZipFile(written).testzip() is None
        file.write_text(f"{settings}log: {{level: loud}}\n")
        send(signal.SIGHUP, "the configuration cannot be read; the log level stays as it is: ", "'loud'")
        assert exporter.get("/healthz")[0] == 200
        assert exporter.stop() == 0


def test_the_state_is_one_line_that_names_what_counts() -> None:
    line = state_line(rich_snapshot(), alive=False)
    assert "\n" not in line
    assert line.startswith("discovery found, up, controller tcp://")
    assert "polling: stands still" in line
    assert "keys: unknown" in state_line(Snapshot(2.0, 1.0), alive=True)
    assert "no controller" in state_line(Snapshot(2.0, 1.0), alive=True)


def test_a_reload_keeps_the_protection_of_an_invalid_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "web.yml"
    file.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    guard = Guard(file)
    before = guard.current()
    stat = file.stat()
    file.write_text("http_server_config: {headers: {X-Frame-Options: none}}\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a change that a look at the file does not show
    assert guard.current() is before
    guard.reload()
    assert guard.current() is before
    assert "the previous one stays in force" in caplog.text
    Guard(None).reload()
