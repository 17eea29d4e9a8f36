"""The outstanding keys in the snapshot: this process's own puts minus its own clears."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.observability import MetricsDataPlaneClient
from dataplane.observability.outstanding import Outstanding


@pytest.fixture
def client(noop: NoOpDataPlaneClient) -> MetricsDataPlaneClient:
    return MetricsDataPlaneClient(noop)


def _put(client: MetricsDataPlaneClient, keys: list[str], columns: int = 1, partition: str = "train") -> None:
    client.put_samples(keys, partition, TensorDict({"x": torch.zeros(len(keys), columns)}, batch_size=[len(keys)]))


def _outstanding(client: MetricsDataPlaneClient) -> tuple[int, int, int]:
    snapshot = client.snapshot()
    assert snapshot["outstanding_scope"] == "this process"
    return snapshot["n_keys_outstanding"], snapshot["bytes_outstanding"], snapshot["peak_bytes_outstanding"]


def test_puts_add_and_clears_take_away(client: MetricsDataPlaneClient) -> None:
    _put(client, ["a", "b", "c", "d"])
    assert _outstanding(client) == (4, 16, 16)
    client.clear_samples(["a"], "train")
    client.pop(["b"], "train")
    client.evict(["c"], "train")
    assert _outstanding(client) == (1, 4, 16)
    client.clear_samples(["d", "unknown"], "train")
    assert _outstanding(client) == (0, 0, 16)


def test_clearing_a_partition_takes_all_of_it(client: MetricsDataPlaneClient) -> None:
    _put(client, ["a", "b"])
    _put(client, ["a"], partition="val")
    client.clear_samples(None, "train")
    assert _outstanding(client) == (1, 4, 12)


def test_a_second_field_of_a_key_is_no_second_key(client: MetricsDataPlaneClient) -> None:
    _put(client, ["a", "b"])
    _put(client, ["b", "c"], columns=2)
    assert _outstanding(client) == (3, 8 + 16, 24)
    client.pop(["b"], "train")
    assert _outstanding(client) == (2, 4 + 8, 24)


def test_a_published_version_is_not_outstanding(client: MetricsDataPlaneClient) -> None:
    client.publish_weight_version(3)
    assert _outstanding(client) == (0, 0, 0)


def test_what_only_others_clear_is_forgotten_at_the_limit() -> None:
    outstanding = Outstanding(limit=100)
    for i in range(100):
        outstanding.put("train", tuple(f"k{i}_{j}" for j in range(10)), 10)
    figures = outstanding.figures()
    assert 50 <= figures["n_keys_outstanding"] == figures["bytes_outstanding"] <= 100
    assert figures["peak_bytes_outstanding"] >= 100


def test_a_producer_that_nobody_asks_keeps_no_more_than_the_limit() -> None:
    outstanding = Outstanding(limit=1000)
    for i in range(1000):
        outstanding.put("train", tuple(f"k{i}_{j}" for j in range(10)), 10)
        assert outstanding._keys_noted + outstanding._n_keys() <= 1000
    figures = outstanding.figures()
    assert 900 <= figures["n_keys_outstanding"] == figures["bytes_outstanding"] <= 1000
    assert figures["peak_bytes_outstanding"] == 1010


def test_a_put_larger_than_the_limit_keeps_its_end() -> None:
    outstanding = Outstanding(limit=100)
    outstanding.put("train", tuple(range(250)), 250)
    assert outstanding.figures() == {"bytes_outstanding": 100, "peak_bytes_outstanding": 250, "n_keys_outstanding": 100}
    outstanding.clear("train", [0])
    assert outstanding.figures()["n_keys_outstanding"] == 100
    outstanding.clear("train", [249])
    assert outstanding.figures()["n_keys_outstanding"] == 99


def test_the_largest_partition_forgets_first() -> None:
    outstanding = Outstanding(limit=100)
    outstanding.put("val", ("v",), 1)
    for i in range(200):
        outstanding.put("train", (f"k{i}",), 1)
        outstanding.figures()
    outstanding.clear("train", None)
    assert outstanding.figures() == {"bytes_outstanding": 1, "peak_bytes_outstanding": 101, "n_keys_outstanding": 1}


def test_keys_that_cannot_be_hashed_count_nothing() -> None:
    outstanding = Outstanding()
    outstanding.put("train", ("a", ["b"]), 8)
    outstanding.put("train", ("c", "d"), 8)
    outstanding.clear("train", ["c", ["d"]])
    assert outstanding.figures() == {"bytes_outstanding": 4, "peak_bytes_outstanding": 8, "n_keys_outstanding": 1}


def test_a_partition_whose_keys_are_all_cleared_leaves_nothing_behind() -> None:
    outstanding = Outstanding()
    for step in range(10):
        outstanding.put(f"step_{step}", ("a",), 1)
        outstanding.clear(f"step_{step}", ["a"])
    outstanding.figures()
    assert outstanding._partitions == {}


@dataclass
class _Model:
    """A plain reference implementation: a dict per partition."""

    shares: dict[tuple[str, str], int] = field(default_factory=dict)
    peak: int = 0
    total: int = 0

    def put(self, partition: str, keys: tuple[str, ...], n_bytes: int) -> None:
        share, rest = divmod(n_bytes, len(keys))
        for i, key in enumerate(keys):
            self.shares[partition, key] = self.shares.get((partition, key), 0) + share + (rest if i == 0 else 0)
        self.total += n_bytes
        self.peak = max(self.peak, self.total)

    def clear(self, partition: str, keys: tuple[str, ...] | None) -> None:
        for known in list(self.shares):
            if known[0] == partition and (keys is None or known[1] in keys):
                self.total -= self.shares.pop(known)


_keys = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True).map(tuple)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["train", "val"]), _keys, st.integers(0, 100)),
        st.tuples(st.just("clear"), st.sampled_from(["train", "val"]), st.one_of(st.none(), _keys)),
        st.tuples(st.just("look")),
    ),
    max_size=40,
)


@given(_steps)
def test_it_is_exact_within_the_limit(steps: list[tuple[object, ...]]) -> None:
    outstanding, model = Outstanding(), _Model()
    for name, *arguments in steps:
        if name == "look":
            outstanding.figures()
        else:
            getattr(outstanding, str(name))(*arguments)
            getattr(model, str(name))(*arguments)
    assert outstanding.figures() == {
        "bytes_outstanding": model.total,
        "peak_bytes_outstanding": model.peak,
        "n_keys_outstanding": len(model.shares),
    }
