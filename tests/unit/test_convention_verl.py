"""verl's convention by example: one test per rule."""

from __future__ import annotations

from typing import Any

import pytest

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
