"""The fuzz targets under Hypothesis: well-formed replies with odd content, and the same with bytes changed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane import conventions
from tests.fuzz.targets import CORPUS, PARTITION, TARGETS, bounded, poisoned_pickle
from tests.support.fake_router import reply

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=8)),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers(0, 3)), inner, max_size=4),
    ),
    max_leaves=6,
)
_fields = st.sampled_from([*conventions.schema().checked.__struct_fields__, "other"])
_tags = st.one_of(_values, st.dictionaries(_fields, _values, max_size=5))
_keys = st.one_of(st.text(max_size=6), st.builds("{}_g{}".format, st.integers(0, 2), st.integers(0, 3)), st.just("__s"))
_rows = st.dictionaries(_keys, _tags, max_size=8)


@st.composite
def _changed(draw: st.DrawFn, frames: st.SearchStrategy[bytes]) -> bytes:
    """A frame, mostly with a few of its bytes replaced, or cut short."""
    frame = bytearray(draw(frames))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(frame)))
        frame[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(frame[: draw(st.one_of(st.just(len(frame)), st.integers(0, len(frame))))])


def _replies(request_type: str, body: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return body.map(lambda drawn: reply(request_type, drawn)[0])


_LISTINGS = _replies("KV_LIST_RESPONSE", _rows.map(lambda rows: {"partition_info": {PARTITION: rows}, "message": ""}))
_NAMES = _replies("LIST_PARTITIONS_RESPONSE", st.lists(_values, max_size=5).map(lambda names: {"partition_ids": names}))
_FIGURES = _replies(
    "METRICS_RESPONSE",
    st.dictionaries(st.sampled_from(["active_keys", "capacity", "process_rss_bytes", "op_stats"]), _values),
)


def _survives(target: str, data: bytes) -> None:
    with poisoned_pickle(), bounded(data):
        TARGETS[target](data)


@given(_changed(_LISTINGS))
def test_listings(data: bytes) -> None:
    _survives("listing", data)


@st.composite
def _spliced(draw: st.DrawFn) -> bytes:
    """Two listings: the second is the first with parts left out, moved and put in between. See the target."""
    rows = draw(st.lists(st.tuples(_keys, _tags), min_size=4, max_size=12))
    encoded = [msgspec.msgpack.encode(key) + msgspec.msgpack.encode(tag) for key, tag in rows]
    first = b"".join(encoded)
    ends = [0, *accumulate(map(len, encoded))]
    places = st.sampled_from(ends) if draw(st.integers(0, 3)) else st.integers(0, len(first))
    splices = b""
    for _ in range(draw(st.integers(1, 4))):
        start, stop = sorted((draw(places), draw(places)))
        splices += b"\x01" + start.to_bytes(2, "big") + (stop - start).to_bytes(2, "big")
        literal = draw(st.sampled_from(encoded) | st.binary(max_size=6))[:100]
        splices += bytes([2 * len(literal)]) + literal
    head = bytes([draw(st.integers(0, 9))]) + len(first).to_bytes(2, "big") + bytes([len(rows)])
    return head + first + bytes([draw(st.integers(0, 24))]) + splices


@given(_spliced())
def test_incremental(data: bytes) -> None:
    _survives("incremental", data)


@given(_changed(_rows.map(msgspec.msgpack.encode)))
def test_grouping(data: bytes) -> None:
    _survives("grouping", data)


@given(_changed(_NAMES))
def test_partitions(data: bytes) -> None:
    _survives("partitions", data)


@given(_changed(_FIGURES))
def test_metrics(data: bytes) -> None:
    _survives("metrics", data)


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_survived(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        try:
            _survives(target, path.read_bytes())
        except BaseException as error:
            raise AssertionError(f"{path.name}: {error!r}") from error


@pytest.mark.parametrize("target", TARGETS)
def test_bytes_that_promise_more_than_they_hold_take_no_memory(target: str) -> None:
    for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
        _survives(target, head + b"\xff" * 4 + b"\x90" * 50)
        encoded: Callable[[object], bytes] = msgspec.msgpack.encode
        _survives(target, b"\x81" + encoded("body") + head + b"\xff" * 4 + b"\xc0" * 50)
