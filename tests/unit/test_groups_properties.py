"""Properties of grouping that hold for any rows."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dataplane import conventions
from dataplane.groups import GROUP_STATES, DataPlaneGroupMeta, group_rows

SCHEMA = conventions.schema()
NAMES = SCHEMA.checked.__struct_fields__
EXOTIC = (
    np.int64(3),
    np.float64(2.5),
    np.float32("nan"),
    np.bool_(True),
    np.array([1, 2]),
    np.array("finished"),
    msgspec.msgpack.Ext(5, b"x"),
    object(),
    int,
    10**5000,
    {"nested": [1]},
    {1, 2},
)

plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["true", "finished", "failure", "running", 0, 1, 1.0, 2**53, -(2**53) - 1]),
)
values = plain_values | st.sampled_from(EXOTIC)
tags = st.one_of(
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), values, max_size=6),
    st.dictionaries(st.integers() | st.none(), values, max_size=2),
    values,
)
keys = st.one_of(
    st.text(max_size=6),
    st.from_regex(r"[ab]_g[0-3]", fullmatch=True),
    st.from_regex(r"[ab](_[0-2]_[0-2])?", fullmatch=True),
)
rules = st.fixed_dictionaries(
    {"convention": st.sampled_from(conventions.names()), "group_size": st.none() | st.integers(0, 5)}
)

good_tags = st.fixed_dictionaries(
    {},
    optional={
        "group_id": st.sampled_from("abc"),
        "weight_version": st.integers(-3, 3),
        "committed": st.booleans(),
        "expected_num_keys": st.integers(0, 4),
        "num_keys": st.integers(0, 4),
        "created_at": st.floats(0, 2e9),
        "size_bytes": st.integers(0, 2**40),
        "status": st.sampled_from(["pending", "running", "finished", "failure"]),
        "is_prompt": st.booleans(),
        "min_global_steps": st.none() | st.integers(0, 9),
    },
)


@given(st.dictionaries(keys, tags, max_size=8), rules)
def test_never_raises_and_loses_no_row(rows: dict[str, Any], rule: dict[str, Any]) -> None:
    groups = group_rows("p", rows, **rule)
    grouped = sorted(key for group in groups for key in group.keys)
    own = sorted(key for key in rows if not key.startswith("__"))
    assert grouped == own if groups.convention != "verl" else set(grouped) <= set(own)
    assert groups.rows == len(rows)
    assert len({group.group_id for group in groups}) == len(groups)
    for group in groups:
        assert group.keys == sorted(group.keys)
        assert group.state in GROUP_STATES
        assert 0 <= group.malformed_keys <= len(group.keys)
        assert type(group.group_id) is str
        assert type(group.committed) is type(group.failed) is bool
        for number in (group.weight_version, group.expected_num_keys, group.size_bytes):
            assert number is None or type(number) is int
        assert group.created_at is None or (type(group.created_at) is float and math.isfinite(group.created_at))


def without_tags(groups: list[DataPlaneGroupMeta]) -> dict[str, DataPlaneGroupMeta]:
    return {group.group_id: msgspec.structs.replace(group, tags={}) for group in groups}


@given(st.dictionaries(keys, tags, max_size=8), rules, st.randoms())
def test_order_changes_nothing_but_tags(rows: dict[str, Any], rule: dict[str, Any], rng: random.Random) -> None:
    shuffled = list(rows.items())
    rng.shuffle(shuffled)
    assert without_tags(group_rows("p", dict(shuffled), **rule)) == without_tags(group_rows("p", rows, **rule))


stretches = st.lists(
    st.tuples(
        st.sampled_from(["u", "v", "w", "__u", "u_1", "u_g1"]),
        st.sampled_from(["{uid}_g{n}", "{uid}_{n}_0", "{uid}_{n}", "{uid}", "{uid}_gx{n}"]),
        st.integers(0, 1),
        st.integers(1, 4),
        good_tags,
    ),
    max_size=8,
)


@given(stretches, st.sampled_from(conventions.names()[1:]))
def test_rows_that_look_like_those_before_go_where_they_would_go_alone(
    stretches: list[tuple[str, str, int, int, dict[str, Any]]], convention: str
) -> None:
    rows = {
        form.format(uid=uid, n=number): tag
        for uid, form, first, count, tag in stretches
        for number in range(first, first + count)
    }
    for tag in rows.values():  # a finished prompt alone is no group
        tag.pop("is_prompt", None)
    expected: dict[str, list[str]] = {}
    for key, tag in rows.items():
        for alone in group_rows("p", {key: tag}, convention=convention):
            expected.setdefault(alone.group_id, []).append(key)
    groups = group_rows("p", rows, convention=convention)
    assert {group.group_id: group.keys for group in groups} == {name: sorted(keys) for name, keys in expected.items()}


@given(st.dictionaries(keys, good_tags, max_size=8), rules)
def test_typed_loose_and_plain_tags_group_alike(rows: dict[str, Any], rule: dict[str, Any]) -> None:
    plain = group_rows("p", rows, **rule)
    for kind in (SCHEMA.checked, SCHEMA.loose):
        assert group_rows("p", {key: kind(**tag) for key, tag in rows.items()}, **rule) == plain
    assert all(group.malformed_keys == 0 for group in plain)


@given(st.dictionaries(keys, plain_values.flatmap(lambda value: st.just({"weight_version": value})), max_size=6))
def test_the_wire_and_the_public_client_agree(rows: dict[str, Any]) -> None:
    """A msgpack round trip, typed or not, does not change the result of grouping."""
    try:
        frame = msgspec.msgpack.encode(rows)
    except (OverflowError, ValueError):
        return  # TransferQueue would send a pickle.
    loose = msgspec.msgpack.decode(frame, type=dict[str, SCHEMA.loose])  # type: ignore[name-defined]  # made at run time
    assert without_tags(group_rows("p", loose)) == without_tags(group_rows("p", rows))


@given(st.dictionaries(keys, good_tags, min_size=1, max_size=8))
def test_recovery_sums_and_extremes(rows: dict[str, Any]) -> None:
    said = any("committed" in tag for tag in rows.values())
    for group in group_rows("p", rows, convention="recovery"):
        own = [rows[key] for key in group.keys]
        assert {tag.get("group_id", key) for key, tag in zip(group.keys, own, strict=True)} == {group.group_id}
        sizes = [tag["size_bytes"] for tag in own if "size_bytes" in tag]
        assert group.size_bytes == (sum(sizes) if sizes else None)
        assert group.created_at == min((tag["created_at"] for tag in own if "created_at" in tag), default=None)
        versions = [tag["weight_version"] for tag in own if "weight_version" in tag]
        assert group.weight_version == min(versions, default=None)
        expected = [tag.get("expected_num_keys", tag.get("num_keys")) for tag in own]
        assert group.expected_num_keys == max((n for n in expected if n is not None), default=None)
        assert group.committed == all(tag.get("committed") is True if said else bool(tag) for tag in own)
