"""``tq-exporter diagnose`` against the real web server, with what a simulated job has made of the exporter."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter import cli
from exporter.config import Config, Listen
from exporter.diagnosis.about import encode_about
from exporter.diagnosis.bundle import FILES
from exporter.web import WebServer
from tests.dashboards.simulated import Simulated
from tests.diagnosis.incidents import play


@contextmanager
def serving(run: Simulated, *, page: bool = True, alive: bool = True) -> Iterator[str]:
    web = WebServer(
        Listen("127.0.0.1", 0),
        scrape=lambda accept, names: (run.scrape(), "text/plain"),
        snapshot=lambda: run.snapshot,
        alive=lambda: alive,
        history=run.history,
        about=lambda: encode_about(Config(run="grpo-7b"), os.environ),
        page=page,
    )
    port = web.listen()[1]
    web.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        web.stop()


@pytest.fixture(scope="module")
def stalled() -> Iterator[Simulated]:
    with play("stalled-trainer") as run:
        yield run


def test_the_verdict_on_a_running_exporter_and_its_bundle(
    stalled: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bundle.zip"
    with serving(stalled) as url:
        assert cli.main(["diagnose", "--url", url, "-o", str(file)]) == 3
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("The trainer: training has taken nothing for 15 min")
    assert lines[1] == "The controller and 2 storage units answer and groups arrive."
    assert "!! 132 groups are ready and none has left for" in out
    assert "Check whether the trainer is alive" in out
    assert f"left out: groups: {url} has no /api/v1/groups (404)" in out
    assert f"wrote {file}" in lines[-1]
    assert err == ""
    with zipfile.ZipFile(file) as bundle:
        assert set(bundle.namelist()) == FILES.keys() - {"ray.json"}
        assert b"run: grpo-7b" in bundle.read("about.json")


def test_a_healthy_run_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with play("healthy") as run, serving(run) as url:
        assert cli.main(["diagnose", "--url", url]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Nothing is wrong: groups flow through generation, queue and training")
    assert out.lower().count("groups flow") == 1


def test_without_a_page_there_is_no_history_and_a_verdict(
    stalled: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(stalled, page=False) as url:
        assert cli.main(["diagnose", "--url", url, "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["culprit"], said["condition"], said["exit_code"]) == ("the trainer", "DataPlaneQueueStalled", 3)
    assert said["missing"].keys() == {"history, recent", "history, hour", "groups"}


def test_an_exporter_that_stands_still(stalled: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(stalled, alive=False) as url:
        cli.main(["diagnose", "--url", url])
    assert capsys.readouterr().out.startswith("The exporter itself hangs: ")


def test_without_ids(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with play("no-rollouts") as run, serving(run) as url:
        cli.main(["diagnose", "--url", url])
        assert "“g67”" in capsys.readouterr().out
        cli.main(["diagnose", "--url", url, "--no-keys", "-o", str(tmp_path)])
    assert "g67" not in capsys.readouterr().out
    (written,) = tmp_path.iterdir()
    assert "g67" not in zipfile.ZipFile(written).read("report.txt").decode()


def test_own_polls_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diagnose", "--controller", "tcp://127.0.0.1:1", "--for", "1s"]) == 1
    assert "has not answered yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--url", "127.0.0.1:1"), 1, "refuses connections"),
        (("--url", "http://a:hunter22@node7"), 2, "password"),
        (("--url", "127.0.0.1:1", "--for", "5s"), 2, "--for"),
        (("--user", "alice"), 2, "--url"),
    ],
)
def test_one_line_for_each_mistake(
    arguments: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["diagnose", *arguments]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "hunter22" not in err
    assert len(err.splitlines()) == 1


def test_a_bundle_that_cannot_be_written(stalled: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(stalled) as url:
        assert cli.main(["diagnose", "--url", url, "-o", "/proc/none/bundle.zip"]) == 2
    assert "-o: /proc/none/bundle.zip cannot be written" in capsys.readouterr().err
