"""What ``once`` says: the conditions that hold, and whether the data plane is degraded."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from exporter import app, cli
from exporter.model.condition import Condition
from exporter.model.snapshot import Snapshot, SourceState, encode_conditions
from exporter.model.storage import LastAnswer, StorageState
from exporter.terminal.table import print_snapshot

AT = 1_900_000_000.0
REMEDY: dict[str, Any] = {"remedy": "Do it.", "runbook": "docs/runbooks/x.md"}

CRITICAL = Condition("Full", "queue", "critical", True, degrades=True, since=AT, text="storage is full", **REMEDY)
WARNING = Condition("Old", "training", "warning", True, since=AT, text="groups are stale", **REMEDY)
NOTICE = Condition("Slow", "exporter", "notice", True, since=AT, text="polls are stretched", **REMEDY)
CLEAR = Condition("Lost", "data_plane", "critical", False, degrades=True, **REMEDY)
UNKNOWN = Condition("Stuck", "training", "critical", None, degrades=True, **REMEDY)
WELL = Condition("Flows", "training", "ok", True, since=AT, text="groups flow", **REMEDY)


def snapshot(*conditions: Condition, **fields: Any) -> Snapshot:
    return Snapshot(AT, AT - 60, discovery="found", up=True, conditions=conditions, **fields)


def shown(seen: Snapshot) -> list[str]:
    console = Console(width=160, record=True, file=io.StringIO())
    print_snapshot(seen, console)
    return console.export_text().splitlines()


def test_the_conditions_that_hold_come_first_with_what_to_do() -> None:
    lines = shown(snapshot(CRITICAL, CLEAR, UNKNOWN, WARNING, NOTICE))
    assert [line.rstrip() for line in lines[:6]] == [
        "TransferQueue degraded, 17:46:40 UTC",
        "!! storage is full (queue, Full)",
        "  Do it. docs/runbooks/x.md",
        "! groups are stale (training, Old)",
        "  Do it. docs/runbooks/x.md",
        "- polls are stretched (exporter, Slow)",
    ]


def test_what_flows_is_well() -> None:
    assert [line.rstrip() for line in shown(snapshot(CLEAR, WELL))[:2]] == [
        "TransferQueue up, 17:46:40 UTC",
        "Groups flow.",
    ]


def test_a_source_that_was_not_polled_is_not_well() -> None:
    sources = (
        SourceState("ping", "ok", up=True, interval=5.0),
        SourceState("metadata", "ok", interval=10.0),
        SourceState("storage", "disabled"),
    )
    lines = [line.split() for line in shown(snapshot(sources=sources))]
    assert ["ping", "ok", "?", "never"] in lines
    assert ["metadata", "not", "polled", "yet", "?", "never"] in lines
    assert ["storage", "nothing", "to", "poll", "?", "never"] in lines


def test_a_storage_unit_that_does_not_answer_keeps_its_row_with_its_last_figures() -> None:
    units = (
        StorageState(0, "u0", 100, 64, 2048),
        StorageState(1, "u1", error_type="DataPlaneTimeout", last_answer=LastAnswer(AT - 60, 100, 63, 1024)),
        StorageState(2, "u2", error_type="DataPlaneUnavailable"),
    )
    rows = [line.split() for line in shown(snapshot(storage=units))]
    assert ["0", "u0", "ok", "64", "100", "2.0", "KiB"] in rows
    assert ["1", "u1", "silent", "63", "100", "1.0", "KiB", "17:45:40", "UTC"] in rows
    assert ["2", "u2", "gone", "?", "?", "?", "the", "start"] in rows


@pytest.mark.parametrize(
    ("conditions", "strict", "code"),
    [
        ((), False, 0),
        ((WELL, CLEAR, UNKNOWN), True, 0),
        ((NOTICE,), True, 0),
        ((WARNING,), False, 0),
        ((WARNING,), True, 3),
        ((CRITICAL,), False, 3),
        ((CRITICAL,), True, 3),
    ],
)
def test_the_exit_code_of_once(
    conditions: tuple[Condition, ...],
    strict: bool,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(app, "poll_once", lambda config: snapshot(*conditions))
    monkeypatch.setattr(cli, "setup_logging", lambda *args, **options: None)
    arguments = ["once", "--json", "--controller", "tcp://127.0.0.1:1", *(["--strict"] if strict else [])]
    assert cli.main(arguments) == code
    assert len(json.loads(capsys.readouterr().out)["conditions"]) == len(conditions)


def test_without_an_answer_the_exit_code_is_1_whatever_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "poll_once", lambda config: Snapshot(AT, AT, conditions=(CRITICAL,)))
    monkeypatch.setattr(cli, "setup_logging", lambda *args, **options: None)
    assert cli.main(["once", "--controller", "tcp://127.0.0.1:1"]) == 1


def test_the_conditions_as_json() -> None:
    decoded = json.loads(encode_conditions(snapshot(CRITICAL, CLEAR, UNKNOWN)))
    assert {name: decoded[name] for name in ("up", "degraded", "discovery", "severity")} == {
        "up": True,
        "degraded": True,
        "discovery": "found",
        "severity": "critical",
    }
    assert [(one["name"], one["holds"]) for one in decoded["conditions"]] == [
        ("Full", True),
        ("Lost", False),
        ("Stuck", None),
    ]
    assert decoded["conditions"][0]["since"] == AT
    assert json.loads(encode_conditions(snapshot(WELL, CLEAR)))["severity"] == "ok"
