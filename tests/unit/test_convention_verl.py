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


@pytest.mark.parametrize("status", ["pending", "running", "failure"])
def test_a_prompt_without_trajectories_has_the_version_at_which_it_was_dispatched(status: str) -> None:
    assert only({"u": prompt(status)}).weight_version == 4
    assert only({"u": {"is_prompt": True, "status": status}}).weight_version is None
    assert only({"u": prompt(status), "u_0_0": trajectory(version=2)}).weight_version == 2


def test_trajectories_whose_prompt_is_cleared_are_taken() -> None:
    assert only({"u_0_0": trajectory(), "u_0_1": trajectory()}).state == "taken"


def test_a_bare_trajectory_is_a_write_in_progress() -> None:
    groups = group_rows("p", {"u_0_0": {}, "v_0_0": trajectory()})
    assert [(g.state, g.malformed_keys) for g in groups] == [("uncommitted", 0), ("taken", 0)]


def test_a_version_of_none_is_unknown_and_not_malformed() -> None:
    group = only({"u": prompt("finished"), "u_0_0": trajectory(version=None)})
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


def test_a_failed_trajectory_does_not_fail_a_group_that_was_taken() -> None:
    assert only({"u_0_0": trajectory(), "u_1_0": trajectory("failure")}).state == "taken"


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


def test_padding_and_session_markers_are_no_groups() -> None:
    rows = {
        "u": prompt("running"),
        "u_0_0": trajectory(),
        "pad0a_0_0": {**trajectory(), "is_padding": True},
        "u_sess0": {"status": "finished"},
        "w": {"is_session": True, "status": "finished"},
    }
    assert only(rows).keys == ["u", "u_0_0"]


def test_a_row_whose_tag_is_not_there_yet_is_no_group_and_no_part_of_one() -> None:
    """A key is listed before its tag: until then nobody knows whether it is padding."""
    listed = group_rows("p", {"u": prompt("running"), "u_0_0": {}, "pad0a_0_0": {}, "w": {}})
    assert [(one.group_id, one.bare) for one in listed] == [
        ("u", False),
        ("u_0_0", True),
        ("pad0a_0_0", True),
        ("w", True),
    ]


def test_a_finished_prompt_without_trajectories_is_ready_to_nobody() -> None:
    """verl 0.8 leaves such rows behind for good."""
    assert group_rows("p", {"u": prompt("finished")}) == []
    assert only({"u": prompt("failure")}).state == "failed"


@pytest.mark.parametrize(("sessions", "state"), [(3, "incomplete"), (4, "ready"), (5, "ready")])
def test_a_groups_size_is_counted_in_sessions(sessions: int, state: str) -> None:
    rows = {"u": prompt("finished")} | {f"u_{s}_{i}": trajectory() for s in range(sessions) for i in range(2)}
    assert only(rows, group_size=4).state == state
    declared = {**rows, "u": {**prompt("finished"), "expected_num_keys": 4}}
    assert only(declared, convention="verl").state == state


@pytest.mark.parametrize(
    ("rows", "version"),
    [
        ({"u": prompt("pending")}, 4),
        ({"u_0_0": trajectory()}, 6),
        ({"u": {**prompt("running"), "global_steps": "9"}, "u_0_0": trajectory()}, 8),
        ({"u_0_0": {"min_global_steps": 3, "max_global_steps": None, "global_steps": "x"}}, None),
    ],
)
def test_rows_state_which_version_the_trainer_has_finished(rows: dict[str, Any], version: int | None) -> None:
    assert group_rows("p", rows).stated_version == version
