"""Deadlines and order: a peer that is late, silent, replaced, refuses or sends garbage."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from dataplane.adapters.wire import KnownSender, ReplyLimitExceeded, WireMetadataReader
from dataplane.adapters.wire import connection as _wire_connection
from dataplane.adapters.wire.kept import Kept
from dataplane.adapters.wire.storage import StorageUnitMetrics, StorageUnitReader, UnitRequests
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
)
from dataplane.interfaces import MetadataReader, TagRules
from tests.support.fake_router import CONTROLLER_ID, FakeRouter, reply
from tests.support.waiting import wait_until


def answer(request: dict[str, Any]) -> Sequence[bytes]:
    """Answers of a healthy controller with one row."""
    if request["request_type"] == "GET_LIST_PARTITIONS":
        return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["train"]})
    rows = {"u_g0": {"weight_version": 3}}
    return reply("KV_LIST_RESPONSE", {"partition_info": {request["body"]["partition_id"]: rows}, "message": "success"})


def silence(request: dict[str, Any]) -> None:
    return None


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with FakeRouter(answer) as fake:
        yield fake


@pytest.fixture
def connect(router: FakeRouter) -> Iterator[Callable[..., WireMetadataReader]]:
    readers: list[WireMetadataReader] = []

    def build(**options: Any) -> WireMetadataReader:
        readers.append(WireMetadataReader(router.address, **{"timeout_s": 5.0, **options}))
        return readers[-1]

    yield build
    for reader in readers:
        reader.close()


Connect = Callable[..., WireMetadataReader]


def test_reads(connect: Connect) -> None:
    reader = connect()
    assert isinstance(reader, MetadataReader)
    assert reader.ping() > 0
    assert reader.list_partitions() == ["train"]
    assert [(group.group_id, group.weight_version) for group in reader.list_metadata("train")] == [("u", 3)]
    assert reader.depth("train") == 1
    assert reader.last_sender_id == CONTROLLER_ID
    assert reader.controller_seconds > 0


def test_the_next_comparison_is_prepared_while_the_controller_works(
    router: FakeRouter, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = threading.Event()
    prepare = Kept.prepare

    def note(kept: Kept) -> None:
        prepare(kept)
        prepared.set()

    def wait(request: dict[str, Any]) -> Sequence[bytes] | None:
        return answer(request) if prepared.wait(5.0) else None

    monkeypatch.setattr(Kept, "prepare", note)
    reader = connect()
    first = reader.list_metadata("train")
    assert not prepared.is_set()  # there was nothing to compare with
    router.answer = wait
    assert reader.list_metadata("train")[0] is first[0]


def test_rules_apply_by_partition(connect: Connect) -> None:
    reader = connect(rules={"train": TagRules("nemo-rl", group_size=2)}, default_rules=TagRules(group_size=3))
    assert reader.list_metadata("train")[0].expected_num_keys == 2
    assert reader.list_metadata("val")[0].expected_num_keys == 3


def test_a_deadline_is_positive(connect: Connect) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        connect(timeout_s=0)


def test_the_identity_is_recognisable_and_unique(router: FakeRouter, connect: Connect) -> None:
    connect().ping(), connect().ping()
    assert len(set(router.identities)) == 2
    assert all(identity.startswith(b"tq_exporter_") for identity in router.identities)
    for request, identity in zip(router.requests, router.identities, strict=True):
        assert identity.decode().startswith(request["sender_id"])


def test_silence_is_a_timeout(router: FakeRouter, connect: Connect) -> None:
    router.answer = silence
    with pytest.raises(DataPlaneTimeout, match=r"is connected and did not answer within 0\.05 s") as caught:
        connect(timeout_s=0.05).list_metadata("train")
    assert (caught.value.operation, caught.value.partition_id) == ("list_metadata", "train")


def test_a_silent_controller_gets_one_request_and_one_connection_however_often_it_is_asked(
    router: FakeRouter, connect: Connect
) -> None:
    router.answer = silence
    reader = connect(timeout_s=0.02)
    for _ in range(20):
        with pytest.raises(DataPlaneTimeout):
            reader.ping()
    assert len(router.requests) == 1


def test_a_late_reply_never_answers_the_next_request(router: FakeRouter, connect: Connect) -> None:
    router.answer = silence
    reader = connect(timeout_s=0.05)
    with pytest.raises(DataPlaneTimeout):
        reader.list_partitions()
    router.answer = answer
    router.send(0, reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["stale"]}))
    reader_of_now = connect(timeout_s=5.0)
    assert reader_of_now.list_partitions() == ["train"]
    assert reader.ping(timeout_s=5.0) > 0
    assert reader.list_partitions() == ["train"]


def test_a_late_reply_that_comes_while_waiting_makes_room_for_the_next_request(
    router: FakeRouter, connect: Connect
) -> None:
    router.answer = silence
    reader = connect(timeout_s=0.05)
    with pytest.raises(DataPlaneTimeout):
        reader.list_partitions()
    router.answer = answer
    later = threading.Timer(0.1, lambda: router.send(0, reply("KV_LIST_RESPONSE", {})))
    later.start()
    assert reader.ping(timeout_s=10.0) > 0
    later.join()


def test_an_unanswered_request_is_given_up_some_day(
    router: FakeRouter, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.answer = silence
    reader = connect(timeout_s=0.05)
    with pytest.raises(DataPlaneTimeout):
        reader.ping()
    router.answer = answer
    monkeypatch.setattr(_wire_connection, "_ABANDON_AFTER_S", 0.0)
    assert reader.ping(timeout_s=5.0) > 0


def test_an_unanswered_request_counts_no_controller_time(router: FakeRouter, connect: Connect) -> None:
    router.answer = silence
    reader = connect(timeout_s=0.02)
    with pytest.raises(DataPlaneTimeout):
        reader.ping()
    assert reader.controller_seconds == 0.0


def test_the_expected_controller_answers(connect: Connect) -> None:
    assert connect(controller_id=CONTROLLER_ID).list_partitions() == ["train"]


def test_another_controller_at_the_address_is_unavailable(connect: Connect) -> None:
    reader = connect(controller_id="TQ_CONTROLLER_old")
    for _ in range(2):
        with pytest.raises(DataPlaneUnavailable, match=f"{CONTROLLER_ID}.*TQ_CONTROLLER_old"):
            reader.ping()
    assert reader.last_sender_id == CONTROLLER_ID


def test_a_controller_that_takes_over_the_id_of_a_checkpoint_is_the_same_on_its_connection(
    router: FakeRouter, connect: Connect
) -> None:
    sender = KnownSender(CONTROLLER_ID)
    reader, other = connect(controller_id=sender), connect(controller_id=sender)
    reader.ping()
    router.answer = lambda request: reply(
        "LIST_PARTITIONS_RESPONSE", {"partition_ids": ["train"]}, "TQ_CONTROLLER_saved"
    )
    assert reader.list_partitions() == ["train"]
    assert (reader.last_sender_id, sender.id) == ("TQ_CONTROLLER_saved", "TQ_CONTROLLER_saved")
    assert other.list_partitions() == ["train"], "what one reader has learned holds for all of that controller"


def test_a_peer_that_was_not_met_yet_names_itself_once(router: FakeRouter, connect: Connect) -> None:
    sender = KnownSender("TQ_CONTROLLER_first", met=False)
    reader = connect(controller_id=sender)
    reader.ping()
    assert sender.id == CONTROLLER_ID
    router.answer = lambda request: reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": []}, "TQ_CONTROLLER_new")
    with pytest.raises(DataPlaneUnavailable, match="replaced the expected"):
        connect(controller_id=sender).ping()


def test_another_controller_on_a_new_connection_is_refused_also_after_an_answer(
    router: FakeRouter, connect: Connect
) -> None:
    reader = connect(controller_id=CONTROLLER_ID)
    reader.ping()
    router.close()
    with (
        FakeRouter(
            lambda request: reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": []}, "TQ_CONTROLLER_new"),
            router.address,
        ),
        pytest.raises(DataPlaneUnavailable, match="replaced the expected"),
    ):
        reader.ping()


def test_without_an_expected_controller_a_new_one_is_read_and_named(router: FakeRouter, connect: Connect) -> None:
    reader = connect()
    reader.ping()
    router.answer = lambda request: reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": []}, "TQ_CONTROLLER_new")
    assert reader.list_partitions() == []
    assert reader.last_sender_id == "TQ_CONTROLLER_new"


@pytest.mark.parametrize(
    "frames",
    [
        [b"garbage"],
        [b""],
        [b"\xc1\xfe\xed", b"cos\nsystem\n(S'false'\ntR."],
        reply("REQUEST_ERROR", {"message": "boom"}),
        reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["p"]}),
    ],
    ids=["garbage", "empty", "pickle", "error", "other type"],
)
def test_nonsense_is_a_read_error_and_the_next_call_is_well(
    router: FakeRouter, connect: Connect, frames: list[bytes]
) -> None:
    reader = connect()
    router.answer = lambda request: frames
    with pytest.raises(DataPlaneReadError) as caught:
        reader.list_metadata("train")
    assert (caught.value.operation, caught.value.partition_id) == ("list_metadata", "train")
    router.answer = answer
    assert reader.depth("train") == 1


def test_a_second_reply_to_one_request_answers_no_other(router: FakeRouter, connect: Connect) -> None:
    reader = connect()
    assert reader.list_partitions() == ["train"]
    router.send(0, reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["stale"]}))
    what = "a reply that nobody waits for"
    wait_until(lambda: (channel := reader._connection._channel) is not None and channel.socket.poll(1), what, 10.0)
    assert reader.list_partitions() == ["train"]
    assert reader.list_partitions() == ["train"]


def test_a_reply_over_the_limit_is_a_read_error(router: FakeRouter, connect: Connect) -> None:
    reader = connect(max_reply_bytes=10_000)
    router.answer = lambda request: reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["x" * 20_000]})
    with pytest.raises(ReplyLimitExceeded, match="larger than 10000 bytes"):
        reader.list_partitions()
    router.answer = answer
    assert reader.list_partitions() == ["train"]


def test_a_refused_connection_is_unavailable_long_before_the_deadline(router: FakeRouter, connect: Connect) -> None:
    reader = connect(timeout_s=600.0)
    router.close()
    for _ in range(3):
        with pytest.raises(DataPlaneUnavailable, match="gone"):
            reader.ping()


def test_a_connection_lost_while_waiting_is_unavailable_long_before_the_deadline(
    router: FakeRouter, connect: Connect
) -> None:
    router.answer = silence
    reader = connect(timeout_s=600.0)

    def close_after_a_request() -> None:
        wait_until(lambda: router.requests, "a request", 10.0)
        router.close()

    closer = threading.Thread(target=close_after_a_request)
    closer.start()
    with pytest.raises(DataPlaneUnavailable, match="gone"):
        reader.ping()
    closer.join()


def test_a_controller_that_comes_back_to_its_address_is_read_again(router: FakeRouter, connect: Connect) -> None:
    reader = connect()
    reader.ping()
    router.close()
    with pytest.raises(DataPlaneUnavailable):
        reader.ping()
    with FakeRouter(answer, router.address):
        assert reader.list_partitions() == ["train"]


def test_a_controller_that_was_replaced_between_calls_is_read_at_once(router: FakeRouter, connect: Connect) -> None:
    reader = connect()
    for _ in range(5):
        reader.ping()
        router.close()
        router = FakeRouter(answer, router.address)
        assert reader.list_partitions() == ["train"]
    router.close()


def test_a_request_lost_with_its_controller_is_not_waited_for(router: FakeRouter, connect: Connect) -> None:
    router.answer = silence
    reader = connect(timeout_s=0.05)
    with pytest.raises(DataPlaneTimeout):
        reader.ping()
    router.close()
    with FakeRouter(answer, router.address):
        assert reader.ping(timeout_s=5.0) > 0


def test_after_close_every_call_is_unavailable(connect: Connect) -> None:
    reader = connect()
    reader.ping()
    reader.close()
    reader.close()
    for call in (reader.ping, reader.list_partitions, lambda: reader.list_metadata("p"), lambda: reader.depth("p")):
        with pytest.raises(DataPlaneUnavailable, match="closed"):
            call()


def test_close_ends_a_waiting_call(router: FakeRouter, connect: Connect) -> None:
    router.answer = silence
    reader = connect(timeout_s=600.0)
    errors: list[DataPlaneError] = []

    def wait() -> None:
        try:
            reader.ping()
        except DataPlaneError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: router.requests, "a request", 10.0)
    reader.close()
    waiting.join()
    assert [type(error) for error in errors] == [DataPlaneUnavailable]


def test_a_call_waits_no_longer_than_its_deadline_for_another_thread(router: FakeRouter, connect: Connect) -> None:
    router.answer = silence
    reader = connect(timeout_s=600.0)

    def wait() -> None:
        with pytest.raises(DataPlaneUnavailable):
            reader.list_partitions()

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: router.requests, "a request", 10.0)
    with pytest.raises(DataPlaneTimeout, match="another call"):
        reader.ping(timeout_s=0.05)
    reader.close()
    waiting.join()


def test_threads_get_their_own_answers(router: FakeRouter, connect: Connect) -> None:
    def echo(request: dict[str, Any]) -> Sequence[bytes]:
        partition_id = request["body"]["partition_id"]
        rows = {f"{partition_id}_g0": {"weight_version": 1}}
        return reply("KV_LIST_RESPONSE", {"partition_info": {partition_id: rows}, "message": "success"})

    router.answer = echo
    reader = connect(timeout_s=60.0)
    wrong: list[str] = []

    def read(name: str) -> None:
        answers = (reader.list_metadata(name) for _ in range(50))
        wrong.extend(name for groups in answers if [group.group_id for group in groups] != [name])

    threads = [threading.Thread(target=read, args=(f"p{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_storage_unit_is_asked_as_a_metrics_collector(router: FakeRouter) -> None:
    router.answer = lambda request: reply(
        "METRICS_RESPONSE", {"capacity": None, "active_keys": 3, "process_rss_bytes": 0, "op_stats": {"x": 1}}, "unit"
    )
    reader = StorageUnitReader(router.address, unit_id="unit")
    # TransferQueue 0.1.8 and 0.1.9 report no more than this. What cannot be read is unknown, the rest is still used.
    assert reader.read() == StorageUnitMetrics(capacity=None, keys=3, memory_bytes=None)
    assert router.identities[0].startswith(b"metrics_collector_")
    assert router.requests[0]["request_type"] == "GET_METRICS"
    reader.close()
    with pytest.raises(DataPlaneUnavailable):
        reader.read()


UNIT = {"capacity": 10, "active_keys": 3, "process_rss_bytes": 5}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {
                "ssd_offload_enabled": 1,
                "ssd_active_bytes": 4096,
                "ssd_active_values": 8,
                "ssd_fallback_values_total": 2,
                "arrivals_by_op": {"PUT_DATA": 4, "GET_METRICS": 9},
                "op_stats": {
                    "PUT_DATA": {"request_count": 4.0, "latency_avg": 0.5, "latency_p50": 0.1, "latency_p99": 0.2},
                    "GET_DATA": {"request_count": 0.0, "latency_avg": 0, "latency_p50": 0, "latency_p99": 0},
                },
                "accept_queue": {"samples": 9, "peak_utilization": 0.25, "sk_drops_delta": 1, "backlog": 100},
            },
            StorageUnitMetrics(
                10,
                3,
                5,
                {
                    "PUT_DATA": UnitRequests(4, 4, 2.0),
                    "GET_METRICS": UnitRequests(9),
                    "GET_DATA": UnitRequests(None, 0, 0.0),
                },
                4096,
                8,
                2,
                0.25,
                1,
            ),
        ),
        (
            {"ssd_offload_enabled": 0, "ssd_active_bytes": 0, "ssd_active_values": 0, "ssd_fallback_values_total": 0},
            StorageUnitMetrics(10, 3, 5),
        ),
        (
            {"accept_queue": {"samples": 0, "peak_utilization": 0.0, "sk_drops_delta": 0}},
            StorageUnitMetrics(10, 3, 5),
        ),
        (
            {
                "arrivals_by_op": {"PUT_DATA": -1},
                "op_stats": {"PUT_DATA": {"request_count": float("inf"), "latency_avg": 1.0}},
                "accept_queue": {"samples": 1, "peak_utilization": float("nan"), "sk_drops_delta": 0},
            },
            StorageUnitMetrics(10, 3, 5),
        ),
    ],
    ids=["everything", "SSD off", "probe without a sample", "impossible"],
)
def test_all_that_a_storage_unit_reports(
    router: FakeRouter, body: dict[str, object], expected: StorageUnitMetrics
) -> None:
    router.answer = lambda request: reply("METRICS_RESPONSE", UNIT | body)
    reader = StorageUnitReader(router.address)
    assert reader.read() == expected
    reader.close()


@pytest.mark.parametrize(
    "frames",
    [reply("METRICS_RESPONSE", {"capacity": 1}), reply("PUT_GET_ERROR", {"message": "boom"})],
    ids=["no keys", "error"],
)
def test_a_storage_unit_that_says_something_else_is_a_read_error(router: FakeRouter, frames: list[bytes]) -> None:
    router.answer = lambda request: frames
    reader = StorageUnitReader(router.address)
    with pytest.raises(DataPlaneReadError) as caught:
        reader.read()
    assert caught.value.operation == "storage_metrics"
    reader.close()


def test_a_process_that_forgot_to_close_exits(router: FakeRouter) -> None:
    code = f"""
