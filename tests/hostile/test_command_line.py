"""Clumsy command lines: each gets one line that helps."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from exporter import cli
from exporter.arguments import join_values
from exporter.config import ConfigNote, load_config
from exporter.demo.cli import DURATION, checked
from exporter.shipped.thresholds import ThresholdError, parse_settings

NOWHERE = ["--controller", "tcp://127.0.0.1:1"]


def _shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run *command* in a shell; ``tq-exporter`` is this one."""
    program = f"{sys.executable} -m exporter.cli"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TQ_EXPORTER_")}
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("tq-exporter", program)],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean,
        check=False,
    )


@pytest.mark.parametrize("command", ["once", "once --json", "check-config", "metrics", "rules --list"])
@pytest.mark.parametrize(
    ("output", "why"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")], ids=["closed", "full"]
)
def test_output_that_cannot_be_written_is_one_line(command: str, output: str, why: str) -> None:
    flags = "" if command.startswith(("metrics", "rules")) else " ".join(NOWHERE)
    ended = _shell(f"tq-exporter {command} {flags} {output}")
    assert (ended.returncode, ended.stderr) == (1, f"tq-exporter: cannot write to standard output: {why}\n")


def test_without_any_output_only_the_exit_code_is_left() -> None:
    assert _shell("tq-exporter metrics >&- 2>&-").returncode == 1
    assert _shell("tq-exporter run --log-level x >&- 2>&-").returncode == 2


def test_a_terminal_that_knows_few_characters_gets_them_escaped(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("run: Übung", encoding="utf-8")
    ended = _shell(f"PYTHONIOENCODING=ascii tq-exporter check-config {tmp_path / 'x.yaml'}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "run: \\xdcbung" in ended.stdout


def test_a_port_alone_listens_on_all_addresses() -> None:
    for given in ({"--listen": ":9464"}, {"--listen": "0.0.0.0:9464"}):
        assert str(load_config(given, {}).listen) == "0.0.0.0:9464"
    assert str(load_config({}, {"TQ_EXPORTER_LISTEN": ":1"}).listen) == "0.0.0.0:1"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--ping-interval", "-5s"], "--ping-interval: '-5s' is not a duration; write it as 250ms, 5s, 2m"),
        (["once", "--metadata-interval", "-.5"], "--metadata-interval: '-.5' is "),
        (["once", "--watch", "-1"], "argument --watch: '-1' is "),
        (["check-config", "a.yaml", "--config", "b.yaml"], "--config: and a.yaml are two files; give one of them"),
        (["rules", "--set", "malformed_rows=1", "--set", "malformed_rows=2", "-o", "x"], "--set 'malformed_rows=2': "),
        (["rules", "--runbooks", "notaurl", "-o", "x"], "--runbooks: 'notaurl' is not a URL; give the URL of "),
        (["rules", "--runbooks", "ftp://x", "-o", "x"], "--runbooks: 'ftp://x' is not a URL; "),
        (["rules", "--runbooks", "http://[", "-o", "x"], "--runbooks: 'http://[' is not a URL; "),
        (
            ["demo", "--config", "x.yaml"],
            "--config: is an argument of check-config, diagnose, groups, once, ray-submit, replay, run, top, ",
        ),
        (["metrics", "--json"], "--json: is an argument of diagnose, once, not of metrics; see tq-exporter "),
        (["--verison"], "--verison: is not a known argument; did you mean --version?"),
        (["once", "--jsno"], "--jsno: is not a known argument; did you mean --json?"),
        (["demo", "--durration", "1"], "--durration: is not a known argument; did you mean --duration?"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_a_mistake_gets_one_line_that_helps(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = cli.main(arguments)
    except SystemExit as ended:
        code = ended.code
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith(f"tq-exporter: {line}")
    assert err.count("\n") == 1


def test_only_a_negative_value_is_joined_to_its_flag() -> None:
    assert join_values(["run", "--a", "-5s", "--b=1", "-2", "-o", "x"]) == ["run", "--a=-5s", "--b=1", "-2", "-o", "x"]
    assert join_values(["--", "-1", "-x", "--c", "-.5"]) == ["--", "-1", "-x", "--c=-.5"]


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/traces", "/v1/logs/"])
def test_the_path_of_a_signal_is_left_out_with_a_note(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", "--otlp", f"http://h:4318/base{path}"]) == 0
    said = capsys.readouterr()
    assert "endpoint: http://h:4318/base\n" in said.out
    assert said.err == f"tq-exporter: note: --otlp: {path} is left out, it is added for each signal\n"


def test_the_note_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("otlp:\n  endpoint: http://h:1/v1/metrics\n")
    with pytest.warns(ConfigNote, match=r"x\.yaml:2: otlp\.endpoint: /v1/metrics is left out"):
        assert load_config({}, {}, tmp_path / "x.yaml").otlp.endpoint == "http://h:1"
    with pytest.warns(ConfigNote, match="TQ_EXPORTER_OTLP: /v1/traces is left out"):
        load_config({}, {"TQ_EXPORTER_OTLP": "http://h:1/v1/traces"})


def test_a_threshold_may_be_set_once() -> None:
    assert parse_settings(["malformed_rows=1", "restarts_per_hour=2"]) == {"malformed_rows": 1, "restarts_per_hour": 2}
    with pytest.raises(ThresholdError, match="given twice"):
        parse_settings(["malformed_rows=1", "malformed_rows=1"])


def test_the_stack_takes_a_duration_as_the_demo_does() -> None:
    assert [checked(DURATION)(given) for given in ("60s", "60", "2m")] == [60.0, 60.0, 120.0]
    with pytest.raises(argparse.ArgumentTypeError, match="not a duration"):
        checked(DURATION)("60x")


@pytest.mark.parametrize(
    ("command", "listed", "accepted"),
    [
        ("once", {"--controller", "--ping-interval"}, {"--listen", "--web.disable-page"}),
        ("ray-submit", {"--ray-address", "--listen"}, {"--controller"}),
        ("run", {"--listen", "--otlp", "--controller"}, set()),
    ],
)
def test_help_lists_what_a_command_uses_and_the_others_are_accepted(
    command: str, listed: set[str], accepted: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = set(capsys.readouterr().out.replace("[", " ").split())
    assert listed <= shown
    assert not accepted & shown
    parser = cli._build_parser([command])
    options, rest = parser.parse_known_args([command, *(f"{flag}=x" for flag in accepted if "page" not in flag)])
    assert (options.command, rest) == (command, [])


def test_completion_is_loaded_only_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "shtab", raising=False)
    assert cli.main(["metrics"]) == 0
    assert "shtab" not in sys.modules
    capsys.readouterr()
    made = ModuleType("shtab")
    made.__spec__ = argparse  # type: ignore[assignment]  # find_spec only looks whether there is one

    def complete(parser: argparse.ArgumentParser, shell: str) -> str:
        commands = parser.commands  # type: ignore[attr-defined]
        flags = {name: its.format_help() for name, its in commands.items()}
        assert {"run", "once", "demo", "rules", "completion"} <= set(flags)
        assert "--scenario" in flags["demo"]  # also those that other commands do not load
        assert "--runbooks" in flags["rules"]
        return f"script for {shell}"

    made.complete = complete  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shtab", made)
    assert cli.main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == "script for zsh\n"


def test_completion_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["completion", "bash"]) == 1
    assert capsys.readouterr().err == "tq-exporter: completion needs shtab: pip install 'tq-exporter[completion]'\n"
