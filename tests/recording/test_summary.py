"""What a run came to: every figure from snapshots, over restarts of the exporter."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from exporter.conditions import CONDITIONS
from exporter.recording.archive import Archive
from exporter.recording.summary import (
    STALLED,
    STARVED,
    Summary,
    SummaryOnly,
    Tally,
    decode_summary,
    encode_summary,
    in_words,
    together,
)
from tests.recording.support import close, kill, record, recorder_of
from tests.support.simulated_run import SimulatedRun


def tallied(run: SimulatedRun, tally: Tally, seconds: float) -> Summary:
    for snapshot in run.run(seconds, 5.0):
        tally.see(snapshot)
    return tally.summary


def test_groups_lags_and_seconds() -> None:
    run, tally = SimulatedRun(), Tally(4.0)
    summary = tallied(run, tally, 264)  # 260 groups came by its last snapshot, 64 of which are still there
    assert (summary.groups_in, summary.trained) == (260, 187)
    assert summary.evicted == {"incomplete": 0, "uncommitted": 0, "failed": 9}
    assert summary.watched_s == 260
    assert (summary.p95_lag, summary.too_old) == (8.0, 19)
    assert summary.mean_lag == pytest.approx(7 * 19 / 196)
    assert summary.starved_s == summary.stalled_s == summary.outages == 0
    run.starved = True
    tallied(run, tally, 100)
    run.starved = False
    tallied(run, tally, 60)
    assert tally.summary.starved_s == 95  # both ends of each time must say so


def test_outages_count_from_the_first_answer_and_the_longest_is_kept() -> None:
    run, tally = SimulatedRun(), Tally(4.0)
    run.outage = True
    tallied(run, tally, 50)
    run.outage = False
    tallied(run, tally, 20)
    for seconds in (30, 70, 20):
        run.outage = True
        tallied(run, tally, seconds)
        run.outage = False
        tallied(run, tally, 20)
    assert (tally.summary.outages, tally.summary.longest_outage_s) == (3, 65)
    assert tally.summary.out_s == 25 + 65 + 15


def test_time_in_which_nobody_watched_counts_for_nothing() -> None:
    run, tally = SimulatedRun(), Tally(4.0)
    run.starved = True
    tallied(run, tally, 20)
    run.clock.advance(3600)
    tallied(run, tally, 20)
    assert tally.summary.watched_s == tally.summary.starved_s == 30


def test_an_unknown_lag_is_not_zero() -> None:
    assert Summary().mean_lag is None
    assert Summary().p95_lag is None
    assert "lag unknown" in in_words(Summary())


def test_the_conditions_it_counts_exist() -> None:
    assert {*STARVED, *STALLED} <= {rule.name for rule in CONDITIONS}


def test_it_survives_storage() -> None:
    summary = tallied(SimulatedRun(), Tally(4.0), 200)
    assert decode_summary(encode_summary(summary)) == summary


def test_the_end_of_a_run_says_what_it_came_to(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run, recorder = SimulatedRun(), SummaryOnly(4.0)
    for snapshot in run.run(264, 5.0):
        assert recorder.observe(snapshot) is snapshot
    recorder.stop(1.0)
    assert caplog.messages == [
        "the run: watched for 260 s; groups in 260; left complete (trained at most) 187; left not ready 9 failed; "
        "lost 0; lag mean 0.68, p95 ≤ 8; left above lag 4: 19; trainer starved 0 s, stalled 0 s; "
        "outages 0, the longest 0 s (counts and seconds are lower bounds)"
    ]


def test_a_run_is_the_sum_of_its_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run, path = SimulatedRun(), tmp_path / "run.tqr"
    recorder = recorder_of(path, run)
    record(recorder, run, 200)
    kill(recorder)
    run.begin_again()
    again = recorder_of(path, run)
    record(again, run, 100)
    close(again)
    first, second = Archive(path).summaries()
    assert second.groups_in == 95
    assert 130 <= first.groups_in <= 195  # written once a minute
    both = together([first, second])
    assert (both.processes, both.groups_in) == (2, first.groups_in + second.groups_in)
    assert f"groups in {both.groups_in}; " in caplog.text
    assert "of 2 processes of the exporter" in caplog.text
