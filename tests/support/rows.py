"""Rows of a partition for tests of grouping."""

from __future__ import annotations

from typing import Any, Final

from dataplane.groups import DataPlaneGroupMeta, group_rows

__all__ = ["RECOVERY", "only"]

RECOVERY: Final[dict[str, Any]] = {
    "group_id": "g",
    "weight_version": 7,
    "committed": True,
    "expected_num_keys": 2,
    "created_at": 100.5,
    "size_bytes": 10,
}
"""A tag with everything that the ``recovery`` convention reads."""


def only(rows: dict[str, Any], **rules: Any) -> DataPlaneGroupMeta:
    """Return the one group that *rows* make."""
    groups = group_rows("p", rows, **rules)
    assert len(groups) == 1
    return groups[0]
