"""A question's answer has the groups that a plain loop over the last listing finds, in the same order, described."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.groups import GROUP_STATES, DataPlaneGroupMeta, group_rows
from exporter.conditions import CONDITIONS
from exporter.conditions.base import Candidate
from exporter.groups import BadQuery, Query, read_query
from exporter.groups.answer import MAX_ANSWER_BYTES
from exporter.groups.query import SELECTING, SORTS
from exporter.model.condition import Condition
from exporter.model.snapshot import PartitionStatus
from exporter.model.versions import VersionReference
from tests.groups.support import NOW, Listings, group

NAMES = st.text(st.sampled_from("ab\n\u202eé"), min_size=1, max_size=4)


@st.composite
def groups(draw: st.DrawFn) -> dict[str, list[DataPlaneGroupMeta]]:
    """Return the groups of two partitions. No key is in two groups."""
    listed: dict[str, list[DataPlaneGroupMeta]] = {}
    for partition in ("train_1", "val"):
        ids = draw(st.lists(NAMES, unique=True, max_size=6))
        listed[partition] = [
            group(
                group_id,
                draw(st.sampled_from(GROUP_STATES)),
                partition=partition,
                keys=sorted(f"{group_id}:{key}" for key in draw(st.lists(NAMES, unique=True, min_size=1, max_size=4))),
                weight_version=draw(st.none() | st.integers(0, 12)),
                created_at=draw(st.none() | st.floats(NOW - 9000, NOW)),
                size_bytes=draw(st.none() | st.integers(0, 99)),
                malformed_keys=draw(st.integers(0, 1)),
            )
            for group_id in ids
        ]
    return listed


QUERIES = st.builds(
    Query,
    partition=st.sampled_from([None, "train_1", "val", "other"]),
    state=st.none() | st.sampled_from(GROUP_STATES),
    condition=st.none() | st.sampled_from(sorted(SELECTING)),
    sort=st.none() | st.sampled_from(SORTS),
    limit=st.integers(1, 5),
    search=st.just("") | NAMES,
)


@given(listed=groups(), query=QUERIES, reference=st.none() | st.integers(0, 12))
def test_the_answer_is_that_of_a_plain_loop(
    listed: dict[str, list[DataPlaneGroupMeta]], query: Query, reference: int | None
) -> None:
    seen = Listings()
    seen.reference = None if reference is None else VersionReference(reference, "published")
    seen.list(listed)
    rules = {rule.name: rule for rule in CONDITIONS}

    def lag(one: DataPlaneGroupMeta) -> int | None:
        return None if reference is None or one.weight_version is None else reference - one.weight_version

    def age(one: DataPlaneGroupMeta) -> float:
        return 0.0 if one.created_at is None else seen.now - one.created_at

    def selected(one: DataPlaneGroupMeta) -> bool:
        if query.condition is None:
            return True
        role: Any = "train" if one.partition_id == "train_1" else "eval"
        candidate = Candidate(role, one.state, lag(one), age(one), False, one.malformed_keys)
        names = (
            ["DataPlaneGroupsOrphaned", "DataPlaneIncompleteOrphaned", "DataPlaneUncommittedLeaking"]
            if query.condition == "stuck"
            else [query.condition]
        )
        return any(select(candidate, seen.limits, {}) for name in names if (select := rules[name].selects))

    expected = [
        one
        for one in listed["train_1"] + listed["val"]
        if query.partition in (None, one.partition_id)
        and query.state in (None, one.state)
        and (query.search in one.group_id or any(query.search in key for key in one.keys))
        and selected(one)
    ]
    figures: dict[str, Callable[[DataPlaneGroupMeta], Any]] = {
        "age": age,
        "lag": lambda one: -math.inf if lag(one) is None else lag(one),
        "keys": lambda one: len(one.keys),
    }
    figure = figures[query.sort or "age"]
    expected.sort(key=lambda one: (-figure(one), one.partition_id, one.group_id))
    answer = seen.groups().answer(query)
    assert answer.matched == len(expected)
    assert [(one.partition, one.group_id) for one in answer.groups] == [
        (one.partition_id, one.group_id) for one in expected[: query.limit]
    ]
    for said, one in zip(answer.groups, expected, strict=False):
        assert (said.state, said.version, said.lag, said.keys) == (
            one.state,
            one.weight_version,
            lag(one),
            len(one.keys),
        )
        assert said.first_keys == tuple(one.keys[:3])
        assert said.age_seconds == pytest.approx(age(one), abs=1e-3)
        assert said.age_basis == ("first_seen" if one.created_at is None else "tag")
        assert (said.size_bytes, said.malformed, said.created_at) == (
            one.size_bytes,
            one.malformed_keys,
            one.created_at,
        )


def test_it_tells_since_when_a_group_is_in_its_state() -> None:
    seen = Listings()
    seen.list({"train": [group("g", "uncommitted")]})
    seen.list({"train": [group("g", "uncommitted")]})
    seen.list({"train": [group("g", "ready")]})
    seen.list({"train": [group("g", "ready")]})
    [found] = seen.groups().answer(Query()).groups
    assert (found.first_seen, found.state_since) == (NOW + 10, NOW + 30)
    assert (found.age_seconds, found.age_basis) == (30, "first_seen")


def test_a_group_whose_keys_moved_keeps_its_times() -> None:
    seen = Listings()
    seen.list({"train": [group("old", keys=["k"])]})
    seen.list({"train": [group("new", keys=["k"])]})
    [found] = seen.groups().answer(Query()).groups
    assert (found.group_id, found.first_seen, found.state_since) == ("new", NOW + 10, NOW + 10)


def test_verls_sessions_are_counted_and_the_trace_is_named() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    rows: dict[str, dict[str, Any]] = {
        "u1": {"is_prompt": True, "status": "running", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
        **{f"u1_{session}_{index}": {"status": "success"} for session in range(3) for index in range(2)},
        "u2": {"is_prompt": True, "status": "running", "traceparent": "00-none"},
    }
    seen = Listings()
    seen.list({"train": group_rows("train", rows)}, convention="verl")
    first, second = seen.groups(trace_url="http://t/{trace_id}").answer(Query(sort="keys")).groups
    assert (first.group_id, first.keys, first.sessions, first.trace_id) == ("u1", 7, 3, trace)
    assert (second.group_id, second.sessions, second.trace_id) == ("u2", 0, None)


def test_it_names_the_conditions_that_hold_and_are_about_a_group() -> None:
    seen = Listings()
    seen.conditions = (
        Condition("DataPlaneRowsMalformed", "queue", "warning", True),
        Condition("DataPlaneIncompleteOrphaned", "generation", "warning", False),
    )
    seen.list({"train": [group("bad", "incomplete", created_at=NOW - 9000, malformed_keys=1), group("good")]})
    bad, good = seen.groups().answer(Query()).groups
    assert (bad.group_id, bad.conditions) == ("bad", ("DataPlaneRowsMalformed",))
    assert good.conditions == ()


def test_orphaned_groups_are_stuck() -> None:
    seen = Listings()
    for version in (5, 6, 7):
        seen.reference = VersionReference(version, "published")
        seen.list({"train": [group("left", "taken"), group("other")]})
    [found] = seen.groups().answer(Query(condition="stuck")).groups
    assert (found.group_id, found.orphaned) == ("left", True)


def test_what_is_no_longer_valid_is_shown_with_the_age_that_it_had() -> None:
    seen = Listings()
    seen.list({"train": [group("g", created_at=NOW)]})
    seen.fresh, seen.up = set(), False
    seen.now += 500
    answer = seen.groups().answer(Query(partition="train"))
    assert [(one.partition, one.current, one.listed_at) for one in answer.partitions] == [("train", False, NOW + 10)]
    assert answer.groups[0].age_seconds == 10


def test_a_partition_that_was_never_listed_is_named_with_the_reason() -> None:
    seen = Listings()
    snapshot = seen.snapshot()
    unread = replace(snapshot, statuses=(PartitionStatus("big", False, "refused"),), total=None)
    answer = replace(seen.groups(), snapshot=lambda: unread).answer(Query(partition="big"))
    assert [(one.partition, one.groups, one.reason) for one in answer.partitions] == [("big", None, "refused")]
    assert not answer.known


def test_members_of_a_family_are_found_by_its_label() -> None:
    seen = Listings()
    seen.list({f"train_{step}": [group(f"g{step}", partition=f"train_{step}")] for step in (1, 2)})
    groups = seen.groups()
    assert [one.group_id for one in groups.answer(Query(partition="train_*")).groups] == ["g1", "g2"]
    assert [one.group_id for one in groups.answer(Query(partition="train_2")).groups] == ["g2"]


def test_a_search_finds_within_one_key_and_not_across_two() -> None:
    seen = Listings()
    seen.list({"train": [group("g", keys=["ka", "kb"]), group("h", keys=["odd\nkey", "z"])]})
    groups = seen.groups()
    assert groups.answer(Query(search="a\nk")).matched == 0
    [odd] = groups.answer(Query(search="d\nk")).groups
    assert (odd.group_id, odd.first_keys) == ("h", ("odd\nkey", "z"))


def test_an_answer_is_bounded_whatever_the_ids_are() -> None:
    long = "\U0001f682" * 600
    seen = Listings()
    seen.list(
        {
            "train": [
                group(f"{index:04}{long}", keys=[f"{key}{index:04}{long}" for key in range(4)]) for index in range(1000)
            ]
        }
    )
    body = seen.groups().encode([("limit", "1000")])
    answer = json.loads(body)
    assert len(body) <= MAX_ANSWER_BYTES
    assert answer["cut"] is True
    assert answer["matched"] == 1000 > len(answer["groups"]) > 100
    assert len(answer["groups"][0]["group_id"]) == 512
    small = seen.groups().encode([("limit", "100")])
    assert json.loads(small)["cut"] is False


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            "state=reddy",
            "state: 'reddy' is not one of them; it is one of ready, incomplete, uncommitted, failed, taken;",
        ),
        ("sort=size", "sort: 'size' is not one of them; it is one of age, lag, keys"),
        ("condition=DataPlaneLost", "condition: 'DataPlaneLost' is not one of them; it is one of stuck, DataPlane"),
        ("limit=0", "limit: '0' is out of range; give a number from 1 to 1000"),
        ("limit=1001", "limit: '1001' is out of range"),
        ("limit=many", "limit: 'many' is out of range"),
        ("limit=²", "limit: '²' is out of range"),
        ("stat=ready", "'stat': is not a parameter; it is one of partition, state, condition,"),
        ("state=ready&state=taken", "state: is given twice"),
        ("departed=true&condition=stuck", "condition: selects only groups in the queue"),
        ("departed=maybe", "departed: 'maybe' is not one of them; it is one of false, true"),
        ("search=" + 600 * "x", "search: has 600 characters; give at most 512"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_choices(parameters: str, said: str) -> None:
    pairs = [(name, value) for one in parameters.split("&") for name, _, value in [one.partition("=")]]
    with pytest.raises(BadQuery) as refused:
        read_query(pairs)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_question_without_parameters_has_the_defaults() -> None:
    assert read_query([]) == Query() == read_query([("partition", ""), ("state", ""), ("limit", ""), ("search", "")])
