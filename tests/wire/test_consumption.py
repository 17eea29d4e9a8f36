"""How far a task has consumed a partition: read from the tensors' buffers, and never from a pickle."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.adapters.wire import ReplyLimitExceeded, WireMetadataReader
from dataplane.adapters.wire.protocol import Consumption, decode_consumption
from dataplane.errors import DataPlaneReadError
from tests.support.fake_router import CONTROLLER_ID, FakeRouter, reply

POISON = b"cbuiltins\nexit\n(tR."
"""A pickle that would end this process if it were loaded."""


def answer(status: Sequence[int], partition: str = "p", **changed: Any) -> list[bytes]:
    """Return the frames of a reply as TransferQueue 0.1.11 sends them."""
    rows = len(status)
    body = {
        "partition_id": partition,
        "global_index": msgspec.msgpack.Ext(3, pickle.dumps(("int64", (rows,), 1))),
        "consumption_status": msgspec.msgpack.Ext(3, pickle.dumps(("int8", (rows,), 2))),
    }
    return [*reply("CONSUMPTION_RESPONSE", body | changed), struct.pack(f"{rows}q", *range(rows)), bytes(status)]


def consumption(frames: Sequence[bytes], max_rows: int = 100) -> Consumption | None:
    return decode_consumption([memoryview(frame) for frame in frames], "p", max_rows).body


@pytest.mark.parametrize(
    ("status", "expected"), [([1, 0, 1, 0], (4, 2)), ([1, 1], (2, 2)), ([0], (1, 0)), ([], (0, 0))]
)
def test_consumed_samples_are_counted(status: list[int], expected: tuple[int, int]) -> None:
    assert consumption(answer(status)) == expected


def test_there_is_no_such_partition() -> None:
    assert consumption(answer([], global_index=None, consumption_status=None)[:1]) is None


def test_another_partition_is_refused() -> None:
    with pytest.raises(DataPlaneReadError, match="another partition"):
        consumption(answer([1], partition="q"))


def test_a_partition_with_too_many_samples_is_refused() -> None:
    with pytest.raises(ReplyLimitExceeded, match="5 samples, the limit is 4"):
        consumption(answer([0] * 5), max_rows=4)


@pytest.mark.parametrize(
    "frames",
    [
        answer([1, 0])[:2],
        [*answer([1, 0]), b""],
        [*answer([1, 0])[:2], b"\1"],
        [*answer([1, 0])[:2], b"\1\2"],
        answer([1, 0], consumption_status=msgspec.msgpack.Ext(1, POISON)),
        answer([1, 0], global_index=msgspec.msgpack.Ext(4, POISON)),
        answer([1, 0], consumption_status=None),
    ],
    ids=["a frame less", "a frame more", "other sizes", "other values", "a pickle", "another tensor", "half"],
)
def test_what_only_a_pickle_could_explain_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(DataPlaneReadError, match="never loads pickles"):
        consumption(frames)


@pytest.mark.parametrize(
    "frames",
    [reply("CONSUMPTION_RESPONSE", {}), reply("KV_LIST_RESPONSE", {}), [b""], answer([1], consumption_status=[1])],
)
def test_what_is_not_understood_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(DataPlaneReadError, match="not understood"):
        consumption(frames)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.integers(0, 3))
def test_any_frames_are_figures_or_a_read_error(noise: list[bytes], place: int) -> None:
    frames = answer([1, 0, 1])
    for candidate in (noise, [*frames[:place], *noise, *frames[place:]]):
        try:
            found = consumption(candidate)
        except DataPlaneReadError:
            continue
        assert found is None or 0 <= found.consumed <= found.samples


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with FakeRouter(lambda request: answer([1, 1, 0], request["body"]["partition_id"])) as router:
        yield router


def test_a_reader_asks_for_exactly_one_task(router: FakeRouter) -> None:
    reader = WireMetadataReader(router.address, controller_id=CONTROLLER_ID)
    assert reader.consumption("p", "train") == Consumption(3, 2)
    assert [(one["request_type"], one["body"]) for one in router.requests] == [
        ("GET_CONSUMPTION", {"partition_id": "p", "task_name": "train"})
    ]
    assert reader.controller_seconds > 0
    router.answer = lambda request: reply("REQUEST_ERROR", {"message": "boom"})
    with pytest.raises(DataPlaneReadError, match="refused: boom") as caught:
        reader.consumption("p", "train")
    assert (caught.value.operation, caught.value.partition_id) == ("get_consumption", "p")
    reader.close()
