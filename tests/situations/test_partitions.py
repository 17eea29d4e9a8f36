"""Partitions: their names, what they are counted under, and those that cannot be read."""

from __future__ import annotations

import hashlib

import pytest

from tests.situations.frameworks import Tagged, nemo_rl
from tests.situations.player import Job, departed, groups
from tests.support.fake_router import reply

PICKLED = [b"\xc1\xfe\xed" + b"\x80\x04N."]
"""What TransferQueue sends in place of a listing with an integer beyond 64 bits."""

REFUSED = reply("REQUEST_ERROR", {"message": "dictionary changed size during iteration"}, "TQ_CONTROLLER_1")


def _step(step: int, count: int = 8) -> Tagged:
    rows: Tagged = {}
    for i in range(count):
        rows |= nemo_rl(f"s{step}x{i}", step)
    return rows


def test_a_partition_for_each_step_of_which_one_is_left_behind(job: Job) -> None:
    left = {"train_1": _step(1)}
    job.shows(left)
    for step in range(2, 12):
        seen = job.shows({**left, f"train_{step}": _step(step)})
    assert groups(seen, "train_*") == {"ready": 16}
    assert seen.value("dataplane_partition_staleness_max", partition="train_*") == 10
    assert set(seen.by("dataplane_partition_depth", "partition")) == {"train_*"}
    assert seen.value("dataplane_partition_groups_arrived_total", partition="train_*") == 80
    assert departed(seen, "train_*") == {"ready": 72}
    assert seen.value("dataplane_groups_arrived_total", role="train") == 80
    assert seen.value("dataplane_groups_departed_total", role="train", state="ready") == 72


def test_partitions_can_be_counted_under_one_label() -> None:
    config = r"partitions: {'rollout_.*': {label: rollouts, role: train}, '.*_probe': {label: probes, role: eval}}"
    with Job(config) as job:
        job.shows({"rollout_math": {}})
        job.shows({"rollout_math": nemo_rl("a", 7), "rollout_code": nemo_rl("b", 4), "math_probe": nemo_rl("c", 99)})
        seen = job.shows({"rollout_code": nemo_rl("b", 4) | nemo_rl("d", 7)})
    assert set(seen.by("dataplane_partition_depth", "partition")) == {"rollouts"}
    assert groups(seen, "rollouts") == {"ready": 2}
    assert seen.value("dataplane_partition_groups_arrived_total", partition="rollouts") == 3
    assert departed(seen, "rollouts") == {"ready": 1}
    assert departed(seen, "probes") == {"ready": 1}
    assert seen.value("dataplane_groups_arrived_total", role="eval") == 1
    assert seen.value("dataplane_weight_version_reference") == 7


@pytest.mark.parametrize("frames", [PICKLED, REFUSED], ids=["pickle", "error"])
def test_a_partition_that_cannot_be_read_says_so_and_hides_no_other(job: Job, frames: list[bytes]) -> None:
    listed = "dataplane_partition_listed_timestamp_seconds"
    seen = job.shows({"train": nemo_rl("a", 7), "val": nemo_rl("b", 7)})
    assert seen.by("dataplane_partition_readable", "reason", partition="train") == {"ok": 1}
    before = job.shows({"train": frames, "val": nemo_rl("b", 7)})
    seen = job.shows({"train": frames, "val": nemo_rl("b", 7)}, rounds=5)
    assert seen.by("dataplane_partition_readable", "reason", partition="train") == {"error": 0}
    assert seen.value(listed, partition="train") == before.value(listed, partition="train") is not None
    assert seen.value(listed, partition="val") != before.value(listed, partition="val")
    assert seen.value("dataplane_partition_depth", partition="train") is None
    assert seen.value("dataplane_source_up", source="metadata") == 0
    assert seen.value("dataplane_source_state", source="metadata", reason="failing") == 1
    assert seen.value("dataplane_up") == 1
    assert seen.by("dataplane_partition_readable", "reason", partition="val") == {"ok": 1}
    assert groups(seen, "val") == {"ready": 1}
    assert departed(seen, "train") == {}, "unread is not gone"
    seen = job.shows({"train": nemo_rl("a", 7) | nemo_rl("c", 7), "val": nemo_rl("b", 7)})
    assert groups(seen, "train") == {"ready": 2}
    assert seen.value("dataplane_partition_groups_arrived_total", partition="train") == 1


def test_long_names_make_no_long_scrape() -> None:
    names = [f"{hashlib.sha256(bytes([n])).hexdigest()}{'x' * 8_000}" for n in range(100)]
    # Listing them takes seconds on a busy machine, and a listing counts for three intervals.
    with Job(interval="6s") as job:
        seen = job.shows(dict.fromkeys(names, nemo_rl("a", 7)))
    depths = seen.by("dataplane_partition_depth", "partition")
    assert sum(depths.values()) == 100, "names beyond what all labels together may take are summed"
    assert len(depths) > 40
    assert depths["other"] == 100 - (len(depths) - 1)
    assert max(map(len, depths)) <= 128
    assert len(seen.text) < 2_000_000, "about what 100 names of the longest label take"


def test_many_names_that_live_for_a_short_time_make_no_more_series() -> None:
    """Names without a common stem share no label, so past the limit they are counted together."""
    with Job("max_partitions: 10") as job:
        seen = job.shows({"train": nemo_rl("a", 1)})
        for turn in range(6):
            names = [hashlib.sha256(bytes([turn, n])).hexdigest() for n in range(5)]
            seen = job.shows({"train": nemo_rl("a", 1), **{name: nemo_rl(name, 1) for name in names}})
    labels = seen.by("dataplane_partition_groups_arrived_total", "partition")
    assert len(labels) <= 11
    assert sum(labels.values()) == 30
    assert seen.value("dataplane_groups_arrived_total", role="train") == 30
    assert seen.value("dataplane_partition_depth", partition="other") == 5
    assert seen.value("dataplane_partition_depth", partition="train") == 1


def test_how_many_groups_the_trainer_takes_per_step_is_published_or_configured() -> None:
    rows = {"train": nemo_rl("a", 7), "rollout": nemo_rl("b", 7), "val": nemo_rl("c", 7)}
    metric = "dataplane_partition_groups_per_step"
    with Job("partitions: {rollout: {groups_per_step: 64}}") as job:
        seen = job.shows(rows)
        assert seen.by(metric, "partition") == {"rollout": 64}
        seen = job.shows(rows, published=7, groups_per_step=32)
        assert seen.by(metric, "partition") == {"rollout": 64, "train": 32}, "validation has no steps"


def test_samples_that_were_put_without_keys_are_in_no_listing_and_not_0() -> None:
    """TransferQueue's low-level API does so. A partition that has never listed a row is not known to be empty then."""
    with Job(storage_keys=(7, 5)) as job:
        seen = job.shows({"train": nemo_rl("a", 1), "raw": {}}, rounds=5)
    assert sum(seen.by("dataplane_storage_keys", "storage_unit").values()) == 12
    assert seen.value("dataplane_storage_keys_unlisted") == 10
    assert seen.by("dataplane_partition_readable", "reason", partition="raw") == {"not_listable": 0}
