"""The demo's flags, and the errors that are reported before anything starts."""

from __future__ import annotations

import argparse
import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.config import Listen
from exporter.demo import cli


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tq-exporter demo")
    cli.add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults() -> None:
    args = parse()
    assert (args.duration, args.convention, args.chaos, args.rollouts, args.seed) == (None, "recovery", None, 2, 0)
    assert args.scenario == "healthy"
    assert (args.listen, args.otlp, args.logs) == (Listen("127.0.0.1"), None, None)


def test_durations_and_chaos_with_and_without_its_value() -> None:
    assert parse("--duration", "2m").duration == 120.0
    assert parse("--duration", "30").duration == 30.0
    assert parse("--chaos").chaos == 20.0
    assert parse("--chaos", "10s").chaos == 10.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "soon"], "argument --duration: 'soon' is not a duration; write it as"),
        (["--duration", "0"], "argument --duration: '0' is out of range"),
        (["--convention", "slime"], "argument --convention: invalid choice: 'slime' (choose from 'recovery', "),
        (["--scenario", "fire"], "argument --scenario: invalid choice: 'fire' (choose from 'healthy', 'stalled-"),
        (["--rollouts", "0"], "argument --rollouts: '0' is out of range"),
        (["--listen", "9464"], "argument --listen: '9464' is not an address with a port"),
        (["--otlp", "localhost"], "argument --otlp: 'localhost' is not the URL of an OTLP receiver"),
    ],
)
def test_bad_flags_end_with_exit_code_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.full
def test_a_port_in_use_is_one_line_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert cli.main(parse("--listen", address)) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        f"tq-exporter demo: --listen {address}: Address already in use; "
        "give another address, such as --listen 127.0.0.1:0 for any free port"
    )


@pytest.mark.full
def test_a_folder_for_logs_that_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert cli.main(parse("--listen", "127.0.0.1:0", "--logs", str(file / "logs"))) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"tq-exporter demo: --logs {file / 'logs'}: Not a directory; give a folder that can be made"


def test_without_ray_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("ray", "torch") else object())
    assert cli.main(parse("--listen", "127.0.0.1:0")) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "tq-exporter demo: the demo needs ray, torch: pip install 'tq-exporter[tq]'"


def test_importing_the_demo_loads_no_ray_and_no_torch() -> None:
    source = (
        "import exporter.demo.cli, exporter.demo.supervisor, exporter.demo.cluster, sys\n"
        "print([name for name in ('torch', 'ray', 'transfer_queue', 'tensordict') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
