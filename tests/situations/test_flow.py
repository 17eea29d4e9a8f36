"""What happens to groups: they arrive, complete, depart, are lost and restored."""

from __future__ import annotations

from tests.situations.frameworks import Tagged, nemo_rl, recovery, verl_prompt, verl_trajectories
from tests.situations.player import Job, departed, groups


def test_a_group_that_is_ready_when_it_is_first_seen_has_completed(job: Job) -> None:
    job.shows({"rollout_data": nemo_rl("before", 1)})
    seen = job.shows({"rollout_data": nemo_rl("before", 1) | nemo_rl("a", 1)}, rounds=2)
    assert seen.value("dataplane_partition_groups_arrived_total", partition="rollout_data") == 1
    assert seen.value("dataplane_partition_groups_completed_total", partition="rollout_data") == 1
    assert seen.value("dataplane_groups_completed_total", role="train") == 1


def test_a_key_that_moves_to_another_group_is_no_arrival_and_no_departure(job: Job) -> None:
    """A tag-only update renames a group: its rows were always there."""
    rows = recovery("draft", 7, expected_num_keys=3)
    job.shows({"train": {}})
    seen = job.shows({"train": rows})
    assert groups(seen, "train") == {"incomplete": 1}
    named = {key: {**tag, "group_id": "final", "expected_num_keys": 2} for key, tag in rows.items()}
    seen = job.shows({"train": named}, rounds=2)
    assert groups(seen, "train") == {"ready": 1}
    assert seen.value("dataplane_partition_groups_arrived_total", partition="train") == 1
    assert seen.value("dataplane_partition_groups_completed_total", partition="train") == 1
    assert departed(seen, "train") == {}


def test_totals_by_role_are_0_before_there_is_a_controller(job: Job) -> None:
    seen = job.exporter.wait_for(lambda seen: seen.value("dataplane_up") == 0, "the first look-up")
    for role in ("train", "eval", "staging"):
        for event in ("arrived", "completed", "lost", "restored"):
            assert seen.value(f"dataplane_groups_{event}_total", role=role) == 0, (event, role)
        assert set(seen.by("dataplane_groups_departed_total", "state", role=role).values()) == {0}, role
    assert seen.value("dataplane_discovery_state", state="never_found") == 1
    assert not seen.samples("dataplane_partition_groups"), "there is no partition, so none is empty"


def test_what_validation_leaves_behind_does_not_count_for_training(job: Job) -> None:
    left: Tagged = {}
    for n in range(3):
        left |= nemo_rl(f"v{n}", 90)
    job.shows({"train": nemo_rl("a", 7), "val": {}})
    seen = job.shows({"train": nemo_rl("b", 8), "val": left}, rounds=3)
    assert seen.value("dataplane_weight_version_reference") == 8
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 0
    assert seen.value("dataplane_groups_arrived_total", role="train") == 1
    assert seen.value("dataplane_groups_arrived_total", role="eval") == 3
    seen = job.shows({"train": nemo_rl("b", 8)})
    assert seen.value("dataplane_groups_departed_total", role="eval", state="ready") == 3
    assert seen.value("dataplane_groups_departed_total", role="train", state="ready") == 1
    assert seen.value("dataplane_partition_depth", partition="val") is None


def test_groups_go_down_with_their_controller(job: Job) -> None:
    job.shows({"train": nemo_rl("a", 41) | nemo_rl("b", 41)})
    seen = job.restarts({"train": nemo_rl("c", 3)})
    assert seen.value("dataplane_controller_restarts_total") == 1
    assert seen.value("dataplane_partition_groups_lost_total", partition="train") == 2
    assert seen.value("dataplane_partition_groups_arrived_total", partition="train") == 1
    assert seen.value("dataplane_partition_groups_restored_total", partition="train") == 0
    assert departed(seen, "train") == {}
    assert seen.value("dataplane_weight_version_reference") == 3
    assert seen.value("dataplane_weight_version_regressions_total") == 0


def test_a_loaded_checkpoint_brings_its_groups_and_replaces_the_others(job: Job) -> None:
    """The same controller answers, under the checkpoint's id."""
    job.shows({"train": {}})
    old = {key: tag for n in range(5) for key, tag in nemo_rl(f"a{n}", 9).items()}
    seen = job.shows({"train": old})
    assert seen.value("dataplane_partition_depth", partition="train") == 5
    new = {key: tag for n in range(3) for key, tag in nemo_rl(f"b{n}", 6).items()}
    seen = job.loads_checkpoint({"train": new})
    assert seen.value("dataplane_up") == 1
    assert seen.value("dataplane_discovery_state", state="found") == 1
    assert seen.value("dataplane_controller_restarts_total") == 0
    assert seen.value("dataplane_partition_depth", partition="train") == 3
    assert seen.value("dataplane_partition_groups_lost_total", partition="train") == 5
    assert seen.value("dataplane_partition_groups_restored_total", partition="train") == 3
    assert departed(seen, "train") == {}
    assert seen.value("dataplane_partition_groups_arrived_total", partition="train") == 5
    assert seen.value("dataplane_partition_weight_version_reference", partition="train") == 6
    assert seen.value("dataplane_weight_version_regressions_total") == 0


def test_verl_resumes_with_its_prompts_and_without_their_trajectories(job: Job) -> None:
    """Prompts in flight are pending again; the batch that was in training comes back without its prompt."""
    job.shows({"train": {}})
    job.shows({"train": verl_prompt("late", "running", 9)})
    seen = job.loads_checkpoint({"train": verl_prompt("u", "pending", 7) | verl_trajectories("taken", 6, 5)})
    assert groups(seen, "train") == {"uncommitted": 1, "taken": 1}
    assert seen.value("dataplane_weight_version_reference") == 6
    assert seen.value("dataplane_partition_groups_lost_total", partition="train") == 1
    assert seen.value("dataplane_partition_groups_restored_total", partition="train") == 2
