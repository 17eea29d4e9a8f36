"""What the in-memory client promises beyond the contract suite."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import DataPlaneBadRequest, error_type
from dataplane.interfaces import TagRules
from tests.contract.rows import rows


def test_an_unknown_key_is_a_key_error_too() -> None:
    client = NoOpDataPlaneClient()
    client.put_samples(["a"], "p", rows(1))
    for keys, partition_id in ((["b"], "p"), (["a"], "nowhere")):
        with pytest.raises(KeyError) as caught:
            client.get_samples(keys, partition_id, ["tokens"])
        assert isinstance(caught.value, DataPlaneBadRequest)
        assert error_type(caught.value) == "DataPlaneBadRequest"
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (type(copy), str(copy)) == (type(caught.value), str(caught.value))


def test_rules_say_how_tags_are_read() -> None:
    client = NoOpDataPlaneClient(rules={"p": TagRules("recovery", 2)}, default_rules=TagRules("nemo-rl"))
    for partition_id in ("p", "q"):
        client.put_samples(["a_g0"], partition_id, tags=[{"weight_version": 1}])
    (pinned,), (default,) = client.list_metadata("p"), client.list_metadata("q")
    assert (pinned.group_id, pinned.state, pinned.expected_num_keys) == ("a_g0", "incomplete", 2)
    assert (default.group_id, default.state) == ("a", "ready")


def test_a_write_is_whole_or_not_at_all_and_a_clear_is_verified() -> None:
    client = NoOpDataPlaneClient()
    assert client.get_capabilities().supports_atomic_batch_put
    with pytest.raises(DataPlaneBadRequest):
        client.put_samples(["a", "b"], "p", rows(2), [{}])
    with pytest.raises(DataPlaneBadRequest, match="lock"):
        client.put_samples(["a"], "p", rows(1), [{"lock": threading.Lock()}])
    assert client.list_partitions() == []

    assert client.get_capabilities().supports_verified_clear
    client.put_samples(["a"], "p", rows(1))
    client.clear_samples(["a"], "p")
    client.put_samples(["a"], "p", tags=[{}])
    with pytest.raises(DataPlaneBadRequest, match="no such key"):
        client.get_samples(["b"], "p", ["tokens"])


def test_concurrent_writers_lose_no_row() -> None:
    client = NoOpDataPlaneClient()

    def write(worker: int) -> None:
        for index in range(100):
            client.put_samples([f"{worker}_{index}"], "p", tags=[{"weight_version": index}])

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(len(group.keys) for group in client.list_metadata("p")) == 400


def test_tag_only_use_needs_neither_torch_nor_ray() -> None:
    source = """
import sys
from dataplane.factory import build_data_plane_client
client = build_data_plane_client({"enabled": True, "impl": "noop"}, allow_noop=True)
client.put_samples(["a"], "p", tags=[{"weight_version": 1}])
assert client.depth("p") == 1
client.pop(["a"], "p")
print([name for name in ("torch", "ray", "transfer_queue", "tensordict") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
