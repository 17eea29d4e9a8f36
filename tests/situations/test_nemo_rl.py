"""What operators of NeMo RL live through, and puts whose keys are listed before their tags."""

from __future__ import annotations

from tests.situations.frameworks import (
    Tagged,
    nemo_rl,
    nemo_rl_model_calls,
    nemo_rl_newer,
    recovery,
    verl_prompt,
    verl_trajectories,
)
from tests.situations.player import Job, departed, groups


def test_newer_rows_have_a_group_id_and_are_never_tagged_committed(job: Job) -> None:
    rows: Tagged = {}
    for i in range(4):
        rows |= nemo_rl_newer(f"p{i}", 3 + i, size=4)
    job.shows({"rollout_data": {}})
    seen = job.shows({"rollout_data": rows})
    assert groups(seen, "rollout_data") == {"ready": 4}
    assert seen.value("dataplane_partition_depth", partition="rollout_data") == 4
    assert seen.value("dataplane_partition_keys", partition="rollout_data") == 16
    assert seen.value("dataplane_partition_staleness_max", partition="rollout_data") == 3


def test_the_calls_of_a_model_are_staged_and_train_nobody(job: Job) -> None:
    job.shows({"rollout_data": {}, "rollout_staging": {}})
    staged = nemo_rl_model_calls("p", 9)
    seen = job.shows({"rollout_data": nemo_rl("p", 8), "rollout_staging": staged}, rounds=2)
    assert seen.samples("dataplane_partition_info", partition="rollout_staging", role="staging")
    assert seen.value("dataplane_weight_version_reference") == 8, "what is staged says nothing about the trainer"
    assert seen.value("dataplane_groups_arrived_total", role="train") == 1
    assert seen.value("dataplane_groups_arrived_total", role="staging") == len(staged)
    seen = job.shows({"rollout_data": nemo_rl("p", 8), "rollout_staging": {}})
    assert sum(seen.by("dataplane_groups_departed_total", "state", role="train").values()) == 0
    assert sum(seen.by("dataplane_groups_departed_total", "state", role="staging").values()) == len(staged)


def test_groups_whose_keys_are_listed_before_their_tags_arrive_and_complete_once(job: Job) -> None:
    """A put makes keys first and tags next. In the end everything is cleared and put once more."""
    puts: dict[str, list[Tagged]] = {"train": [], "rollout_data": [], "train_verl": []}
    for n in range(2):
        puts["train"].append(recovery(f"r{n}", 7, size=4))
        puts["rollout_data"].append(nemo_rl(f"n{n}", 7, size=4))
        puts["train_verl"] += [
            verl_prompt(f"v{n}", "running", 8),
            verl_trajectories(f"v{n}", 8, 7),
            verl_prompt(f"v{n}", "finished", 8),
        ]
    rows: dict[str, Tagged] = {partition: {} for partition in puts}
    job.shows(rows)
    for turn in range(6):
        for half in ("keys", "tags"):
            for partition, all_puts in puts.items():
                if turn < len(all_puts):
                    put = all_puts[turn]
                    rows[partition] |= {key: {} for key in put if key not in rows[partition]} if half == "keys" else put
            job.shows(rows)
    job.shows({partition: {key: {} for key in tags} for partition, tags in rows.items()})
    seen = job.shows(rows)
    for partition in puts:
        assert groups(seen, partition) == {"ready": 2}, partition
        assert seen.value("dataplane_partition_groups_arrived_total", partition=partition) == 2, partition
        assert seen.value("dataplane_partition_groups_completed_total", partition=partition) == 2, partition
        assert departed(seen, partition) == {}, partition
        assert seen.value("dataplane_partition_rows_bare", partition=partition) == 0, partition


def test_a_synchronous_run_writes_no_tags(job: Job) -> None:
    rows: Tagged = {key: {} for n in range(3) for key in nemo_rl(f"p{n}", 0, size=4)}
    job.shows({"train": {}})
    seen = job.shows({"train": rows | {"__schema__:rollout": {}}})
    assert groups(seen, "train") == {"ready": 3}
    assert seen.value("dataplane_partition_groups_completed_total", partition="train") == 3
    assert seen.value("dataplane_partition_keys", partition="train") == 12
    assert seen.value("dataplane_partition_staleness_max", partition="train") is None, "no version is known"
    assert seen.value("dataplane_weight_version_reference") is None
