"""What operators of a producer live through that writes every tag itself."""

from __future__ import annotations

from tests.situations.frameworks import nemo_rl, recovery
from tests.situations.player import Job, groups


def test_once_rows_were_flagged_a_row_without_the_flag_is_not_committed(job: Job) -> None:
    unflagged = recovery("b", 7, committed=None)
    seen = job.shows({"train": unflagged})
    assert groups(seen, "train") == {"ready": 1}, "this producer writes no flag, so far"
    seen = job.shows({"train": recovery("a", 7) | unflagged})
    assert groups(seen, "train") == {"ready": 1, "uncommitted": 1}
    seen = job.shows({"train": unflagged})
    assert groups(seen, "train") == {"uncommitted": 1}


def test_a_producer_that_flags_can_be_configured_before_its_first_flag() -> None:
    with Job("partitions: {'train.*': {committed_by_default: false}}") as job:
        seen = job.shows({"train_a": recovery("a", 7, committed=None), "rollout": recovery("b", 7, committed=None)})
    assert groups(seen, "train_a") == {"uncommitted": 1}
    assert groups(seen, "rollout") == {"ready": 1}


def test_numbers_that_are_written_as_text_are_read(job: Job) -> None:
    text = recovery("g", "4", created_at="1700000012.5", committed="true", expected_num_keys="2")
    numbers = recovery("g", 4, created_at=None)
    rows = {"g/0": text["g/0"], "g/1": numbers["g/1"]}
    seen = job.shows({"train": rows})
    assert groups(seen, "train") == {"ready": 1}
    assert seen.value("dataplane_partition_rows_malformed", partition="train") == 0
    assert seen.value("dataplane_partition_weight_version_newest", partition="train") == 4
    oldest = "dataplane_partition_oldest_group_created_timestamp_seconds"
    assert seen.value(oldest, partition="train", state="ready", basis="tag") == 1700000012.5


def test_a_version_that_is_no_number_is_unknown_and_its_rows_are_malformed(job: Job) -> None:
    seen = job.shows({"train": recovery("g", "step-42") | recovery("h", 7), "rollout_data": nemo_rl("n", 6)})
    assert groups(seen, "train") == {"ready": 2}
    assert seen.value("dataplane_partition_rows_malformed", partition="train") == 2
    assert seen.value("dataplane_partition_staleness_groups", partition="train", lag="unknown") == 1
    assert seen.value("dataplane_weight_version_reference") == 7


def test_a_declared_size_is_exact_and_a_configured_one_is_a_minimum() -> None:
    """More keys than declared are a group that was written twice."""
    twice = recovery("g", 7, size=3, expected_num_keys=2)
    more = recovery("h", 7, size=3, expected_num_keys=None)
    fewer = recovery("i", 7, size=1, expected_num_keys=None)
    with Job("partitions: {train: {group_size: 2}}") as job:
        seen = job.shows({"train": twice})
        assert groups(seen, "train") == {"incomplete": 1}
        seen = job.shows({"train": more})
        assert groups(seen, "train") == {"ready": 1}
        seen = job.shows({"train": fewer})
        assert groups(seen, "train") == {"incomplete": 1}
