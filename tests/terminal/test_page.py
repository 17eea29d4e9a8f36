"""The terminal's page: what comes first, that it fits, and what it says without an answer."""

from __future__ import annotations

import functools
import io
from dataclasses import replace

import pytest
from rich.console import Console

from exporter.model.condition import Condition
from exporter.model.snapshot import Incident, PartitionStatus, Snapshot, SourceState
from exporter.terminal.frame import Frame
from exporter.terminal.page import page_lines
from exporter.terminal.sparkline import growth, sparkline
from tests.diagnosis.incidents import INCIDENTS, played
from tests.support.snapshots import ODD_NAME, TAKEN, empty_snapshot, rich_snapshot

end_of = functools.cache(played)

HOSTILE = replace(
    rich_snapshot(),
    conditions=(
        Condition(
            "Odd", "queue", "critical", True, since=TAKEN, text="\x1b[2J 汉字" * 60, remedy="r" * 300, degrades=True
        ),
    ),
    incidents=(Incident(TAKEN, "ping", "ping", "DataPlaneTimeout", "a\r\nb\x07" + "x" * 300),),
    statuses=(PartitionStatus(ODD_NAME * 9, False, "timeout"), *rich_snapshot().statuses),
    sources=(SourceState("ping", "failing", up=False, detail="y\x9b" * 200), *rich_snapshot().sources),
)


def lines(frame: Frame, width: int = 100, height: int | None = None, *, encoding: str = "utf-8") -> list[str]:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width)
    shown = page_lines(frame, console, TAKEN + 60, height=height)
    assert all(line.cell_len <= width for line in shown), [line for line in shown if line.cell_len > width]
    assert all(line.plain.isprintable() for line in shown)
    return [line.plain for line in shown]


def at(name: str) -> Frame:
    end = end_of(name)
    return Frame("here", end.snapshot, end.recent)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("snapshot", [HOSTILE, rich_snapshot(), empty_snapshot()], ids=["hostile", "rich", "empty"])
def test_every_line_fits(snapshot: Snapshot, width: int) -> None:
    assert lines(Frame("here", snapshot), width)


@pytest.mark.parametrize("name", INCIDENTS)
def test_every_incident_fits_60_columns(name: str) -> None:
    shown = lines(at(name), 60)
    assert shown[0].startswith("TransferQueue ")
    for one in end_of(name).snapshot.held:
        assert any(one.text[:30] in line for line in shown[:8])


def test_what_is_wrong_comes_first() -> None:
    shown = lines(at("stalled-trainer"), 60)
    assert shown[0].startswith("TransferQueue degraded")
    assert shown[1].startswith("!! 132 groups are ready and none has left")
    titles = ("Partitions", "Training data, version 47", "Storage: 2 of 2 units answer", "Polls:")
    places = [next(index for index, line in enumerate(shown) if line.startswith(title)) for title in titles]
    assert places == sorted(places)
    assert next(line for line in shown if line.startswith("train ")).split()[1:] == ["132", "0", "4", "0", "2"]
    assert next(line for line in shown if line.startswith("arrive")).split()[1] == "7.98/min"
    assert next(line for line in shown if line.startswith("leave")).split()[1] == "0/min"
    assert set(next(line for line in shown if line.startswith("ready")).split()[2]) <= set("▁▂▃▄▅▆▇█")


def test_a_healthy_job_says_so() -> None:
    assert lines(at("healthy"))[1].startswith("Nothing is wrong: groups flow")


def test_a_unit_that_does_not_answer_is_listed_first() -> None:
    shown = lines(at("unit-silent"))
    place = next(index for index, line in enumerate(shown) if line.startswith("Storage: 1 of 2"))
    assert shown[place + 1].startswith("unit 1: ")
    assert "no answer since" in shown[place + 1]


def test_a_terminal_without_blocks_draws_with_letters() -> None:
    assert not set("▁▂▃▄▅▆▇█") & set("".join(lines(at("healthy"), encoding="ascii")))


def test_what_matters_least_is_cut() -> None:
    whole = lines(at("stalled-trainer"), 60)
    shown = lines(at("stalled-trainer"), 60, height=8)
    assert shown == [*whole[:7], f"({len(whole) - 7} more lines)"]


def test_the_last_frame_stays_and_is_marked_as_old() -> None:
    frame = replace(at("healthy"), lost_since=TAKEN + 20, why="http://x refuses connections")
    shown = lines(frame)
    assert shown[0].startswith("NO ANSWER since ")
    assert "(40 s)" in shown[0]
    assert shown[1] == "http://x refuses connections"
    assert shown[3].startswith("TransferQueue up")
    console = Console(file=io.StringIO(), width=100)
    old = page_lines(frame, console, TAKEN)
    assert all("dim" in [str(span.style) for span in line.spans] for line in old[3:] if line.plain)


def test_before_the_first_answer() -> None:
    assert lines(Frame("http://x")) == ["waiting for http://x"]


def test_sparklines() -> None:
    assert sparkline([0, 1, None, 8], 10) == "▁▂ █"
    assert sparkline([0, 0], 10) == "▁▁"
    assert sparkline([1, 9, 1, 3, 1, 1], 3) == "█▃▁"
    assert sparkline([5, 1, 9], 2, ascii_only=True) == "=#"
    assert sparkline([], 5) == sparkline([1], 0) == ""
    assert growth([1, 4, None, 9, 8]) == [3, None, None, 0.0]
