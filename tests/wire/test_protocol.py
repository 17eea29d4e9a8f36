"""The bytes of the protocol: what is decoded, what is refused, and that nothing is ever unpickled."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane import conventions
from dataplane.adapters.wire.protocol import (
    TESTED_VERSIONS,
    decode_metrics,
    decode_partitions,
    encode_request,
)
from dataplane.adapters.wire.rows import decode_listing
from dataplane.errors import DataPlaneReadError
from dataplane.groups import group_rows
from dataplane.tags import LooseTagFields, to_sorted_dict
from tests.support.fake_router import CONTROLLER_ID, reply


def listing(rows: Any, partition_id: str = "p") -> memoryview:
    body = {"partition_info": {partition_id: rows}, "message": "success"}
    return memoryview(reply("KV_LIST_RESPONSE", body)[0])


def rows_of(frame: memoryview, partition_id: str = "p") -> Any:
    rows = decode_listing(frame, partition_id).body
    return dict(zip(rows.keys, rows.tags, strict=True))


def test_a_request_is_a_map_with_the_fields_of_the_protocol() -> None:
    request = msgspec.msgpack.decode(encode_request("KV_LIST", "me", {"partition_id": "p"}))
    assert list(request) == ["request_type", "sender_id", "receiver_id", "request_id", "timestamp", "body"]
    assert (request["request_type"], request["sender_id"], request["body"]) == ("KV_LIST", "me", {"partition_id": "p"})


def test_a_well_formed_listing_decodes_into_checked_fields() -> None:
    rows = rows_of(listing({"a": {"weight_version": 3, "unknown": [1, 2]}, "b": {}}))
    fields = conventions.schema().checked
    assert rows == {"a": fields(weight_version=3), "b": fields()}


def test_a_value_of_another_type_makes_its_own_tag_loose() -> None:
    rows = rows_of(listing({"a": {"weight_version": "three"}, "b": {"weight_version": 3}}))
    assert [isinstance(tag, LooseTagFields) for tag in rows.values()] == [True, False]
    assert [tag.weight_version for tag in rows.values()] == ["three", 3]


@pytest.mark.parametrize("odd", [None, 7, "tag", [1, 2], {1: 2}, {"weight_version": 1, 2: 3}, {(1, 2): 3}])
def test_an_odd_tag_harms_its_own_row_alone(odd: object) -> None:
    rows = {"a_g0": {"weight_version": 3}, "odd": odd, "b_g0": {"weight_version": 4}}
    over_the_wire = group_rows("p", rows_of(listing(rows)), convention="nemo-rl")
    assert [group.weight_version for group in over_the_wire if group.group_id != "odd"] == [3, 4]
    for wired, read in zip(over_the_wire, group_rows("p", rows, convention="nemo-rl"), strict=True):
        assert wired == msgspec.structs.replace(read, tags=wired.tags)


def test_extension_types_decode_as_what_they_are() -> None:
    rows = rows_of(listing({"a": {"weight_version": msgspec.msgpack.Ext(1, pickle.dumps(3))}}))
    assert type(rows["a"].weight_version) is msgspec.msgpack.Ext


def test_an_unknown_partition_has_no_rows() -> None:
    frame = memoryview(reply("KV_LIST_RESPONSE", {"partition_info": {}, "message": "partition p does not exist"})[0])
    assert rows_of(frame) == {}


@pytest.mark.parametrize("rows", [{"a": {"weight_version": 1}}, {"a": {1: 2}}, {}])
def test_the_rows_of_another_partition_are_no_answer(rows: dict[str, Any]) -> None:
    frame = memoryview(reply("KV_LIST_RESPONSE", {"partition_info": {"other": rows}, "message": "success"})[0])
    with pytest.raises(DataPlaneReadError, match="the partition 'other', which is not the one"):
        decode_listing(frame, "p")


def test_a_pickle_is_refused_unread() -> None:
    with pytest.raises(DataPlaneReadError, match="unreadable partition"):
        rows_of(memoryview(b"\xc1\xfe\xed"))


def test_no_module_of_the_wire_reader_can_unpickle() -> None:
    import dataplane.adapters.wire as wire
    import dataplane.adapters.wire.connection as connection
    import dataplane.adapters.wire.kept as kept
    import dataplane.adapters.wire.protocol as protocol
    import dataplane.adapters.wire.rows as rows
    import dataplane.adapters.wire.storage as storage

    for module in (protocol, connection, wire, storage, rows, kept):
        assert not {"pickle", "cloudpickle", "marshal"} & set(vars(module))


def test_an_error_reply_gives_its_message() -> None:
    frame = memoryview(reply("REQUEST_ERROR", {"success": False, "message": "KV_LIST failed: boom"})[0])
    with pytest.raises(DataPlaneReadError, match="KV_LIST failed: boom"):
        rows_of(frame)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00",
        b"\xc1",
        b"garbage of some length",
        b"\xdf\xff\xff\xff\xff",
        listing({"a": {"weight_version": 1}}).tobytes()[:-3],
        listing({"a": {"weight_version": 1}}).tobytes() + b"x",
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode({"request_type": "KV_LIST_RESPONSE"}),
        msgspec.msgpack.encode({"request_type": 1, "sender_id": "x", "body": {}}),
        reply("PUT_DATA_RESPONSE", {})[0],
        b"\x91" * 100_000,
    ],
    ids=repr,
)
def test_what_is_not_understood_names_the_tested_versions(frame: bytes) -> None:
    with pytest.raises(DataPlaneReadError, match=f"not understood.*{TESTED_VERSIONS}"):
        rows_of(memoryview(frame))


@pytest.mark.parametrize("body", [None, [], {}, {"partition_info": 3}, {"partition_info": {"p": [1]}}])
def test_a_listing_without_rows_is_not_understood(body: object) -> None:
    with pytest.raises(DataPlaneReadError, match="not understood"):
        rows_of(memoryview(reply("KV_LIST_RESPONSE", body)[0]))


@pytest.mark.parametrize("body", [{"partition_ids": "p"}, {}, None])
def test_a_list_of_partitions_must_be_one(body: object) -> None:
    with pytest.raises(DataPlaneReadError, match="not understood"):
        decode_partitions(memoryview(reply("LIST_PARTITIONS_RESPONSE", body)[0]))


@pytest.mark.parametrize("body", [{"capacity": 1}, {"active_keys": "3"}, {"active_keys": 1, "capacity": 1.5}])
def test_a_storage_units_numbers_must_be_numbers(body: object) -> None:
    with pytest.raises(DataPlaneReadError, match="not understood"):
        decode_metrics(memoryview(reply("METRICS_RESPONSE", body)[0]))


def test_every_reply_names_its_sender() -> None:
    assert decode_listing(listing({}), "p").sender_id == CONTROLLER_ID


@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_bytes_are_rows_or_a_read_error(noise: bytes, position: int) -> None:
    frame = bytearray(listing({"a_g0": {"weight_version": 1, "committed": True}, "b": {"x": [1, {"y": 2}]}}))
    frame[position : position + len(noise)] = noise
    for candidate in (noise, bytes(frame)):
        try:
            rows = rows_of(memoryview(candidate))
        except DataPlaneReadError:
            continue
        group_rows("p", rows)


def test_partition_names_that_are_no_strings_hide_no_other() -> None:
    frame = memoryview(reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["train", 0, None, "val"]})[0])
    assert decode_partitions(frame).body == ["train", "val"]


def test_each_tag_is_decoded_as_if_it_were_alone() -> None:
    odd: list[Any] = [None, 3, {"weight_version": "three"}, {"weight_version": [1]}, {1: 2}]
    rows = {f"k{number}_g0": odd[number % 5] if number % 9 == 0 else {"weight_version": 1} for number in range(200)}
    together = rows_of(listing(rows))
    for key, tag in rows.items():
        alone = rows_of(listing({key: tag}))[key]
        assert type(together[key]) is type(alone)
        assert to_sorted_dict(together[key]) == to_sorted_dict(alone)


def test_equal_neighbours_are_decoded_once() -> None:
    rows = {f"u{group}_g{row}": {"weight_version": group} for group in range(3) for row in range(4)}
    found = rows_of(listing(rows))
    assert len({id(tag) for tag in found.values()}) == 3
    assert [tag.weight_version for tag in found.values()] == [0] * 4 + [1] * 4 + [2] * 4


@given(
    st.dictionaries(st.text(max_size=300), st.dictionaries(st.text(max_size=4), st.integers(-9, 2**40)), max_size=20)
)
def test_the_rows_end_where_their_bytes_do(rows: dict[str, Any]) -> None:
    found = decode_listing(listing(rows), "p").body
    encoded = [msgspec.msgpack.encode(key) + msgspec.msgpack.encode(tag) for key, tag in rows.items()]
    assert found.ends == [0, *itertools.accumulate(map(len, encoded))]
