"""Every panel of every dashboard, asked from a real Prometheus and drawn, in a situation that has nearly all data.

The pictures are in ``build/dashboards-drawn``; ``python -m tests.dashboards.situations`` draws the other situations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards.draw import Answer, ask, boards, paint
from tests.dashboards.backfill import Past
from tests.dashboards.situations import played

pytestmark = pytest.mark.full  # it takes Prometheus, and some 15 seconds

PICTURES = Path(__file__).parents[2] / "build" / "dashboards-drawn"
STEPS = 76

MAY_BE_EMPTY = {
    (title, letter): why
    for title, letters, why in (
        ("Mooncake store", "ABC", "the job does not use Mooncake"),
        ("Mooncake evictions", "A", "the job does not use Mooncake"),
        ("Mooncake objects", "AB", "the job does not use Mooncake"),
        ("Partitions", "HI", "every partition can be listed, so none is estimated"),
        ("Recorder up", "A", "nothing is recorded"),
        ("Recording size", "A", "nothing is recorded"),
        ("Recording rows dropped", "A", "nothing is recorded"),
        ("Tracker points", "A", "no tracker is switched on"),
    )
    for letter in letters
}
"""Targets without data in this situation, by the title of their panel and their letter, and why."""

OF_THE_INCIDENT = {
    "Error ratio by operation": "no call fails in the other run",
    "Errors by type": "no call fails in the other run",
    "Unavailable ratio": "no call fails in the other run",
    "Timeout ratio": "no call fails in the other run",
    "Errors of the exporter's calls": "no call fails in the other run",
    "Firing alerts": "nothing is wrong in the other run",
    "Time until full": "the other run's storage does not grow",
}
"""Panels that have no data of the run without labels, and why."""

HOSTS = {"10.0.0.7": "grpo-7b", "10.1.0.9": None}


@pytest.fixture(scope="module")
def past() -> Iterator[Past]:
    with played("lost", STEPS) as made:
        yield made


@pytest.fixture(scope="module")
def everything(past: Past) -> dict[str, list[Answer]]:
    """Return the answers for each dashboard with everything selected."""
    return {board["uid"]: ask(board, past.url, past.start, past.end, {}) for board in boards()}


def panels(answers: list[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.panel["type"] != "annotation"]


def host(labels: dict[str, str]) -> str:
    return labels.get("instance", "").partition(":")[0]


def test_every_panel_has_data_and_every_run_is_told_apart(everything: dict[str, list[Answer]]) -> None:
    found = [(uid, answer) for uid, answers in everything.items() for answer in panels(answers)]
    empty = {
        (answer.panel["title"], target)
        for _, answer in found
        for target, number in answer.by_target.items()
        if not number
    }
    assert empty == MAY_BE_EMPTY.keys()
    for uid, answer in found:
        title = answer.panel["title"]
        if MAY_BE_EMPTY.keys() >= {(title, target) for target in answer.by_target}:
            continue
        where = f"{uid}: {title}"
        seen = {host(series.labels) for series in answer.series} - {""}
        assert seen == {*HOSTS} or title in OF_THE_INCIDENT, where
        if answer.panel["type"] != "table":
            names = [series.name for series in answer.series]
            assert len(names) == len(set(names)), where
        for series in answer.series:
            assert series.labels.get("run") == HOSTS.get(host(series.labels)), where
            assert not all(map(math.isnan, series.values)) or "quantile" in str(answer.panel["targets"]), where


@pytest.mark.parametrize(
    "chosen", [{"run": ["grpo-7b"], "partition": ["train"]}, {"instance": ["10.0.0.7:9464", "10.0.0.7:9500"]}], ids=str
)
def test_a_choice_shows_what_was_chosen(past: Past, chosen: dict[str, list[str]]) -> None:
    asked = [(board["uid"], ask(board, past.url, past.start, past.end, chosen)) for board in boards()]
    for uid, answer in [(uid, answer) for uid, found in asked for answer in panels(found)]:
        title = answer.panel["title"]
        of_all_jobs = {"tq_job", "instance"} & chosen.keys() and "$tq_job" in str(answer.panel["targets"])
        shown = {host(series.labels) for series in answer.series} - {""}
        if not of_all_jobs and title != "Firing alerts":
            assert shown <= {"10.0.0.7"}, (uid, title)
        if "partition" in chosen:
            parts = {series.labels.get("partition", "train") for series in answer.series}
            assert parts <= {"train"} or uid == "tq-health", (uid, title)


def test_a_name_with_special_characters_can_be_chosen(past: Past) -> None:
    """A family of partitions is ``train_*``. A name is no regular expression: ``trai.*`` is not ``train``."""
    [board] = [board for board in boards() if board["uid"] == "tq-overview"]
    shown = [
        series
        for answer in panels(ask(board, past.url, past.start, past.end, {"partition": ["trai.*"]}))
        for series in answer.series
        if "partition" in series.labels and answer.panel["title"] != "Firing alerts"
    ]
    assert shown == []


def test_every_panel_can_be_drawn(past: Past, everything: dict[str, list[Answer]]) -> None:
    for board in boards():
        paths = paint(board, everything[board["uid"]], PICTURES, past.start, past.end)
        assert len(paths) == sum(panel["type"] == "row" for panel in board["panels"])
        assert all(path.stat().st_size > 10_000 for path in paths)


def test_groups_by_lag_adds_up_to_the_groups(past: Past) -> None:
    """A heatmap subtracts neighbours as if they were cumulative; a stack shows what the exporter counts."""
    [board] = [board for board in boards() if board["uid"] == "tq-staleness"]
    found = {
        answer.panel["title"]: answer
        for answer in panels(ask(board, past.url, past.start, past.end, {"run": ["grpo-7b"], "partition": ["train"]}))
    }
    lags = {series.labels["lag"]: series.values[-1] for series in found["Groups by lag"].series}
    [row] = [row for row in found["Partitions"].rows if row["partition"] == "train"]
    states = ("ready", "taken", "incomplete", "uncommitted")
    assert sum(lags.values()) == sum(row[state] for state in states) > 0
