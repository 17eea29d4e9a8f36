"""What operators of verl live through."""

from __future__ import annotations

from tests.situations.frameworks import Tagged, verl, verl_padding, verl_prompt, verl_trajectories
from tests.situations.player import Job, departed, groups


def test_the_trainer_takes_its_batch_and_clears_it_at_the_end_of_its_step(job: Job) -> None:
    uids = [f"u{i}" for i in range(6)]
    running: Tagged = {}
    finished: Tagged = {}
    taken: Tagged = {}
    for uid in uids:
        running |= verl_prompt(uid, "running", 5)
        finished |= verl(uid, 5)
        taken |= verl_trajectories(uid, 5, 4)

    job.shows({"train": {}})
    seen = job.shows({"train": running})
    assert groups(seen, "train") == {"uncommitted": 6}
    assert seen.value("dataplane_partition_depth", partition="train") == 0
    seen = job.shows({"train": finished})
    assert groups(seen, "train") == {"ready": 6}
    assert seen.value("dataplane_partition_groups_completed_total", partition="train") == 6
    seen = job.shows({"train": taken})
    assert groups(seen, "train") == {"taken": 6}
    assert seen.value("dataplane_partition_depth", partition="train") == 0
    assert departed(seen, "train") == {}
    seen = job.shows({"train": {}})
    assert departed(seen, "train") == {"taken": 6}
    assert seen.value("dataplane_partition_groups_orphaned", partition="train") == 0


def test_the_weights_no_longer_reach_the_rollouts(job: Job) -> None:
    """Prompts are dispatched for ever newer steps, their trajectories are made by the weights of step 10."""

    def prompts(step: int) -> Tagged:
        return verl(f"a{step}", step, min(step - 1, 10)) | verl(f"b{step}", step, min(step - 1, 10))

    for step in (9, 10, 11):
        seen = job.shows({"train": prompts(step)}, rounds=2)
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 0
    waiting: Tagged = {}
    for step in (12, 20, 50):
        waiting |= prompts(step)
        seen = job.shows({"train": waiting})
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 39
    assert seen.value("dataplane_partition_weight_version_reference", partition="train") == 49
    assert seen.value("dataplane_partition_staleness_reference", partition="train", reference="rows") == 1


def test_every_prompt_is_evicted_before_it_is_finished_and_replaced(job: Job) -> None:
    job.shows({"train": {}})
    for turn in range(5):
        prompts: Tagged = {}
        for i in range(16):
            prompts |= verl_prompt(f"u{turn}x{i}", "running", 7)
        seen = job.shows({"train": prompts})
    assert seen.value("dataplane_partition_groups_arrived_total", partition="train") == 80
    assert departed(seen, "train") == {"uncommitted": 64}
    assert seen.value("dataplane_partition_groups_completed_total", partition="train") == 0
    assert seen.value("dataplane_groups_arrived_total", role="train") == 80
    assert seen.value("dataplane_groups_completed_total", role="train") == 0


def test_a_resumed_run_leaves_trajectories_that_nobody_clears(job: Job) -> None:
    orphans = verl_trajectories("lost", 20, 19) | verl_trajectories("lost2", 20, 19)

    def queue(step: int) -> Tagged:
        return orphans | verl_prompt(f"u{step}", "running", step)

    seen = job.shows({"train": queue(20)}, rounds=3)
    assert groups(seen, "train") == {"taken": 2, "uncommitted": 1}
    assert seen.value("dataplane_partition_groups_orphaned", partition="train") == 0, "the trainer may still have them"
    seen = job.shows({"train": queue(21)}, rounds=2)
    assert seen.value("dataplane_partition_groups_orphaned", partition="train") == 2
    seen = job.shows({"train": verl_prompt("u22", "running", 22)})
    assert seen.value("dataplane_partition_groups_orphaned", partition="train") == 0


def test_validation_takes_prompts_that_failed_as_well(job: Job) -> None:
    rows = (
        verl_prompt("bad", "failure", 5)
        | verl_trajectories("bad", 5, 4)
        | verl_prompt("empty", "failure", 5)
        | verl("good", 5)
    )
    seen = job.shows({"train": rows, "val": rows})
    assert groups(seen, "train") == {"failed": 2, "ready": 1}
    assert groups(seen, "val") == {"failed": 1, "ready": 2}, "there is nothing to take of a prompt without trajectories"
    assert seen.value("dataplane_partition_depth", partition="val") == 2


def test_rows_that_are_no_samples_count_nowhere(job: Job) -> None:
    markers = {
        "u0_sess0": {"status": "finished", "global_steps": 5},
        "u0_sess1": {"is_session": True, "status": "running", "global_steps": 5},
    }
    job.shows({"train": {}})
    seen = job.shows({"train": verl("u0", 5) | verl_padding(1, 5, 0) | verl_padding(2, 5, 4) | markers})
    assert groups(seen, "train") == {"ready": 1}
    assert seen.value("dataplane_partition_keys", partition="train") == 3
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 0, "padding has no version"
    seen = job.shows({"train": verl_padding(1, 5, 0) | markers})
    assert groups(seen, "train") == {}
    assert departed(seen, "train") == {"ready": 1}
    assert seen.value("dataplane_partition_groups_arrived_total", partition="train") == 1


def test_verl_0_8_leaves_finished_prompts_behind_for_ever(job: Job) -> None:
    """Nobody can take them: they are no depth, and they do not grow stale."""
    left: Tagged = {}
    job.shows({"train": {}})
    for step in range(1, 9):
        job.shows({"train": left | verl(f"u{step}", step)})
        left |= verl_prompt(f"u{step}", "finished", step)
    seen = job.shows({"train": left | verl("last", 60)}, rounds=2)
    assert groups(seen, "train") == {"ready": 1}
    assert seen.value("dataplane_partition_keys", partition="train") == 3
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 0
    assert seen.value("dataplane_partition_groups_completed_total", partition="train") == 9
    assert departed(seen, "train") == {"ready": 8}


def test_a_partition_stays_verls_when_its_prompts_are_gone(job: Job) -> None:
    """Without its prompt row a trajectory may have no tag that only verl writes."""
    trajectories = {key: {"status": "success", "global_steps": 5} for key in verl_trajectories("u", 5, 4)}
    seen = job.shows({"train": verl_prompt("u", "finished", 5) | trajectories})
    assert groups(seen, "train") == {"ready": 1}
    seen = job.shows({"train": trajectories})
    assert groups(seen, "train") == {"taken": 1}
    assert seen.value("dataplane_partition_info", partition="train", role="train", convention="verl") == 1


def test_group_size_counts_sessions_and_not_their_outputs() -> None:
    def finished(uid: str, sessions: int) -> Tagged:
        return verl_prompt(uid, "finished", 5) | verl_trajectories(uid, 5, 4, sessions=sessions, outputs=2)

    with Job("partitions: {train: {group_size: 4}}") as job:
        seen = job.shows({"train": finished("all", 4) | finished("some", 3)})
    assert groups(seen, "train") == {"ready": 1, "incomplete": 1}


def test_a_prompt_that_is_stuck_grows_stale_before_it_has_a_trajectory(job: Job) -> None:
    stuck = verl_prompt("stuck", "running", 10)
    seen = job.shows({"train": stuck | verl("u", 10)})
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 0
    seen = job.shows({"train": stuck | verl("v", 30)})
    assert seen.value("dataplane_partition_staleness_max", partition="train") == 20
    assert groups(seen, "train") == {"uncommitted": 1, "ready": 1}
