"""The report: one file that needs nothing else, and in which nothing from outside is obeyed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.recording.archive import Archive
from exporter.recording.report import render_report
from tests.recording.support import close, kill, record, recorder_of
from tests.support.simulated_run import SimulatedRun

HOSTILE = '<script>alert("1")</script>\x1b[31m\u202e&\'"><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that starves, is gone for a while, and is recorded by two exporters, the first of which is killed."""
    path = tmp_path_factory.mktemp("recording") / "run.tqr"
    run = SimulatedRun()
    recorder = recorder_of(path, run)
    record(recorder, run, 300)
    run.starved = True
    record(recorder, run, 120)
    run.starved, run.outage = False, True
    record(recorder, run, 90)
    run.outage = False
    record(recorder, run, 60)
    kill(recorder)
    run.clock.advance(600)
    run.begin_again(controller=HOSTILE, reason=HOSTILE)
    again = recorder_of(path, run, version=HOSTILE)
    record(again, run, 100)
    run.outage = True
    record(again, run, 20)
    again.record_departures([{"group_id": HOSTILE, "state": HOSTILE, HOSTILE: HOSTILE, "lag": 12}])
    close(again)
    return path


def test_it_says_what_happened_in_plain_words(recording: Path) -> None:
    page = re.sub(r"<[^>]+>", "", render_report(Archive(recording)))
    for sentence in (
        "The recording covers 21 min 30 s, by 2 processes of the exporter.",
        "Nothing was recorded in one gap, together 10 min 10 s",
        "TransferQueue answered for 83.8 % of the recorded time.",
        "It stopped answering twice; the longest outage began at 14 Nov 2023 22:20:20 and took 1 min 30 s.",
        "DataPlaneTrainerStarved (critical) held once, together 2 min, first at 14 Nov 2023 22:18:20: no group",
        "2 controllers answered, one after another.",
        "groups arrived.",
        "The trainer starved for at least 1 min 5",
        "The trainer&#x27;s weight version went from 0 to",
        "lag 12",
        "quiet_seconds 700",
        "until the recording stopped (it was killed, or the machine stopped)",
    ):
        assert sentence in page, sentence


def test_nothing_from_outside_is_obeyed_and_nothing_is_loaded(recording: Path) -> None:
    page = render_report(Archive(recording))
    assert "&lt;script&gt;alert(" in page
    assert not re.search(r"<(script|img|link|iframe|object|embed|base|form)\b", page)
    assert not re.search(r"\b(src|href|srcset|action|on\w+)=", re.sub(r"&lt;.*?&gt;", "", page.partition("<body>")[2]))
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "\u241b[31m" in page


def test_it_is_written_while_an_exporter_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, path = SimulatedRun(), tmp_path / "run.tqr"
    recorder = recorder_of(path, run)
    record(recorder, run, 60)
    assert main(["report", str(path), "-o", str(tmp_path / "report.html")]) == 0
    record(recorder, run, 60)
    assert recorder.state.up
    assert "The recording covers 50 s" in (tmp_path / "report.html").read_text()
    close(recorder)
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out.endswith("</html>\n")


def test_what_cannot_be_done_is_one_line(tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, line in (
        (["report", str(tmp_path / "none.tqr")], 1, "does not exist; give the file that history.file names"),
        (["replay", str(tmp_path / "none.tqr")], 1, "does not exist; give the file that history.file names"),
        (["report", str(recording), "-o", str(tmp_path / "no" / "report.html")], 2, "give another path with -o"),
    ):
        assert main(arguments) == code
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1


def test_an_empty_recording_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = recorder_of(tmp_path / "run.tqr", SimulatedRun())
    recorder.flush()
    kill(recorder)
    assert main(["report", str(tmp_path / "run.tqr")]) == 1
    assert "nothing was recorded" in capsys.readouterr().err


def test_it_needs_neither_server_nor_telemetry() -> None:
    code = (
        "import sys, exporter.recording.report; "
        "sys.exit([name for name in ('uvicorn', 'opentelemetry.sdk', 'zmq', 'ray') if name in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
