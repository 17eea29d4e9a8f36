"""After ``close`` every call of a client raises DataPlaneUnavailable, which names the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dataplane.errors import DataPlaneUnavailable
from dataplane.interfaces import DataPlaneClient, KVBatchMeta

_CALLS: dict[str, Callable[[DataPlaneClient], Any]] = {
    "register_partition": lambda c: c.register_partition("p", ["f"], 1, ["t"]),
    "claim_meta": lambda c: c.claim_meta("p", "t", ["f"], 1),
    "get_data": lambda c: c.get_data(KVBatchMeta("p", "t", ["a"], ["f"])),
    "check_consumption_status": lambda c: c.check_consumption_status("p", ["t"]),
    "put_samples": lambda c: c.put_samples(["a"], "p", tags=[{}]),
    "get_samples": lambda c: c.get_samples(["a"], "p", ["f"]),
    "list_sample_ids": lambda c: c.list_sample_ids("p"),
    "save_checkpoint": lambda c: c.save_checkpoint("/nowhere/checkpoint"),
    "clear_samples": lambda c: c.clear_samples(["a"], "p"),
    "ping": lambda c: c.ping(),
    "list_partitions": lambda c: c.list_partitions(),
    "list_metadata": lambda c: c.list_metadata("p"),
    "depth": lambda c: c.depth("p"),
    "pop": lambda c: c.pop(["a"], "p"),
    "evict": lambda c: c.evict(["a"], "p"),
}


def test_every_call_after_close_is_unavailable(client: DataPlaneClient) -> None:
    client.close()
    client.close()
    for operation, call in _CALLS.items():
        with pytest.raises(DataPlaneUnavailable) as caught:
            call(client)
        assert caught.value.operation == operation


@pytest.mark.parametrize("keys", [[], ["a"]])
def test_no_call_is_too_small_to_be_refused(client: DataPlaneClient, keys: list[str]) -> None:
    client.close()
    with pytest.raises(DataPlaneUnavailable):
        client.put_samples(keys, "p", tags=[{} for _ in keys])
    with pytest.raises(DataPlaneUnavailable):
        client.get_samples(keys, "p", ["f"])


def test_capabilities_outlive_the_connection(client: DataPlaneClient) -> None:
    before = client.get_capabilities()
    client.close()
    assert client.get_capabilities() == before
