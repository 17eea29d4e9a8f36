"""What earlier listings of a partition decide about later ones."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.grouping import Grouper, TagRules


def states(grouper: Grouper, rows: dict[str, Any], partition: str = "train") -> dict[str, str]:
    return {group.group_id: group.state for group in grouper.group_rows(partition, rows)}


def test_a_partition_of_verl_stays_one_when_only_trajectories_without_a_version_are_left() -> None:
    grouper, row = Grouper(), {"status": "success", "seq_len": 9}
    assert states(grouper, {"u": {"is_prompt": True, "status": "finished"}, "u_0_0": row}) == {"u": "ready"}
    assert states(grouper, {"u_0_0": row}) == {"u": "taken"}
    assert states(grouper, {}) == {}
    assert states(grouper, {"u_0_0": row}) == {"u": "taken"}
    assert states(Grouper(), {"u_0_0": row}) != {"u": "taken"}


def test_a_convention_with_a_clearer_mark_replaces_what_was_guessed() -> None:
    grouper = Grouper()
    assert states(grouper, {"u_g0": {}}) == {"u": "ready"}
    assert grouper.group_rows("train", {"u_g0": {"group_id": "x"}}).convention == "recovery"
    assert grouper.group_rows("train", {"u_g0": {"weight_version": 1}}).convention == "recovery"


def test_one_committed_flag_makes_later_rows_without_it_uncommitted() -> None:
    grouper, bare = Grouper(), {"a": {"group_id": "g"}}
    assert states(grouper, bare) == {"g": "ready"}
    assert states(grouper, {"b": {"group_id": "h", "committed": True}}) == {"h": "ready"}
    assert states(grouper, bare) == {"g": "uncommitted"}
    assert states(grouper, bare, "another") == {"g": "ready"}


def test_rows_without_a_version_are_uncommitted_once_one_had_it() -> None:
    grouper = Grouper()
    assert states(grouper, {"u_g0": {}}) == {"u": "ready"}
    assert states(grouper, {"u_g0": {"weight_version": 1}}) == {"u": "ready"}
    assert states(grouper, {"v_g0": {}}) == {"v": "uncommitted"}


def test_nothing_is_committed_by_default_where_the_settings_say_so() -> None:
    grouper = Grouper({"train": TagRules(committed_by_default=False)})
    assert states(grouper, {"a": {"group_id": "g"}}) == {"g": "uncommitted"}
    assert states(grouper, {"u_g0": {}}) == {"u_g0": "uncommitted"}
    assert states(grouper, {"a": {"group_id": "g"}}, "val") == {"g": "ready"}


def test_rules_apply_by_name_and_by_regular_expression() -> None:
    grouper = Grouper({r"step_\d+": TagRules(group_size=2)}, TagRules(group_size=1))
    rows = {"u_g0": {"weight_version": 1}}
    assert states(grouper, rows, "step_7") == {"u": "incomplete"}
    assert states(grouper, rows, "step") == {"u": "ready"}


@pytest.mark.parametrize(
    ("partition", "rules", "state"),
    [
        ("val", None, "ready"),
        ("train", None, "failed"),
        ("train", TagRules(take_failed=True), "ready"),
        ("val", TagRules(take_failed=False), "failed"),
    ],
)
def test_failed_groups_are_taken_in_evaluation(partition: str, rules: TagRules | None, state: str) -> None:
    grouper = Grouper({partition: rules} if rules else None)
    rows = {"u": {"is_prompt": True, "status": "failure"}, "u_0_0": {"min_global_steps": 1}}
    assert states(grouper, rows, partition) == {"u": state}


def test_only_so_many_partitions_are_remembered() -> None:
    grouper = Grouper()
    states(grouper, {"b": {"group_id": "h", "committed": True}}, "first")
    for number in range(1000):
        states(grouper, {}, f"p{number}")
    assert states(grouper, {"a": {"group_id": "g"}}, "first") == {"g": "ready"}
    assert len(grouper._memories) == 1000


def test_clients_remember() -> None:
    client = NoOpDataPlaneClient()
    client.put_samples(["a"], "p", tags=[{"group_id": "g", "committed": True}])
    assert client.depth("p") == 1
    client.clear_samples(["a"], "p")
    client.put_samples(["b"], "p", tags=[{"group_id": "h"}])
    assert client.depth("p") == 0
