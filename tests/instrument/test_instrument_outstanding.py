"""The outstanding keys in the snapshot: this process's own puts minus its own clears."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
        assert outstanding._puts.keys <= 1000 + 10 * 64
    assert outstanding._puts.keys >= 1000
    assert len(list(outstanding._puts.drain())) <= 100 + 64
    assert 1000 <= outstanding.figures()["peak_bytes_outstanding"] <= 1000 + 2 * 10 * 64


class _Joined(list[object]):
    """A list that another thread extends between the copy and the removal of its content."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        if len(self) == 3:
            self.extend(("train", ("late",), 5))
        return part


def test_a_put_while_the_puts_before_are_settled_is_not_lost() -> None:
    outstanding = Outstanding()
    outstanding.put("train", ("a",), 7)
    outstanding._puts._noted = _Joined(outstanding._puts._noted)
    assert outstanding.figures()["bytes_outstanding"] == 7
    assert outstanding.figures() == {"bytes_outstanding": 12, "peak_bytes_outstanding": 12, "n_keys_outstanding": 2}


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
