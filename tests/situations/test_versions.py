"""The trainer's weight version, and how far groups are behind it."""

from __future__ import annotations

from tests.situations.frameworks import Tagged, nemo_rl, verl
from tests.situations.player import Job, groups
from tests.support.exporter_process import Exposition


def test_a_partition_that_is_left_behind_is_stale_although_nothing_in_it_changes(job: Job) -> None:
    left = nemo_rl("old", 1)
    job.shows({"left": left, "rollout_data": nemo_rl("a", 1)})
    seen = job.shows({"left": left, "rollout_data": nemo_rl("b", 50)})
    assert seen.value("dataplane_partition_staleness_max", partition="left") == 49
    assert seen.value("dataplane_partition_staleness_groups", partition="left", lag="9+") == 1
    assert seen.value("dataplane_partition_weight_version_newest", partition="left") == 1
    assert seen.value("dataplane_partition_staleness_max", partition="rollout_data") == 0


def test_a_trainer_that_failed_over_steps_back_once(job: Job) -> None:
    """Its version goes from 57 to 1, the queue holds groups of 50 to 57."""
    rows: Tagged = {}
    for version in range(50, 58):
        rows |= nemo_rl(f"p{version}", version)
    job.shows({"train": {}}, published=57)
    seen = job.shows({"train": rows}, published=57)
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 7
    assert seen.value("dataplane_weight_version_regressions_total") == 0
    seen = job.shows({"train": rows}, published=1, rounds=3)
    assert seen.value("dataplane_weight_version_reference") == 1
    assert seen.value("dataplane_weight_version_regressions_total") == 1
    assert seen.value("dataplane_partition_staleness_groups", partition="train", lag="ahead") == 8
    assert seen.value("dataplane_partition_staleness_groups", partition="train", lag="0") == 0
    assert seen.value("dataplane_partition_staleness_max", partition="train") is None
    seen = job.shows({"train": rows}, published=2)
    assert seen.value("dataplane_weight_version_regressions_total") == 1


def test_a_published_version_outranks_what_rows_say_which_outranks_the_newest_seen(job: Job) -> None:
    def reference(seen: Exposition) -> tuple[float | None, list[str]]:
        kinds = seen.by("dataplane_partition_staleness_reference", "reference", partition="rollout_data")
        return seen.value("dataplane_weight_version_reference"), list(kinds)

    groups_of_5 = nemo_rl("p", 5)
    seen = job.shows({"rollout_data": groups_of_5})
    assert reference(seen) == (5, ["newest_seen"])
    seen = job.shows({"rollout_data": groups_of_5, "train": verl("u", 12)})
    assert reference(seen) == (11, ["rows"])
    assert seen.value("dataplane_partition_staleness_max", partition="rollout_data") == 6
    seen = job.shows({"rollout_data": groups_of_5, "train": verl("u", 12)}, published=13)
    assert reference(seen) == (13, ["published"])
    assert seen.value("dataplane_partition_staleness_max", partition="rollout_data") == 8
    assert seen.value("dataplane_partition_info", partition="__tq_exporter__") is None
    seen = job.shows({"rollout_data": groups_of_5, "train": verl("u", 12)})
    assert reference(seen) == (11, ["rows"])
    assert seen.value("dataplane_weight_version_regressions_total") == 0, "another origin is no step back"


def test_a_trainer_that_stands_still_has_an_old_time_of_change_while_groups_pass(job: Job) -> None:
    changed = set()
    job.shows({"train": nemo_rl("first", 7)}, published=7)
    for n in range(4):
        seen = job.shows({"train": nemo_rl(f"p{n}", 7)}, published=7)
        changed.add(seen.value("dataplane_weight_version_changed_timestamp_seconds"))
    assert seen.value("dataplane_partition_groups_arrived_total", partition="train") == 4
    assert len(changed) == 1
    seen = job.shows({"train": nemo_rl("p4", 7)}, published=8)
    (before,), after = changed, seen.value("dataplane_weight_version_changed_timestamp_seconds")
    assert before is not None
    assert after is not None
    assert before < after


def test_one_late_group_moves_nothing_and_a_resumed_run_does(job: Job) -> None:
    """Without a published version it falls once groups of lower versions arrive and nothing newer is left."""
    job.shows({"train": nemo_rl("a", 40) | nemo_rl("b", 41)})
    seen = job.shows({"train": nemo_rl("a", 40)}, rounds=3)
    assert seen.value("dataplane_weight_version_reference") == 41, "the trainer took the newest and left an old one"
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 1
    seen = job.shows({"train": nemo_rl("c", 30)}, rounds=3)
    assert seen.value("dataplane_weight_version_reference") == 30
    assert seen.value("dataplane_weight_version_regressions_total") == 1
    assert groups(seen, "train") == {"ready": 1}
