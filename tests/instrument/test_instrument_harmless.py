"""Calls that telemetry could change by inspecting their arguments or results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import DataPlaneBadRequest
from dataplane.groups import DataPlaneGroupMeta
from dataplane.interfaces import KVBatchMeta
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import ScriptedClient


def test_a_put_of_nothing_is_refused_with_propagation_too(telemetry: Telemetry) -> None:
    inner = NoOpDataPlaneClient()
    client = telemetry.wrap(inner, propagate=True)
    with pytest.raises(DataPlaneBadRequest):
        client.put_samples(["a"], "train")
    assert inner.list_metadata("train") == []


def test_a_foreign_listing_that_can_be_read_once_is_left_to_its_caller(telemetry: Telemetry) -> None:
    def groups() -> Iterator[str]:
        yield from "abc"

    client = telemetry.wrap(ScriptedClient(list_metadata=groups()))
    assert list(client.list_metadata("train")) == ["a", "b", "c"]


def test_of_a_long_listing_the_newest_keys_are_remembered(telemetry: Telemetry) -> None:
    groups = [DataPlaneGroupMeta("train", f"g{n}", [f"k{n}"], n) for n in range(30_000)]
    client = telemetry.wrap(ScriptedClient(list_metadata=groups))
    client.list_metadata("train")
    client.pop(["k29999"], "train")
    client.pop(["k27000"], "train")
    assert sum(telemetry.points("dataplane.client.lineage.misses").values()) == 0


def test_a_payload_whose_bytes_cannot_be_counted_is_noted_all_the_same(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(put_samples=KVBatchMeta("train", None, ["a"])))
    sparse: Any = {"x": torch.eye(3).to_sparse()}
    client.put_samples(["a"], "train", fields=sparse)
    assert client.snapshot()["n_keys_outstanding"] == 1


@pytest.mark.parametrize("version", [2**70, -(2**60)])
def test_a_version_that_no_reader_could_read_is_not_published(version: int, telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient())
    with pytest.raises(DataPlaneBadRequest):
        client.publish_weight_version(version)
