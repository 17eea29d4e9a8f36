"""The demo's output for a snapshot."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import msgspec
from rich.console import Console

from exporter.demo.screen import LiveScreen, PlainScreen, build_screen, line, tables
from exporter.model.snapshot import Histogram, PartitionFlow, PartitionState, Snapshot, StorageState, encode_snapshot

EMPTY = Histogram((1.0,), (0, 0), 0.0)
SNAPSHOT = Snapshot(
    taken_at=1.0,
    started_at=0.0,
    discovery="found",
    up=True,
    generation=3,
    partitions=(
        PartitionState(
            "train",
            listed_at=1.0,
            groups={"ready": 11, "incomplete": 2, "uncommitted": 0, "failed": 1},
            keys=77,
            staleness={"0": 5, "1": 6, "2": 2, "3": 0, "4": 0, "5-8": 0, "9+": 0, "unknown": 0},
            staleness_max=2,
            reference_version=42,
            reference="published",
        ),
    ),
    flows=(
        PartitionFlow("gone", arrived=9, departed=9, lost=0, residence=EMPTY, departure_lag=EMPTY),
        PartitionFlow("train", arrived=123, departed=109, lost=14, residence=EMPTY, departure_lag=EMPTY),
    ),
    storage=(StorageState(0, "unit", capacity=2048, keys=33),),
)


def drawn(view: Any) -> str:
    console = Console(file=io.StringIO(), width=220)
    console.print(view)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_one_line_tells_state_and_occupancy() -> None:
    text = line(SNAPSHOT)
    assert text.startswith("up | restarts 2 | train: 11 ready, 2 incomplete, 0 uncommitted, 1 failed; version 42")
    assert "arrived 123, departed 109, lost 14" in text
    assert "\n" not in text


def test_a_data_plane_that_is_down_says_so() -> None:
    down = replace(SNAPSHOT, up=False, discovery="lost", partitions=(), generation=0)
    assert line(down).startswith("DOWN (lost) | restarts 0 | arrived 9")
    assert "TransferQueue down (lost)" in drawn(tables(down))


def test_an_exporter_that_does_not_answer_says_so() -> None:
    assert line(None) == "the exporter does not answer"
    assert "does not answer" in drawn(tables(None))


def test_the_tables_show_occupancy_and_flow() -> None:
    rows = [text.split() for text in drawn(tables(SNAPSHOT)).splitlines()]
    assert ["train", "11", "2", "0", "1", "77"] in [row[:6] for row in rows]
    assert ["train", "123", "109", "14"] in rows
    assert ["gone", "9", "9", "0"] in rows


def test_what_the_exporter_serves_can_be_read_back() -> None:
    assert msgspec.json.decode(encode_snapshot(SNAPSHOT), type=Snapshot) == SNAPSHOT


def test_without_a_terminal_lines_are_printed_now_and_then() -> None:
    out = io.StringIO()
    screen = build_screen(out)
    assert isinstance(screen, PlainScreen)
    screen.say("[not markup]")
    for _ in range(3):
        screen.show(SNAPSHOT)
    screen.close()
    assert out.getvalue().splitlines() == ["[not markup]", line(SNAPSHOT)]


def test_a_terminal_gets_tables_below_what_was_said() -> None:
    out = io.StringIO()
    screen = LiveScreen(Console(file=out, force_terminal=True, width=120, height=50))
    screen.say("where to look")
    screen.show(SNAPSHOT)
    assert "Controller restarts: 2" in out.getvalue()
    screen.say("chaos struck")
    screen.close()
    assert out.getvalue().rindex("chaos struck") < out.getvalue().rindex("Controller restarts: 2")
