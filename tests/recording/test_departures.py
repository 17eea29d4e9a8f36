"""Each unusual departure is recorded once, whatever is listed between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.model.groups import Departed
from exporter.recording.departures import DepartureNotes


def departed(group_id: str) -> Departed:
    return Departed(
        "train", group_id, 100.0, ("failed", "stale"), "failed", 90.0, 80.0, None, 3, 9, 4, "a_g0", None, None
    )


def test_each_is_recorded_once_in_the_order_of_leaving() -> None:
    recorded: list[Mapping[str, Any]] = []
    notes = DepartureNotes(recorded.extend)
    first, second, third = departed("a"), departed("b"), departed("b")
    notes.note(())
    notes.note((first,))
    notes.note((first,))
    notes.note((third, second, first))
    assert [one["group_id"] for one in recorded] == ["a", "b", "b"]
    assert recorded[0]["why"] == "failed, stale"
    assert (recorded[0]["at"], recorded[0]["lag"], recorded[0]["partition"]) == (100.0, 9, "train")


def test_what_was_recorded_may_have_left_the_ring() -> None:
    recorded: list[Mapping[str, Any]] = []
    notes = DepartureNotes(recorded.extend)
    notes.note((departed("a"),))
    notes.note((departed("c"), departed("b")))
    assert [one["group_id"] for one in recorded] == ["a", "b", "c"]
