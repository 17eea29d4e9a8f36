"""verl's convention by example: one test per rule."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane import conventions
from dataplane.groups import group_rows
from tests.support.rows import only


def prompt(status: object) -> dict[str, Any]:
    return {"is_prompt": True, "status": status, "global_steps": 5}


def trajectory(status: object = "finished", version: object = 4) -> dict[str, Any]:
    return {"status": status, "min_global_steps": version, "max_global_steps": 6, "seq_len": 10}


@pytest.mark.parametrize(
    ("status", "state"),
    [("pending", "uncommitted"), ("running", "uncommitted"), ("finished", "ready"), ("failure", "failed")],
)
def test_the_prompt_row_decides(status: str, state: str) -> None:
    rows = {"u": prompt(status), "u_0_0": trajectory(), "u_1_0": trajectory("running", 3)}
    group = only(rows)
    assert (group.group_id, group.keys, group.state) == ("u", ["u", "u_0_0", "u_1_0"], state)
    assert group.weight_version == 3


def test_a_pending_prompt_has_no_version_yet() -> None:
    assert only({"u": prompt("pending")}).weight_version is None


def test_trajectories_whose_prompt_is_taken_are_ready() -> None:
    assert only({"u_0_0": trajectory(), "u_0_1": trajectory()}).state == "ready"


def test_a_bare_trajectory_is_a_write_in_progress() -> None:
    groups = group_rows("p", {"u_0_0": {}, "v_0_0": trajectory()})
    assert [(g.state, g.malformed_keys) for g in groups] == [("uncommitted", 0), ("ready", 0)]


def test_a_version_of_none_is_unknown_and_not_malformed() -> None:
    group = only({"u_0_0": trajectory(version=None)})
    assert (group.weight_version, group.malformed_keys, group.state) == (None, 0, "ready")


@pytest.mark.parametrize("status", [None, 3, ["finished"]])
def test_a_status_that_is_no_text_is_counted_and_not_finished(status: object) -> None:
    group = only({"u": prompt(status), "u_0_0": trajectory()})
    assert (group.state, group.malformed_keys) == ("uncommitted", 1)


@pytest.mark.parametrize("key", ["u_0", "u_x_0", "u_0_x", "_0_0"])
def test_keys_of_another_form_are_groups_of_their_own(key: str) -> None:
    assert only({key: trajectory()}).group_id == key


@pytest.mark.parametrize("status", ["pending", "running", ""])
def test_a_trajectory_that_is_not_finished_leaves_a_group_without_its_prompt_uncommitted(status: str) -> None:
    assert only({"u_0_0": trajectory(), "u_1_0": trajectory(status)}).state == "uncommitted"


def test_a_failed_trajectory_fails_a_group_without_its_prompt() -> None:
    assert only({"u_0_0": trajectory(), "u_1_0": trajectory("failure")}).state == "failed"


def test_a_finished_prompt_outweighs_a_failed_trajectory() -> None:
    group = only({"u": prompt("finished"), "u_0_0": trajectory("failure")})
    assert (group.committed, group.failed, group.state) == (True, False, "ready")


def test_a_failed_prompt_outweighs_finished_trajectories() -> None:
    group = only({"u": prompt("failure"), "u_0_0": trajectory()})
    assert (group.committed, group.failed) == (False, True)


def test_a_prompts_key_is_its_group_also_when_it_looks_like_a_trajectorys() -> None:
    group = only({"a_1_2": prompt("finished"), "a_1_2_0_0": trajectory()})
    assert (group.group_id, group.keys) == ("a_1_2", ["a_1_2", "a_1_2_0_0"])


@pytest.mark.parametrize("tag", [{"is_prompt": True}, {"min_global_steps": 4}, {"min_global_steps": None}])
def test_a_prompt_marker_or_a_range_of_steps_shows_it(tag: dict[str, Any]) -> None:
    rows = {"u_0_0": tag, "u_0_1": {"committed": True}, "u_g0": {"weight_version": 1}}
    assert conventions.detect(list(conventions.schema().read_all(rows).values())).name == "verl"