from dataplane.adapters.wire import KnownSender, ReplyLimitExceeded, WireMetadataReader
reader = WireMetadataReader({router.address!r})
reader.ping()
import sys
print([name for name in ("ray", "torch", "transfer_queue", "tensordict") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_reader_that_nobody_calls_while_its_peer_is_gone_holds_up_no_other_and_closes() -> None:
    # In a process of its own, since this looks for a deadlock. A thousand failed connects take 3 s here and hours in
    # production; each leaves two events that nobody reads.
    code = """
import time
from dataplane.adapters.wire import connection as _wire_connection
from dataplane.adapters.wire import KnownSender, WireMetadataReader
from tests.support.fake_router import FakeRouter
from tests.wire.test_connection import answer

_wire_connection._RECONNECT_MS = _wire_connection._RECONNECT_AT_MOST_MS = 1
gone, well = FakeRouter(answer), FakeRouter(answer)
forgotten, other = WireMetadataReader(gone.address, timeout_s=10.0), WireMetadataReader(well.address, timeout_s=10.0)
forgotten.ping()
gone.close()
time.sleep(3.0)
other.ping()
for reader in (forgotten, other):
    reader.close()
well.close()
print("closed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("closed", "")


def test_a_gone_peer_is_tried_again_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire_connection, "_RECONNECT_MS", 1)
    router = FakeRouter(answer)
    reader = WireMetadataReader(router.address, timeout_s=10.0)
    reader.ping()
    router.close()
    time.sleep(1.0)
    channel = reader._connection._channel
    assert channel is not None
    events = 0
    while channel.monitor.poll(0):
        channel.monitor.recv_multipart()
        events += 1
    assert 2 < events < 40  # 10 tries with doubled waits; with constant waits there would be hundreds
    reader.close()


@pytest.mark.parametrize("partition_id", [None, 7, object(), "\ud800"])
def test_a_partition_that_cannot_be_asked_for_is_the_callers_mistake(partition_id: Any) -> None:
    reader = WireMetadataReader("tcp://127.0.0.1:1", timeout_s=0.2)
    with pytest.raises(DataPlaneBadRequest):
        reader.list_metadata(partition_id)
    reader.close()


def test_a_deadline_in_the_past_is_over_at_once() -> None:
    reader = WireMetadataReader("tcp://127.0.0.1:1")
    with pytest.raises(DataPlaneError):
        reader.ping(timeout_s=-1.0)
    reader.close()
