"""What the demo shows of a snapshot."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
from rich.console import Console

from exporter.demo.screen import LiveScreen, PlainScreen, build_screen, line, table
from exporter.snapshot import Histogram, PartitionFlow, PartitionState, Snapshot, StorageState

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


def seen(**changes: Any) -> dict[str, Any]:
    """The snapshot as the exporter serves it, with changes."""
    served: dict[str, Any] = json.loads(msgspec.json.encode(SNAPSHOT))
    return {**served, **changes}


def drawn(view: Any) -> str:
    console = Console(file=io.StringIO(), width=220)
    console.print(view)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_one_line_tells_state_and_occupancy() -> None:
    text = line(seen())
    assert text.startswith("up | restarts 2 | train: 11 ready, 2 incomplete, 0 uncommitted, 1 failed; version 42")
    assert "arrived 123, departed 109, lost 14" in text
    assert "\n" not in text


def test_a_data_plane_that_is_down_says_so() -> None:
    down = seen(up=False, discovery="lost", partitions=[], generation=0)
    assert line(down).startswith("DOWN (lost) | restarts 0")
    assert "DOWN" in drawn(table(down))


def test_an_exporter_that_does_not_answer_says_so() -> None:
    assert line(None) == "the exporter does not answer"
    assert "does not answer" in drawn(table(None))


def test_the_table_has_a_row_per_partition_and_a_dash_for_what_is_not_known() -> None:
    rows = {cells[1].strip(): cells for text in drawn(table(seen())).splitlines() if len(cells := text.split("│")) > 5}
    assert [cell.strip() for cell in rows["train"][2:8]] == ["11", "2", "0", "1", "77", "42"]
    assert [cell.strip() for cell in rows["train"][-4:-1]] == ["123", "109", "14"]
    assert rows["gone"][2].strip() == "-"
    assert "unit 0: 33 of 2048 rows" in drawn(table(seen()))


def test_without_a_terminal_lines_are_printed_now_and_then() -> None:
    out = io.StringIO()
    screen = build_screen(out)
    assert isinstance(screen, PlainScreen)
    screen.say("[not markup]")
    for _ in range(3):
        screen.show(seen())
    screen.close()
    assert out.getvalue().splitlines() == ["[not markup]", line(seen())]


def test_a_terminal_gets_a_table_with_the_news_below() -> None:
    out = io.StringIO()
    screen = LiveScreen(Console(file=out, force_terminal=True, width=220))
    screen.say("before")
    screen.show(seen())
    screen.say("chaos struck")
    screen.show(seen())
    screen.close()
    text = out.getvalue()
    assert text.index("before") < text.index("groups, as the exporter sees them") < text.index("chaos struck")
