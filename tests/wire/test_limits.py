"""Limits on a reply: the reader bounds rows, bytes and memory, whatever the controller sends."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import msgspec
import pytest

from dataplane.adapters.wire import WireMetadataReader
from dataplane.adapters.wire.limits import MAX_NAMES_BYTES, MAX_TAG_BYTES, ReplyLimitExceeded
from dataplane.adapters.wire.protocol import decode_partitions
from dataplane.adapters.wire.rows import decode_listing
from dataplane.errors import DataPlaneReadError, error_type
from dataplane.groups import group_listed
from tests.support.exporter_process import ExporterProcess
from tests.support.fake_router import FakeRouter, reply


def listing(rows: Any, partition: str = "p") -> memoryview:
    return memoryview(reply("KV_LIST_RESPONSE", {"partition_info": {partition: rows}, "message": "success"})[0])


def rows(number: int, tag: Any = None) -> dict[str, Any]:
    return {f"key_{row:06}": {"weight_version": 1} if tag is None else tag for row in range(number)}


def hostile(rows_bytes: bytes, partition: bytes = b"\xa1p", entries: int = 1) -> memoryview:
    """Return a listing with a hand-made map of partitions."""
    body = (
        b"\x81"
        + msgspec.msgpack.encode("partition_info")
        + bytes([0x80 | entries])
        + (partition + rows_bytes) * entries
    )
    fields = {"request_type": "KV_LIST_RESPONSE", "sender_id": "c", "request_id": "", "timestamp": 0.0}
    head = bytes([0x80 | (len(fields) + 1)]) + msgspec.msgpack.encode(fields)[1:]
    return memoryview(head + msgspec.msgpack.encode("body") + body)


@pytest.mark.parametrize("number", [3, 200, 70_000])
def test_as_many_rows_as_the_limit_are_listed_and_one_more_is_refused(number: int) -> None:
    assert len(decode_listing(listing(rows(number)), "p", number).body.keys) == number
    for partition in ("p", "p" * 40, "p" * 300, "p" * 70_000):
        with pytest.raises(ReplyLimitExceeded, match=f"{number} rows, the limit is {number - 1}") as raised:
            decode_listing(listing(rows(number), partition), partition, number - 1)
        assert raised.value.limit == "rows"


def test_rows_are_counted_before_they_take_memory() -> None:
    frame = listing(rows(200_000))
    tracemalloc.start()
    try:
        with pytest.raises(ReplyLimitExceeded):
            decode_listing(frame, "p", 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * frame.nbytes  # the skipped bytes may be copied once


@pytest.mark.parametrize(
    "frame",
    [
        hostile(b"\xdf\xff\xff\xff\xff" + b"\xa1a\x80" * 100),
        hostile(b"\x91\x80" * 100),
        hostile(b"\xc0", b"\xc0"),
        hostile(b"\x80" * 200, entries=2),
        hostile(b""),
        hostile(b"", b"\xdb\xff\xff\xff\xff"),
    ],
    ids=["more rows than bytes", "a list", "no name", "two partitions", "nothing", "a name without end"],
)
def test_headers_that_lie_are_refused(frame: memoryview) -> None:
    with pytest.raises(DataPlaneReadError):
        decode_listing(frame, "p", 1)


def test_values_that_grow_when_decoded_take_no_memory() -> None:
    lists = msgspec.Raw(b"\xdc\xff\xf0" + b"\x90" * 0xFFF0)  # a list of 65,520 empty lists
    frame = listing(
        {f"k{row}_g0": {"weight_version": lists} for row in range(300)} | {"good_g0": {"weight_version": 3}}
    )
    assert frame.nbytes > 16 * 2**20
    tracemalloc.start()
    try:
        found = decode_listing(frame, "p").body
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * frame.nbytes
    groups = {
        group.group_id: group for group in group_listed("p", found.keys, found.tags, convention="nemo-rl").listing
    }
    assert groups["good"].weight_version == 3
    assert groups["k0"].malformed_keys == 1


def test_a_tag_that_is_too_large_harms_its_own_row_alone() -> None:
    odd = {"group_id": 7, "weight_version": "x" * MAX_TAG_BYTES}
    frame = listing({"odd": odd, "good_g0": {"weight_version": 3}})
    rows = decode_listing(frame, "p").body
    found = group_listed("p", rows.keys, rows.tags, convention="nemo-rl").listing
    assert [group.weight_version for group in found] == [None, 3]


def test_a_list_of_partitions_has_a_limit_of_its_own() -> None:
    names = [f"partition_{number:020}" for number in range(MAX_NAMES_BYTES // 32)]
    assert len(
        decode_partitions(memoryview(reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": names})[0])).body
    ) == len(names)
    frame = memoryview(reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": [[]] * MAX_NAMES_BYTES})[0])
    with pytest.raises(ReplyLimitExceeded) as raised:
        decode_partitions(frame)
    assert raised.value.limit == "reply_bytes"


@pytest.mark.parametrize("kind", ["REQUEST_ERROR", "OTHER_RESPONSE", "X" * 100_000])
def test_a_peers_own_words_are_cut_short(kind: str) -> None:
    frame = memoryview(reply(kind, {"message": "boom" * 100_000}, "c" * 100_000)[0])
    with pytest.raises(DataPlaneReadError) as raised:
        decode_partitions(frame)
    assert len(str(raised.value)) < 2000


def test_the_error_is_a_read_error_and_pickles() -> None:
    error = ReplyLimitExceeded("too much", limit="rows", operation="list_metadata", partition_id="p")
    assert error_type(error) == "DataPlaneReadError"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.limit, again.operation) == (type(error), "too much", "rows", "list_metadata")


def test_a_reply_that_is_too_large_is_told_from_a_connection_that_ended_and_asked_for_once() -> None:
    with FakeRouter(lambda request: reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["x" * 20_000]})) as router:
        reader = WireMetadataReader(router.address, max_reply_bytes=10_000)
        for number in (1, 2):
            with pytest.raises(ReplyLimitExceeded, match="larger than 10000 bytes") as raised:
                reader.list_partitions()
            assert raised.value.limit == "reply_bytes"
            assert len(router.requests) == number
        reader.close()


def test_refused_replies_are_counted_and_hide_no_other_partition() -> None:
    def answer(request: dict[str, Any]) -> list[bytes]:
        if request["request_type"] == "GET_LIST_PARTITIONS":
            return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["many", "long", "good"]})
        partition = request["body"]["partition_id"]
        found = {"many": rows(1001), "long": rows(900, {"x": "y" * 200}), "good": rows(1000)}[partition]
        return reply("KV_LIST_RESPONSE", {"partition_info": {partition: found}, "message": "success"})

    env = {"TQ_EXPORTER_METADATA_MAX_ROWS": "1000", "TQ_EXPORTER_METADATA_MAX_REPLY_BYTES": "100000"}
    with (
        FakeRouter(answer) as router,
        ExporterProcess("--controller", router.address, "--metadata-interval", "500ms", env=env) as exporter,
    ):
        name = "tq_exporter_replies_refused_total"
        seen = exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_keys")), "the good partition")
        assert seen.by("dataplane_partition_keys", "partition") == {"good": 1000}
        refused = seen.by(name, "limit")
        assert refused.pop("memory") == 0
        assert set(refused) == {"rows", "reply_bytes"}
        assert min(refused.values()) >= 1
        assert seen.by("dataplane_source_state", "reason", source="metadata")["failing"] == 1
        details = " ".join(incident["detail"] for incident in exporter.snapshot()["incidents"])
        assert "1001 rows, the limit is 1000" in details
        assert "larger than 100000 bytes" in details
