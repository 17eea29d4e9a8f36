"""NeMo RL's convention by example: one test per rule."""

from __future__ import annotations

import pytest

from dataplane.groups import count_ready, group_rows
from tests.support.rows import only


def test_rows_of_a_group_share_what_stands_before_g() -> None:
    rows = {f"u_g0_g{n}": {"weight_version": 3} for n in (10, 2)}
    group = only(rows)
    assert (group.group_id, group.keys, group.state) == ("u_g0", ["u_g0_g10", "u_g0_g2"], "ready")


@pytest.mark.parametrize("key", ["u", "u_g", "u_gx", "_g", "_g0", "u_g-1", "7"])
def test_other_keys_are_groups_of_their_own(key: str) -> None:
    assert only({key: {"weight_version": 3}}).group_id == key


def test_a_bare_row_among_tagged_ones_is_a_write_in_progress() -> None:
    groups = group_rows("p", {"u_g0": {"weight_version": 3}, "v_g0": {}})
    assert [g.state for g in groups] == ["ready", "uncommitted"]


def test_a_partition_without_any_tag_is_committed_of_unknown_version() -> None:
    groups = group_rows("p", {"u_g0": {}, "u_g1": {}, "v_g0": {}})
    assert [(g.state, g.weight_version, len(g.keys)) for g in groups] == [("ready", None, 2), ("ready", None, 1)]


def test_a_partition_of_versions_only_is_recognised() -> None:
    assert count_ready(group_rows("p", {f"u{i // 4}_g{i % 4}": {"weight_version": 1} for i in range(16)})) == 4


def test_group_size_makes_completeness() -> None:
    rows = {"u_g0": {"weight_version": 1}, "u_g1": {"weight_version": 1}, "v_g0": {"weight_version": 1}}
    assert [g.state for g in group_rows("p", rows, group_size=2)] == ["ready", "incomplete"]
