"""Invalid arguments: the call behaves as without instrumentation, and telemetry stays bounded."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from dataplane.interfaces import KVBatchMeta
from dataplane.observability.tally import partition_name
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import ScriptedClient


class _Hostile:
    """An object that raises when it is shown, hashed or compared."""

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


@pytest.mark.parametrize(
    ("partition", "name"),
    [
        ("train", "train"),
        (None, None),
        (7, "7"),
        (10**40, "<int>"),
        (True, "<bool>"),
        (["train"], "<list>"),
        ({"a": 1}, "<dict>"),
        (np.int64(3), "<int64>"),
        (np.array([1, 2]), "<ndarray>"),
        (np.str_("train"), "train"),
        (torch.tensor(3), "<Tensor>"),
        (_Hostile(), "<_Hostile>"),
        (type("T" * 300, (), {})(), f"<{'T' * 126}>"),
        ("x" * 1000, "x" * 127 + "…"),
        ("a\ud800b", "a?b"),
        ('a"\n{ü}', 'a"\n{ü}'),
        ("", ""),
    ],
)
def test_any_partition_reaches_the_client_and_has_a_bounded_name(
    partition: Any, name: str | None, telemetry: Telemetry
) -> None:
    inner = ScriptedClient(put_samples=None)
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(inner, events.append, propagate=True)
    client.put_samples(["a"], partition)
    assert inner.calls[0][1][1] is partition
    assert partition_name(partition) == events[0]["partition_id"] == name
    (key,) = telemetry.points("dataplane.client.keys")
    assert dict(key).get("partition") == name
    assert client.snapshot()["observer_failures"] == 0


def test_a_generator_of_keys_is_left_to_the_client(telemetry: Telemetry) -> None:
    class Inner:
        def put_samples(self, sample_ids: Any, partition_id: str, fields: Any = None, tags: Any = None) -> KVBatchMeta:
            return KVBatchMeta(partition_id, None, list(sample_ids))

        def get_samples(self, sample_ids: Any, partition_id: str, select_fields: Any) -> list[str]:
            return list(sample_ids)

    client = telemetry.wrap(Inner(), propagate=True)
    put, got = (cast("list[str]", (key for key in keys)) for keys in ("abc", "ab"))
    assert client.put_samples(put, "train").sample_ids == ["a", "b", "c"]
    assert client.get_samples(got, "train", ["x"]) == ["a", "b"]
    snapshot = client.snapshot()
    assert snapshot["ops"]["put"]["keys"] == snapshot["n_keys_outstanding"] == 3
    assert snapshot["observer_failures"] == 0


@pytest.mark.parametrize(
    ("keys", "n_keys"),
    [
        (["a", "b"], 2),
        (("a", "b"), 2),
        ({"a", "b"}, 2),
        ({"a": 1}.keys(), 1),
        ("abc", 1),
        (None, 0),
        ([], 0),
        (5, 0),
        ([1, 2, 3], 3),
        ([None, None], 2),
        ([["unhashable"]], 1),
        (["a", ["unhashable"]], 2),
        ([torch.zeros(2)], 1),
        ([_Hostile()], 1),
        (np.array(["a", "b"]), 2),
        (torch.zeros(3), 3),
        (torch.tensor(1), 0),
    ],
)
@pytest.mark.parametrize("operation", ["put_samples", "get_samples", "pop", "clear_samples"])
def test_any_keys_reach_the_client_and_are_counted_where_that_is_free(
    operation: str, keys: Any, n_keys: int, telemetry: Telemetry
) -> None:
    inner = ScriptedClient()
    events: list[dict[str, Any]] = []
    client = telemetry.wrap(inner, events.append)
    args = (keys, "train", ["x"]) if operation == "get_samples" else (keys, "train")
    getattr(client, operation)(*args)
    getattr(client, "pop")(keys, "train")  # noqa: B009  # settles what the put noted
    assert inner.calls[0][1][0] is keys
    assert events[0]["n_keys"] == n_keys
    assert client.snapshot()["observer_failures"] == 0


@pytest.mark.parametrize(
    ("tags", "versions"),
    [([{"weight_version": value}], 1) for value in ("3", np.int64(3), torch.tensor(3))]
    + [
        ([{"weight_version": value}], 0)
        for value in ("x", None, float("nan"), 10**30, torch.zeros(2), [1], _Hostile(), 2.5, True)
    ]
    + [(tags, 0) for tags in list[Any](([None], ["text"], [5], None, {}, [{}], [_Hostile()], "tags"))],
)
def test_any_tags_reach_the_client_and_numbers_are_versions(tags: Any, versions: int, telemetry: Telemetry) -> None:
    inner = ScriptedClient(claim_meta=KVBatchMeta("train", None, ["a"]))
    client = telemetry.wrap(inner)
    client.put_samples(["a"], "train", None, tags)
    client.pop(["a"], "train")
    assert inner.calls[0][1][3] is tags
    assert client.snapshot()["observer_failures"] == 0
    assert sum(point.count for point in telemetry.points("dataplane.client.consumed.lag").values()) == versions


def test_a_wrong_number_of_arguments_is_the_clients_error(telemetry: Telemetry, noop: Any) -> None:
    client: Any = telemetry.wrap(noop)
    with pytest.raises(TypeError, match="put_samples"):
        client.put_samples()
    with pytest.raises(TypeError, match="unexpected"):
        client.ping(unexpected=1)
    assert client.snapshot()["observer_failures"] == 0
