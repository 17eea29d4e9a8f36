"""Which departures are kept, since they are unusual, and what is kept of them."""

from __future__ import annotations

import pytest

from exporter.groups import Query
from exporter.model.departures import MAX_DEPARTED, WHY
from exporter.model.versions import VersionReference
from tests.groups.support import NOW, Listings, group


def test_an_ordinary_departure_is_not_kept() -> None:
    seen = Listings()
    seen.list({"train": [group("g")]})
    seen.list({"train": []})
    assert seen.view().departed == ()


@pytest.mark.parametrize(
    ("state", "why"), [("failed", "failed"), ("uncommitted", "unfinished"), ("incomplete", "unfinished")]
)
def test_a_group_that_left_without_being_ready_is_kept(state: str, why: str) -> None:
    seen = Listings()
    seen.reference = VersionReference(9, "published")
    seen.list({"train": []})
    seen.list({"train": [group("g", "uncommitted", weight_version=7, keys=["b", "c"])]})
    seen.list({"train": [group("g", state, weight_version=7, keys=["b", "c"])]})
    seen.list({"train": []})
    [found] = seen.groups().answer(Query(departed=True)).groups
    assert (found.group_id, found.state, found.why, found.lag, found.keys) == ("g", state, (why,), 2, 2)
    assert (found.first_seen, found.departed_at, found.age_seconds) == (NOW + 20, NOW + 40, 20)
    assert found.state_since == (NOW + 20 if state == "uncommitted" else NOW + 30)
    assert found.first_keys == ("b",)
    assert set(found.why) <= WHY.keys()


def test_ready_groups_that_left_are_unusual_where_groups_are_taken_first() -> None:
    seen = Listings()
    seen.list({"train": [group("a"), group("b"), group("c", "taken")]})
    seen.list({"train": [group("b"), group("v")], "val": [group("v")]})
    seen.list({"train": [], "val": []})
    assert [(one.group_id, one.why) for one in seen.view().departed] == [
        ("v", ("untaken",)),
        ("b", ("untaken",)),
        ("a", ("untaken",)),
    ]


def test_a_group_that_is_too_far_behind_when_it_leaves_is_kept() -> None:
    seen = Listings(window=4.0)
    seen.reference = VersionReference(10, "published")
    seen.list({"train": [group("far", weight_version=5), group("near", weight_version=6)]})
    seen.list({"train": []})
    assert [(one.group_id, one.why, one.lag) for one in seen.view().departed] == [("far", ("stale",), 5)]


def test_a_group_that_stayed_much_longer_than_usual_is_kept() -> None:
    seen = Listings()
    seen.list({"train": [group("old", created_at=NOW - 3000), *(group(str(n), created_at=NOW) for n in range(20))]})
    seen.list({"train": [group("old", created_at=NOW - 3000)]})
    assert seen.view().departed == ()
    seen.list({"train": []})
    assert [(one.group_id, one.why) for one in seen.view().departed] == [("old", ("old",))]


def test_where_groups_stay_for_long_that_is_not_unusual() -> None:
    seen = Listings()
    groups = [group(str(n), created_at=NOW - 1000) for n in range(20)]
    seen.list({"train": [group("longer", created_at=NOW - 3000), *groups]})
    seen.list({"train": [group("longer", created_at=NOW - 3000)]})
    seen.list({"train": []})
    assert seen.view().departed == ()


def test_what_a_controller_or_a_checkpoint_took_away_is_lost() -> None:
    seen = Listings()
    seen.list({"train": [group("a"), group("kept")], "gone": [group("x")]}, sender="one")
    seen.list({"train": [group("kept")]}, sender="two")
    seen.tracker.lose_all(seen.now + 1)
    assert [(one.group_id, one.why) for one in seen.view().departed] == [
        ("kept", ("lost",)),
        ("a", ("lost",)),
        ("x", ("lost",)),
    ]


def test_the_last_thousand_are_kept_with_bounded_texts() -> None:
    seen = Listings()
    seen.list({"train": [group("first", "failed"), *(group("g" * 500 + str(n)) for n in range(1500))]})
    seen.list({"train": [group("g" * 500 + str(n)) for n in range(1500)]})
    seen.tracker.lose_all(seen.now)
    departed = seen.view().departed
    assert len(departed) == MAX_DEPARTED
    assert "first" not in {one.group_id for one in departed}
    assert {len(one.group_id) for one in departed} == {len(one.key) for one in departed} == {128}


def test_departed_groups_are_found_like_others() -> None:
    seen = Listings()
    seen.reference = VersionReference(9, "published")
    seen.list(
        {
            "train": [
                group("a", "failed", weight_version=1, keys=["k1"]),
                group("b", "uncommitted", weight_version=8, keys=["k2", "k3"]),
                group("c", "failed", keys=["k4"]),
            ]
        }
    )
    seen.list({"train": []})
    groups = seen.groups()

    def found(**fields: object) -> set[str]:
        return {one.group_id for one in groups.answer(Query(departed=True, **fields)).groups}  # type: ignore[arg-type]

    assert found(state="failed") == {"a", "c"}
    assert found(search="k2") == {"b"}
    assert found(search="c") == {"c"}
    assert found(partition="val") == set()
    ordered = groups.answer(Query(departed=True, sort="lag")).groups
    assert [one.group_id for one in ordered] == ["a", "b", "c"]
    assert groups.answer(Query(departed=True, limit=1)).matched == 3
