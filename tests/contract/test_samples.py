"""The contract of every client on rows by key: write, read, clear, pop and evict."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from dataplane.errors import DataPlaneBadRequest, DataPlaneNotReady
from dataplane.interfaces import DataPlaneClient, KVBatchMeta
from tests.contract.rows import rows, values


def test_what_was_written_is_read_in_the_order_asked_for(client: DataPlaneClient) -> None:
    put = client.put_samples(["a", "b", "c"], "p", rows(3, "tokens", "mask"), [{"n": 1}, {"n": 2}, {"n": 3}])
    assert (put.partition_id, put.sample_ids, put.fields) == ("p", ["a", "b", "c"], ["mask", "tokens"])
    assert put.tags == [{"n": 1}, {"n": 2}, {"n": 3}]

    data = client.get_samples(["c", "a"], "p", ["tokens"])

    assert list(data.keys()) == ["tokens"]
    assert values(data) == [[2, 2, 2], [0, 0, 0]]


def test_ragged_scalar_and_non_tensor_fields(client: DataPlaneClient) -> None:
    ragged = torch.nested.nested_tensor([torch.arange(2), torch.arange(3)], layout=torch.jagged)
    fields = TensorDict(
        {"ragged": ragged, "reward": torch.tensor([0.5, 1.5]), "text": NonTensorStack("x", "y")}, batch_size=[2]
    )
    client.put_samples(["a", "b"], "p", fields)

    data = client.get_samples(["b", "a"], "p", ["ragged", "reward", "text"])

    assert data.batch_size == torch.Size([2])
    assert values(data, "ragged") == [[0, 1, 2], [0, 1]]
    assert data["reward"].tolist() == [1.5, 0.5]
    assert list(data["text"]) == ["y", "x"]


def test_rows_of_equal_shape_come_back_dense_however_they_were_written(client: DataPlaneClient) -> None:
    nested = torch.nested.nested_tensor([torch.arange(2), torch.arange(3), torch.arange(3)], layout=torch.jagged)
    matrix = torch.arange(18).reshape(3, 3, 2)
    fields = TensorDict({"nested": nested, "one": torch.ones(3, 1), "matrix": matrix}, batch_size=[3])
    client.put_samples(["a", "b", "c"], "p", fields)
    data = client.get_samples(["c", "b"], "p", ["nested", "one", "matrix"])
    assert torch.equal(data["nested"], torch.tensor([[0, 1, 2], [0, 1, 2]]))
    assert torch.equal(data["one"], torch.ones(2, 1))
    assert torch.equal(data["matrix"], matrix[[2, 1]])
    assert client.get_samples(["a", "b"], "p", ["nested"])["nested"].is_nested
    assert torch.equal(client.get_samples(["a"], "p", ["nested"])["nested"], torch.tensor([[0, 1]]))


def test_rows_that_are_ragged_in_a_later_dimension(client: DataPlaneClient) -> None:
    ragged = torch.nested.as_nested_tensor([torch.zeros(2, 3), torch.ones(4, 5)], layout=torch.strided)
    client.put_samples(["a", "b"], "p", TensorDict({"ragged": ragged}, batch_size=[2]))
    data = client.get_samples(["b", "a"], "p", ["ragged"])["ragged"]
    assert data.is_nested
    assert [tuple(row.shape) for row in data.unbind()] == [(4, 5), (2, 3)]


def test_a_tensor_of_a_graph_is_stored_without_it(client: DataPlaneClient) -> None:
    logprobs = torch.ones(2, 3, requires_grad=True) * 2
    client.put_samples(["a", "b"], "p", TensorDict({"logprobs": logprobs}, batch_size=[2]))
    data = client.get_samples(["a", "b"], "p", ["logprobs"])["logprobs"]
    assert (data.requires_grad, data.tolist()) == (False, [[2.0] * 3] * 2)


def test_an_array_of_objects_is_one_object_per_row(client: DataPlaneClient) -> None:
    objects = np.empty(2, dtype=object)
    objects[:] = [{"role": "user"}, [1, 2, 3]]
    client.put_samples(["a", "b"], "p", TensorDict({"log": objects}, batch_size=[2]))
    assert list(client.get_samples(["b", "a"], "p", ["log"])["log"]) == [[1, 2, 3], {"role": "user"}]


_UNSTORABLE: dict[str, Callable[[], Any]] = {
    "one object for all rows": lambda: NonTensorData("hello"),
    "an array of another length": lambda: np.array(["a", "b", "c"], dtype=object),
    "a nested TensorDict": lambda: TensorDict({"x": torch.arange(2)}, batch_size=[2]),
    "an object that cannot be copied": lambda: NonTensorStack("x", threading.Lock()),
}


@pytest.mark.parametrize("name", _UNSTORABLE)
def test_a_leaf_that_cannot_be_stored_is_a_type_error(client: DataPlaneClient, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        client.put_samples(["a", "b"], "p", TensorDict({"leaf": _UNSTORABLE[name]()}, batch_size=[2]))
    error = caught.value
    assert isinstance(error, DataPlaneBadRequest)
    assert (error.operation, error.partition_id) == ("put_samples", "p")
    if name != "an object that cannot be copied":  # on TransferQueue its keys stay, as after any put that fails late
        assert "non-tensor leaf 'leaf'" in str(error)
        assert client.list_partitions() == []


def test_no_samples_are_an_empty_result(client: DataPlaneClient) -> None:
    for fields, tags in ((None, None), (rows(2)[:0], None), (None, []), (rows(2)[:0], [])):
        put = client.put_samples([], "p", fields, tags)
        assert (put.partition_id, put.sample_ids, put.size) == ("p", [], 0)
    for read in (client.get_samples([], "p", ["tokens"]), client.get_data(KVBatchMeta("p", "t", []), ["tokens"])):
        assert (read.batch_size, list(read.keys())) == (torch.Size([0]), [])
    assert client.list_partitions() == []


def test_the_keys_of_a_partition_are_listed_in_order(client: DataPlaneClient) -> None:
    client.put_samples(["b_g0", "a_g1", "a_g0"], "p", rows(3))
    client.put_samples(["__schema__:x"], "p", tags=[{}])
    assert client.list_sample_ids("p") == ["__schema__:x", "a_g0", "a_g1", "b_g0"]
    assert client.list_sample_ids("nowhere") == []
    assert client.claim_meta("p", "train", ["tokens"], 3, blocking=False).size == 3


def test_later_fields_and_tags_are_merged_into_the_row(client: DataPlaneClient) -> None:
    client.put_samples(["a"], "p", rows(1, "prompt"), [{"weight_version": 1, "kept": True}])
    client.put_samples(["a"], "p", rows(1, "answer"))
    put = client.put_samples(["a"], "p", tags=[{"weight_version": 2}])
    assert put.tags == [{"weight_version": 2, "kept": True}]
    assert client.list_metadata("p")[0].weight_version == 2
    assert set(client.get_samples(["a"], "p", ["prompt", "answer"]).keys()) == {"prompt", "answer"}


def test_the_caller_may_reuse_what_it_wrote(client: DataPlaneClient) -> None:
    fields, tag = rows(1), {"weight_version": 1}
    client.put_samples(["a"], "p", fields, [tag])
    fields["tokens"].fill_(9)
    tag["weight_version"] = 9
    assert values(client.get_samples(["a"], "p", ["tokens"])) == [[0, 0, 0]]
    assert client.list_metadata("p")[0].weight_version == 1


def test_one_unknown_key_fails_the_read_and_is_named(client: DataPlaneClient) -> None:
    client.put_samples(["a", "b"], "p", rows(2))
    with pytest.raises(DataPlaneBadRequest, match="lost-key") as caught:
        client.get_samples(["a", "lost-key", "b"], "p", ["tokens"])
    assert isinstance(caught.value, KeyError)
    assert (caught.value.operation, caught.value.partition_id) == ("get_samples", "p")


@pytest.mark.parametrize("partition_id", ["p", "nowhere"])
def test_only_unknown_keys_fail_the_read_and_are_named(client: DataPlaneClient, partition_id: str) -> None:
    client.put_samples(["a"], "p", rows(1))
    with pytest.raises(DataPlaneBadRequest, match="lost-key") as caught:
        client.get_samples(["lost-key"], partition_id, ["tokens"])
    assert isinstance(caught.value, KeyError)
    assert (caught.value.operation, caught.value.partition_id) == ("get_samples", partition_id)


def test_an_unknown_field_fails_the_read_and_is_named(client: DataPlaneClient) -> None:
    client.put_samples(["a"], "p", rows(1))
    with pytest.raises(DataPlaneBadRequest, match="misspelt") as caught:
        client.get_samples(["a"], "p", ["tokens", "misspelt"])
    assert isinstance(caught.value, KeyError)


def test_a_registered_field_that_nobody_wrote_is_not_ready(client: DataPlaneClient) -> None:
    client.register_partition("p", ["tokens", "reward"], 1, ["train"])
    client.put_samples(["a"], "p", rows(1))
    with pytest.raises(DataPlaneNotReady, match="reward") as caught:
        client.get_samples(["a"], "p", ["tokens", "reward"])
    assert isinstance(caught.value, KeyError)


def test_a_field_that_only_other_rows_have_is_not_ready(client: DataPlaneClient) -> None:
    client.put_samples(["a"], "p", rows(1, "tokens", "reward"))
    client.put_samples(["b"], "p", rows(1))
    with pytest.raises(DataPlaneNotReady, match="reward"):
        client.get_samples(["a", "b"], "p", ["tokens", "reward"])


def test_a_field_that_the_partition_was_registered_without_is_unknown(client: DataPlaneClient) -> None:
    client.register_partition("p", ["tokens"], 1, ["train"])
    client.put_samples(["a"], "p", rows(1))
    with pytest.raises(DataPlaneBadRequest, match="misspelt"):
        client.get_samples(["a"], "p", ["misspelt"])


def test_a_row_of_tags_alone_is_not_ready(client: DataPlaneClient) -> None:
    client.put_samples(["a"], "p", rows(1))
    client.put_samples(["b"], "p", tags=[{"weight_version": 1}])
    with pytest.raises(DataPlaneNotReady):
        client.get_samples(["b"], "p", ["tokens"])


@pytest.mark.parametrize("remove", ["clear_samples", "pop", "evict"])
def test_removed_rows_are_gone_and_the_others_stay(client: DataPlaneClient, remove: str) -> None:
    client.put_samples(["a", "b", "c"], "p", rows(3), [{}, {}, {}])
    getattr(client, remove)(["a", "c", "never-written"], "p")
    assert [group.keys for group in client.list_metadata("p")] == [["b"]]
    assert values(client.get_samples(["b"], "p", ["tokens"])) == [[1, 1, 1]]
    with pytest.raises(DataPlaneBadRequest):
        client.get_samples(["a"], "p", ["tokens"])


def test_clear_of_none_empties_the_partition_and_keeps_it(client: DataPlaneClient) -> None:
    client.put_samples(["a", "b"], "p", rows(2))
    client.put_samples(["a"], "q", rows(1))
    client.clear_samples(None, "p")
    assert client.list_metadata("p") == []
    assert len(client.list_metadata("q")) == 1
    assert client.list_partitions() == ["p", "q"]


@pytest.mark.parametrize("keys", [None, [], ["a"]])
def test_clearing_what_is_not_there_is_no_error(client: DataPlaneClient, keys: list[str] | None) -> None:
    client.clear_samples(keys, "nowhere")
    assert client.list_partitions() == []


def test_a_cleared_key_can_be_written_anew(client: DataPlaneClient) -> None:
    client.put_samples(["a"], "p", rows(1), [{"weight_version": 1, "old": True}])
    client.clear_samples(["a"], "p")
    put = client.put_samples(["a"], "p", rows(1), [{"weight_version": 2}])
    assert put.tags == [{"weight_version": 2}]


def test_a_tag_that_cannot_be_copied_is_a_bad_request(client: DataPlaneClient) -> None:
    with pytest.raises(TypeError) as caught:
        client.put_samples(["a"], "p", tags=[{"lock": threading.Lock()}])
    assert isinstance(caught.value, DataPlaneBadRequest)
    assert (caught.value.operation, caught.value.partition_id) == ("put_samples", "p")


@pytest.mark.parametrize("remove", ["pop", "evict"])
def test_a_failed_removal_names_the_method_that_was_called(client: DataPlaneClient, remove: str) -> None:
    with pytest.raises(DataPlaneBadRequest) as caught:
        getattr(client, remove)("a", "p")
    assert (caught.value.operation, caught.value.partition_id) == (remove, "p")


Call = Callable[[DataPlaneClient], Any]
_BAD: dict[str, Call] = {
    "keys as a str": lambda c: c.put_samples("ab", "p", rows(2)),  # type: ignore[arg-type]
    "keys that are no str": lambda c: c.put_samples(["a", 1], "p", rows(2)),  # type: ignore[list-item]
    "tags without keys": lambda c: c.put_samples([], "p", tags=[{}]),
    "a key twice": lambda c: c.put_samples(["a", "a"], "p", rows(2)),
    "neither fields nor tags": lambda c: c.put_samples(["a"], "p"),
    "fields as a dict": lambda c: c.put_samples(["a"], "p", {"tokens": torch.zeros(1)}),
    "too few rows": lambda c: c.put_samples(["a", "b"], "p", rows(1)),
    "fields of no batch": lambda c: c.put_samples(["a"], "p", TensorDict({}, batch_size=[])),
    "too few tags": lambda c: c.put_samples(["a", "b"], "p", tags=[{}]),
    "a tag that is None": lambda c: c.put_samples(["a"], "p", tags=[None]),  # type: ignore[list-item]
    "a partition that is no str": lambda c: c.put_samples(["a"], 7, rows(1)),  # type: ignore[arg-type]
    "neither keys nor fields to read": lambda c: c.get_samples([], "p", []),
    "no fields to read": lambda c: c.get_samples(["a"], "p", []),
    "fields None": lambda c: c.get_samples(["a"], "p", None),  # type: ignore[arg-type]
    "fields as a str": lambda c: c.get_samples(["a"], "p", "tokens"),  # type: ignore[arg-type]
    "keys to clear as a str": lambda c: c.clear_samples("a", "p"),  # type: ignore[arg-type]
    "a partition to list that is None": lambda c: c.list_metadata(None),  # type: ignore[arg-type]
    "a partition that is None, for its keys": lambda c: c.list_sample_ids(None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", _BAD)
def test_a_wrong_argument_is_a_bad_request_and_writes_nothing(client: DataPlaneClient, name: str) -> None:
    with pytest.raises(DataPlaneBadRequest) as caught:
        _BAD[name](client)
    assert isinstance(caught.value, ValueError)
    assert caught.value.operation in {"put_samples", "get_samples", "clear_samples", "list_metadata", "list_sample_ids"}
    assert client.list_partitions() == []
