"""The demo's output for a snapshot."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import msgspec
from rich.console import Console

from dataplane.groups import GROUP_STATES, GroupState
from exporter.demo.screen import LiveScreen, PlainScreen, build_screen, line, tables, waiting
from exporter.model.snapshot import (
    LAG_BUCKETS,
    Histogram,
    PartitionFlow,
    PartitionState,
    Snapshot,
    StorageState,
    encode_snapshot,
)

EMPTY = Histogram((1.0,), (0, 0), 0.0)
LEFT: dict[GroupState, int] = dict.fromkeys(GROUP_STATES, 0)
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
            groups={"ready": 11, "incomplete": 2, "uncommitted": 0, "failed": 1, "taken": 4},
            keys=77,
            staleness=dict.fromkeys(LAG_BUCKETS, 0) | {"0": 5, "1": 6, "2": 2},
            staleness_max=2,
            reference_version=42,
            reference="published",
        ),
    ),
    flows=(
        PartitionFlow("gone", 9, 9, 9, LEFT | {"taken": 9}, 0, 0, EMPTY, EMPTY),
        PartitionFlow("train", 123, 120, 109, LEFT | {"ready": 100, "failed": 9}, 14, 3, EMPTY, EMPTY),
    ),
    storage=(StorageState(0, "unit", capacity=2048, keys=33),),
)


def drawn(view: Any) -> str:
    written = io.StringIO()
    Console(file=written, width=220).print(view)
    return written.getvalue()


def test_one_line_tells_state_and_occupancy() -> None:
    text = line(SNAPSHOT)
    assert text.startswith("up | restarts 2 | train: 11 ready, 2 incomplete, 0 uncommitted, 1 failed, 4 taken; version")
    assert "arrived 123, completed 120, departed 109, lost 14" in text
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
    assert ["train", "train", "11", "2", "0", "1", "4", "77"] in [row[:8] for row in rows]
    assert ["train", "123", "120", "100", "0", "0", "9", "0", "14", "3"] in rows
    assert ["gone", "9", "9", "0", "0", "0", "0", "9", "0", "0"] in rows


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


def test_what_is_awaited_is_said_with_its_time() -> None:
    out = io.StringIO()
    screen = build_screen(out)
    for seconds in (0.0, 4.9, 6.0, 6.2):
        screen.wait("Ray", seconds)
    assert out.getvalue().splitlines() == ["waiting for Ray: 6 s"]
    assert waiting("the exporter", 7.4, 30.0) == "waiting for the exporter: 7 s of at most 30 s"


def test_a_terminal_shows_at_once_what_is_awaited() -> None:
    out = io.StringIO()
    screen = LiveScreen(Console(file=out, force_terminal=True, width=120, height=50))
    screen.wait("Ray", 0.0)
    screen.wait("Ray", 3.0, 30.0)
    screen.close()
    assert "waiting for Ray: 0 s" in out.getvalue()
    assert "waiting for Ray: 3 s of at most 30 s" in out.getvalue()
