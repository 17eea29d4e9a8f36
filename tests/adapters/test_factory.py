"""Building a client from a mapping: a wrong key or value is named before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane import build_data_plane_client
from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.adapters.transfer_queue.config import tq_conf


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        ({"enabled": False}, "enabled"),
        ({"impl": "redis"}, "impl must be one of transfer_queue, noop"),
        ({"backend": "disk"}, "backend must be one of simple, mooncake_cpu"),
        ({"storage_capacity": 0}, "storage_capacity"),
        ({"storage_capacity": "many"}, "storage_capacity"),
        ({"num_storage_units": True}, "num_storage_units"),
        ({"backend": "mooncake_cpu", "local_buffer_size": -1}, "local_buffer_size"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"claim_meta_poll_interval_s": "fast"}, "claim_meta_poll_interval_s"),
        ({"observability": "on"}, "observability"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else None,
)
def test_a_wrong_value_names_its_key(cfg: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_data_plane_client(cfg)


def test_noop() -> None:
    assert isinstance(build_data_plane_client({"enabled": True, "impl": "noop"}), NoOpDataPlaneClient)


def test_observability_wraps_the_client_and_calls_back() -> None:
    events: list[dict[str, Any]] = []
    client = build_data_plane_client({"impl": "noop", "observability": {"enabled": True, "callback": events.append}})
    client.put_samples(["a"], "p", tags=[{}])
    assert [(event["op"], event["status"]) for event in events] == [("put", "ok")]


def test_observability_that_is_off_wraps_nothing() -> None:
    cfg = {"impl": "noop", "observability": {"enabled": False, "callback": print}}
    assert isinstance(build_data_plane_client(cfg), NoOpDataPlaneClient)


def test_what_transfer_queue_is_told() -> None:
    assert tq_conf({"storage_capacity": 100, "num_storage_units": 4, "global_segment_size": 1}) == {
        "controller": {"polling_mode": True},
        "backend": {
            "storage_backend": "SimpleStorage",
            "SimpleStorage": {"total_storage_size": 100, "num_data_storage_units": 4},
        },
    }
    assert tq_conf({"backend": "mooncake_cpu", "global_segment_size": 2**30, "local_buffer_size": 2**20}) == {
        "controller": {"polling_mode": True},
        "backend": {
            "storage_backend": "MooncakeStore",
            "MooncakeStore": {"global_segment_size": 2**30, "local_buffer_size": 2**20},
        },
    }
