"""Texts of others reach no terminal, text log or error line as they are: names, ids, errors."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dataplane.discovery.record import Endpoint, StorageUnitEndpoint, encode_endpoint
from dataplane.visible import HIDDEN, visible, visible_json, visible_lines
from exporter import app, cli
from exporter.config import load_config
from exporter.demo import cli as demo_cli
from exporter.demo.screen import build_screen, tables
from exporter.demo.screen import line as demo_line
from exporter.logs import JsonFormatter, TextFormatter
from exporter.model.condition import Condition
from exporter.model.snapshot import Snapshot
from exporter.terminal.outside import make_console
from exporter.terminal.table import print_snapshot
from tests.hostile.support import TRICKS, hidden, lying_controller
from tests.support.exporter_process import ExporterProcess
from tests.support.fake_router import FakeRouter
from tests.support.waiting import wait_until

_STYLES = re.compile(r"\x1b\[[\d;]*m|\x1b\[\?25[hl]")  # those that rich writes itself: colours and the cursor


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A discovery record, every text of which is hostile, of a controller that answers like that."""
    file = tmp_path_factory.mktemp("hostile") / "tq.json"
    with FakeRouter(lying_controller) as router:
        units = (StorageUnitEndpoint(0, TRICKS, router.address), StorageUnitEndpoint(1, TRICKS, router.address))
        endpoint = Endpoint(router.address, TRICKS, None, TRICKS, None, units, f"{TRICKS}:1", {"ray": TRICKS}, TRICKS)
        file.write_bytes(encode_endpoint(endpoint))
        yield file


@pytest.fixture(scope="module")
def seen(record: Path) -> Snapshot:
    """What the exporter sees of it, with a condition that quotes it unescaped."""
    found = app.poll_once(load_config({"--discovery-file": str(record)}, {}))
    condition = Condition("X", "queue", "critical", True, text=TRICKS, remedy=TRICKS, partitions=(TRICKS,))
    return replace(found, conditions=(*found.conditions, condition))


def test_the_page_hides_the_same_characters() -> None:
    text = (Path(cli.__file__).parent / "web" / "page" / "format.js").read_text()
    classes = re.search(r"text\.replace\(/\[([^\]]*)\]/gu", text)
    assert classes is not None
    assert {*re.findall(r"\\p\{(\w+)\}", classes[1])} == {*HIDDEN} - {"Cs"}  # no browser has lone surrogates


def test_a_text_stays_readable_and_shows_every_character() -> None:
    assert visible("rollout_ä日本\u00a0—🙂") == "rollout_ä日本\u00a0—🙂"
    assert visible("a\x1b\n\x7f\x9b\u202e\u2028\ufeff\ud800") == "a␛␊\\u007f\\u009b\\u202e\\u2028\\ufeff\\ud800"
    assert not hidden(visible("".join(map(chr, range(0x11000)))), lines=False)
    assert visible(visible(TRICKS)) == visible(TRICKS)
    assert visible_lines("a\nb\r\nc\x1b") == "a\nb␍\nc␛"


def test_json_keeps_its_content() -> None:
    tree = {TRICKS: [TRICKS, "ä\ud800\U000e0041"]}
    shown = visible_json(json.dumps(tree, ensure_ascii=False))
    assert json.loads(shown) == tree
    assert not hidden(shown, lines=False)


def test_once_shows_everything_and_obeys_nothing(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["once", "--discovery-file", str(record)]) in (0, 3)
    out = capsys.readouterr().out
    assert not hidden(out)
    assert [text for text in out.splitlines() if text.startswith("TransferQueue")] == [out.splitlines()[0]]
    assert out.count("[/bold][red]:warning:[link=file:///]") >= 5  # no markup, and nothing is lost
    assert "c[/x]" in out


def test_once_as_json_can_be_printed_and_read(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["once", "--json", "--discovery-file", str(record)])
    out = capsys.readouterr().out
    assert not hidden(out)
    assert out.count("\n") == 1
    assert json.loads(out)["endpoint"]["run"] == TRICKS


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_no_sequence_of_others(seen: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for draw in (
        lambda console: print_snapshot(seen, console, watched_s=5.0),
        lambda console: console.print(tables(seen)),
    ):
        terminal = _Terminal()
        draw(make_console(terminal, width=300))
        out = terminal.getvalue()
        assert "\x1b[" in out  # it is drawn as for a terminal
        assert not hidden(_STYLES.sub("", out))
        assert out.count("[/bold]") >= 5


def test_the_demo_says_nothing_of_others_as_it_is(seen: Snapshot, capsys: pytest.CaptureFixture[str]) -> None:
    assert not hidden(demo_line(seen), lines=False)
    out = io.StringIO()
    screen = build_screen(out)
    screen.say(TRICKS)
    screen.show(seen)
    assert not hidden(out.getvalue())
    assert len(out.getvalue().splitlines()) == 2
    assert demo_cli._fail(f"{TRICKS}\nits log", 1) == 1
    assert not hidden(capsys.readouterr().err)


def test_a_log_has_a_line_per_record() -> None:
    try:
        raise ValueError(f"boom {TRICKS}\n2030-03-17T17:46:40.123Z INFO    exporter.app: all is well")
    except ValueError:
        made = logging.LogRecord("exporter.x", logging.ERROR, __file__, 1, "%s", (TRICKS,), sys.exc_info())
    text = TextFormatter().format(made)
    assert not hidden(text)
    first, *others = text.split("\n")
    assert first.endswith(visible(TRICKS))
    assert others
    assert all(other.startswith("  ") for other in others)
    as_json = JsonFormatter().format(made)
    assert not hidden(as_json, lines=False)
    assert json.loads(as_json)["message"] == TRICKS


def test_a_secret_is_masked_before_it_is_made_visible() -> None:
    secret = "se\x1bcret"
    made = logging.LogRecord("exporter.x", logging.ERROR, __file__, 1, "%s", (secret,), None)
    assert TextFormatter([secret]).format(made).endswith("exporter.x: ***")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check-config", f"/no/{TRICKS}".replace("\0", "")],
        ["run", f"--{TRICKS}"],
        ["run", "--log-level", TRICKS],
        ["run", "--otlp", TRICKS],
        ["rules", "--set", f"{TRICKS}=1", "-o", "x"],
        ["metrics", "--format", TRICKS],
        [TRICKS],
    ],
    ids=lambda arguments: arguments[0] if arguments[0].isprintable() else "a command",
)
def test_an_error_is_one_visible_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = cli.main(arguments)
    except SystemExit as ended:
        code = ended.code
    err = capsys.readouterr().err
    assert code == 2
    assert not hidden(err)
    assert err.count("\n") == 1
    assert err.startswith("tq-exporter: ")


def test_the_log_of_an_exporter_forges_nothing(record: Path) -> None:
    with ExporterProcess("--discovery-file", str(record), "--metadata-interval", "500ms") as exporter:
        wait_until(lambda: "the metadata poll failed" in exporter.log, "a failed poll", 30.0)
        log = exporter.log
    assert not hidden(log)
    assert "␛[2J" in log
    assert all(re.match(r"\d{4}-\d\d-\d\dT", text) for text in log.splitlines())
