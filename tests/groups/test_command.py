"""``tq-exporter groups``: of a running exporter or of one poll, as a table or JSON, on any terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from exporter.cli import main
from exporter.groups import Answer, Query
from exporter.model.versions import VersionReference
from exporter.terminal.groups import print_groups
from exporter.terminal.outside import make_console
from tests.groups.support import NOW, Listings, group, serving
from tests.soak.stand_in import Controllers, Run

HOSTILE = "\x1b[2J\u202e[bold]x"


def listed() -> Listings:
    seen = Listings()
    seen.reference = VersionReference(57, "published")
    seen.list(
        {
            "train": [
                group("rollout-a", "uncommitted", created_at=NOW - 4000, weight_version=50, size_bytes=2048),
                group(HOSTILE, "ready", weight_version=56, keys=[f"{HOSTILE}\n1", "z"], expected_num_keys=2),
            ]
        }
    )
    return seen


def shown(answer: Answer, query: Query, width: int) -> str:
    console = make_console(io.StringIO(), width=width)
    print_groups(answer, query, console)
    assert isinstance(console, Console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


def test_a_running_exporters_groups_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(listed().groups()) as url:
        assert main(["groups", "--url", url]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("Groups: 2, the oldest first; the trainer's version is 57 (published), ")
    assert (
        " ".join(lines[1].split())
        == "partition group state age in this state since version lag keys size first key note"
    )
    assert lines[2].split()[:3] == ["train", "rollout-a", "uncommitted"]
    assert "1 h 6 min" in lines[2]
    assert "2.0 KiB" in lines[2]
    assert "≥ 0 s" in lines[3]
    assert "UTC (≥ 0 s)" in lines[3]
    assert "\x1b" not in out.replace("\u241b", "")
    assert "\u241b[2J\\u202e[bold]x" in lines[3]
    assert len(lines) == 4, "a line per group, however long it is"


def test_the_same_as_json_holds_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(listed().groups()) as url:
        assert main(["groups", "--url", url, "--json", "--search", HOSTILE[-3:]]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    [found] = json.loads(out)["groups"]
    assert found["group_id"] == HOSTILE


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_the_same_facts(width: int) -> None:
    answer = listed().groups().answer(Query())
    out = shown(answer, Query(), width)
    assert max(map(len, out.splitlines())) <= width
    joined = " ".join(out.split())
    assert "rollout-a uncommitted in train" in joined
    assert "age 1 h 6 min" in joined
    assert "version 50, lag 7, 1 keys" in joined
    assert "\x1b" not in out


def test_departed_groups_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    seen = listed()
    seen.list({"train": []})
    with serving(seen.groups()) as url:
        assert main(["groups", "--url", url, "--departed"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Departed groups: 1, the newest departures first")
    assert "was never ready; was more weight versions behind than is acceptable" in out


def test_what_is_not_known_or_not_current_is_said_in_words() -> None:
    seen = Listings()
    assert "No such partition is listed now." in shown(
        seen.groups().answer(Query(partition="x")), Query(partition="x"), 80
    )
    seen.list({"train": [group("g")]})
    assert "No group matches." in shown(seen.groups().answer(Query(search="q")), Query(search="q"), 80)
    seen.up = False
    out = " ".join(shown(seen.groups().answer(Query()), Query(), 80).split())
    assert "! partition “train” is not current: listed at 17:46:50 UTC (no answer since)" in out
    seen.list({"train": []})
    seen.up = True
    assert "No groups." in shown(seen.groups().answer(Query()), Query(), 80)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--state", "reddy"], "--state: 'reddy' is not one of them; it is one of ready,"),
        (["--limit", "0"], "--limit: '0' is out of range; give a number from 1 to 1000"),
        (["--departed"], "--departed: needs an exporter that ran when they left; give --url"),
        (["--user", "me"], "--user: belongs to a running exporter; give --url too"),
    ],
)
def test_a_wrong_flag_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groups", *arguments]) == 2
    assert f"tq-exporter: {said}" in capsys.readouterr().err


def test_an_exporter_that_shows_none_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(None) as url:
        assert main(["groups", "--url", url]) == 1
    assert "(404): this exporter does not show groups: web.disable_groups is set" in capsys.readouterr().err


class Standing(Run):
    """One partition of a few groups, which does not change."""

    def __init__(self) -> None:
        super().__init__(1.0, 1, 1)

    def partitions(self, at: float) -> list[str]:
        return [self.LONG]

    def rows(self, partition: str, at: float) -> dict[str, dict[str, Any]]:
        return {f"u{index // 2}_g{index % 2}": {"weight_version": index // 2} for index in range(6)}


def test_without_an_exporter_one_poll_of_its_own_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "endpoint.json"
    with Controllers(Standing(), file):
        assert main(["groups", "--discovery-file", str(file), "--sort", "lag", "--limit", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(one["group_id"], one["lag"], one["keys"]) for one in answer["groups"]] == [("u0", 2, 2), ("u1", 1, 2)]
    assert answer["matched"] == 3
