"""Claims of every client: each sample once per task, only ready samples, within a deadline."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import pytest

from dataplane.errors import DataPlaneBadRequest, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.interfaces import DataPlaneClient, KVBatchMeta
from tests.contract.rows import rows, values


def test_each_sample_is_claimed_once_per_task(client: DataPlaneClient) -> None:
    client.register_partition("p", ["tokens"], 4, ["train", "score"])
    client.put_samples(["a", "b", "c"], "p", rows(3), [{"n": 0}, {"n": 1}, {"n": 2}])

    first = client.claim_meta("p", "train", ["tokens"], 2)
    second = client.claim_meta("p", "train", ["tokens"], 1)

    assert (first.task_name, first.fields, first.size, second.size) == ("train", ["tokens"], 2, 1)
    tag_of = dict(zip(first.sample_ids + second.sample_ids, (first.tags or []) + (second.tags or []), strict=True))
    assert tag_of == {"a": {"n": 0}, "b": {"n": 1}, "c": {"n": 2}}
    assert sorted(client.claim_meta("p", "score", ["tokens"], 3).sample_ids) == ["a", "b", "c"]


def test_claimed_data_is_read_through_the_batch(client: DataPlaneClient) -> None:
    client.put_samples(["a", "b"], "p", rows(2, "tokens", "reward"))
    batch = client.claim_meta("p", "train", ["tokens", "reward"], 2)
    assert sorted(values(client.get_data(batch))) == [[0, 0, 0], [1, 1, 1]]
    assert set(client.get_data(batch).keys()) == {"tokens", "reward"}
    assert list(client.get_data(batch, ["reward"]).keys()) == ["reward"]


def test_the_lengths_of_claimed_samples_come_from_their_tags(client: DataPlaneClient) -> None:
    client.put_samples(["a", "b"], "p", rows(2), [{"input_lengths": 7}, {}])
    batch = client.claim_meta("p", "train", ["tokens"], 2)
    assert dict(zip(batch.sample_ids, batch.sequence_lengths or [], strict=True)) == {"a": 7, "b": 0}
    client.put_samples(["c"], "p", rows(1), [{"n": 1}])
    assert client.claim_meta("p", "train", ["tokens"], 1).sequence_lengths is None


@pytest.mark.parametrize("fields", [None, []])
def test_a_batch_without_fields_reads_nothing_by_default(client: DataPlaneClient, fields: list[str] | None) -> None:
    client.put_samples(["a"], "p", rows(1))
    with pytest.raises(DataPlaneBadRequest) as caught:
        client.get_data(KVBatchMeta("p", "train", ["a"], fields))
    assert caught.value.operation == "get_data"


def test_only_rows_with_all_the_fields_are_claimed(client: DataPlaneClient) -> None:
    client.put_samples(["a"], "p", rows(1))
    client.put_samples(["b"], "p", rows(1, "tokens", "reward"))
    client.put_samples(["c"], "p", tags=[{}])
    assert client.claim_meta("p", "train", ["tokens", "reward"], 1, blocking=False).sample_ids == ["b"]
    assert client.claim_meta("p", "train", ["tokens", "reward"], 1, blocking=False).size == 0


@pytest.mark.parametrize("partition_id", ["p", "nowhere"])
def test_a_claim_that_does_not_wait_is_empty_and_takes_nothing(client: DataPlaneClient, partition_id: str) -> None:
    client.put_samples(["a"], "p", rows(1))
    empty = client.claim_meta(partition_id, "train", ["tokens"], 2, blocking=False)
    assert (empty.size, empty.partition_id, empty.task_name) == (0, partition_id, "train")
    assert client.claim_meta("p", "train", ["tokens"], 1, blocking=False).sample_ids == ["a"]


def test_a_claim_past_its_deadline_is_a_timeout(client: DataPlaneClient) -> None:
    client.put_samples(["a"], "p", rows(1))
    with pytest.raises(DataPlaneTimeout, match="train") as caught:
        client.claim_meta("p", "train", ["tokens"], 2, timeout_s=0.1)
    assert (caught.value.operation, caught.value.partition_id) == ("claim_meta", "p")


def test_a_waiting_claim_gets_what_another_thread_writes(client: DataPlaneClient) -> None:
    claimed: list[KVBatchMeta] = []
    waiter = threading.Thread(target=lambda: claimed.append(client.claim_meta("p", "train", ["tokens"], 2)))
    waiter.start()
    client.put_samples(["a"], "p", rows(1))
    client.put_samples(["b"], "p", rows(1))
    waiter.join(timeout=30)
    assert [sorted(batch.sample_ids) for batch in claimed] == [["a", "b"]]


def test_closing_ends_a_waiting_claim(client: DataPlaneClient) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            client.claim_meta("p", "train", ["tokens"], 1)
        except DataPlaneUnavailable as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.05)
    client.close()
    waiter.join(timeout=30)
    assert len(errors) == 1


def test_concurrent_claims_share_the_samples_without_overlap(client: DataPlaneClient) -> None:
    client.put_samples([f"k{i}" for i in range(40)], "p", rows(40))
    claimed: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        while (batch := client.claim_meta("p", "train", ["tokens"], 2, blocking=False)).size:
            with lock:
                claimed.extend(batch.sample_ids)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert sorted(claimed) == sorted(f"k{i}" for i in range(40))


def test_consumption_is_complete_when_every_task_has_everything(client: DataPlaneClient) -> None:
    assert not client.check_consumption_status("nowhere", ["train"])
    client.register_partition("p", ["tokens"], 2, ["train", "score"])
    assert not client.check_consumption_status("p", ["train"])
    client.put_samples(["a", "b"], "p", rows(2))
    client.claim_meta("p", "train", ["tokens"], 2)
    assert client.check_consumption_status("p", ["train"])
    assert not client.check_consumption_status("p", ["train", "score"])
    client.claim_meta("p", "score", ["tokens"], 2)
    assert client.check_consumption_status("p", ["train", "score"])
    client.put_samples(["c"], "p", rows(1))
    assert not client.check_consumption_status("p", ["train"])


def test_registering_twice_keeps_the_data(client: DataPlaneClient) -> None:
    for _ in range(2):
        client.register_partition("p", ["tokens"], 2, ["train"], grpo_group_size=2, enums={"kind": ["a", "b"]})
        client.put_samples(["a"], "p", rows(1), [{}])
    assert client.list_partitions() == ["p"]
    assert [group.keys for group in client.list_metadata("p")] == [["a"]]


@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_may_claim(client: DataPlaneClient, rank: int) -> None:
    client.put_samples(["a", "b"], "p", rows(2))
    claims = [client.claim_meta("p", "train", ["tokens"], 1, dp_rank=rank).sample_ids for _ in range(2)]
    assert sorted(claims) == [["a"], ["b"]]


@pytest.mark.parametrize(
    "arguments",
    [("p", "train", [], 1), ("p", "train", "tokens", 1), ("p", None, ["tokens"], 1), ("p", "train", ["tokens"], 0)],
    ids=repr,
)
def test_a_wrong_claim_is_a_bad_request(client: DataPlaneClient, arguments: tuple[Any, Any, Any, int]) -> None:
    with pytest.raises(DataPlaneBadRequest):
        client.claim_meta(*arguments, blocking=False)


@pytest.mark.parametrize("tasks", [[], "train", None], ids=repr)
def test_wrong_tasks_are_a_bad_request(client: DataPlaneClient, tasks: object) -> None:
    with pytest.raises(DataPlaneBadRequest):
        client.check_consumption_status("p", tasks)  # type: ignore[arg-type]


@pytest.mark.parametrize("tasks", ["train", None, [1]], ids=repr)
def test_a_registration_with_wrong_tasks_is_a_bad_request_and_registers_nothing(
    client: DataPlaneClient, tasks: object
) -> None:
    with pytest.raises(DataPlaneBadRequest, match="consumer_tasks") as caught:
        client.register_partition("p", ["tokens"], 1, tasks)  # type: ignore[arg-type]
    assert (caught.value.operation, caught.value.partition_id) == ("register_partition", "p")
    assert client.list_partitions() == []


def test_a_claim_may_wait_forever(client: DataPlaneClient) -> None:
    claimed: list[KVBatchMeta] = []
    waiter = threading.Thread(
        target=lambda: claimed.append(client.claim_meta("p", "train", ["tokens"], 1, timeout_s=math.inf))
    )
    waiter.start()
    time.sleep(0.05)
    client.put_samples(["a"], "p", rows(1))
    waiter.join(timeout=30)
    assert [batch.sample_ids for batch in claimed] == [["a"]]
