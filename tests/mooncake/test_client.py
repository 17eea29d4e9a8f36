"""The client on a real Mooncake: what TransferQueue's own calls do not do there, and what faults look like."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    DataPlaneWriteError,
)
from dataplane.interfaces import DataPlaneClient
from tests.contract.rows import rows, values
from tests.support.cluster import TQCluster, frozen
from tests.support.mooncake_master import MasterProcess
from tests.support.waiting import wait_until

_MB = 256 * 1024
"""Elements of one megabyte of float32."""


def _metric(master: MasterProcess, name: str) -> int:
    with urllib.request.urlopen(f"{master.metrics_url}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def _segments(master: MasterProcess) -> list[str]:
    with urllib.request.urlopen(f"{master.metrics_url}/get_all_segments", timeout=5) as page:
        return [line for line in page.read().decode().splitlines() if line]


def _put_when_possible(client: DataPlaneClient) -> None:
    """Return when the store takes rows again: after a restart its segments have to be mounted anew."""

    def works() -> bool:
        try:
            client.put_samples(["probe"], "probe", rows(1))
        except DataPlaneError:
            return False
        return True

    wait_until(works, "a put after the master's restart")
    client.evict(["probe"], "probe")


def test_rows_with_different_fields_are_cleared_in_one_call(
    tq_client: DataPlaneClient, mooncake_master: MasterProcess
) -> None:
    tq_client.put_samples(["a", "b", "c"], "p", rows(3))
    tq_client.put_samples(["b"], "p", rows(1, "reward", "mask"))
    tq_client.put_samples(["tags"], "p", tags=[{"weight_version": 1}])
    assert _metric(mooncake_master, "master_key_count") == 5
    tq_client.evict(["a", "b", "tags"], "p")
    assert (tq_client.list_sample_ids("p"), _metric(mooncake_master, "master_key_count")) == (["c"], 1)
    tq_client.clear_samples(None, "p")
    assert _metric(mooncake_master, "master_key_count") == 0


def test_other_readers_see_scalars_as_they_were_written(cluster: TQCluster, tq_client: DataPlaneClient) -> None:
    fields = TensorDict({"reward": torch.tensor([0.5, 1.5]), "one": torch.ones(2, 1)}, batch_size=[2])
    tq_client.put_samples(["a", "b"], "p", fields)
    source = """
data = tq.kv_batch_get(keys=["b", "a"], partition_id="p", select_fields=["reward"])
result = [list(data["reward"].shape), data["reward"].tolist()]
"""
    assert cluster.run(source) == [[2], [1.5, 0.5]]


def test_a_row_without_elements_is_a_bad_request_and_leaves_nothing(tq_client: DataPlaneClient) -> None:
    ragged = torch.nested.nested_tensor([torch.ones(3), torch.ones(0)], layout=torch.jagged)
    with pytest.raises(DataPlaneBadRequest, match="'answer' of sample 'b'"):
        tq_client.put_samples(["a", "b"], "p", TensorDict({"answer": ragged}, batch_size=[2]))
    assert tq_client.list_partitions() == []


def test_no_room_left(tq_client: DataPlaneClient, mooncake_master: MasterProcess) -> None:
    big = TensorDict({"tokens": torch.ones(80, _MB)}, batch_size=[80])
    keys = [f"g{index}" for index in range(80)]
    with pytest.raises(DataPlaneWriteError, match=r"no segment of the store has room left: samples \['g\d+'"):
        tq_client.put_samples(keys, "p", big)
    assert tq_client.list_sample_ids("p") == sorted(keys)  # ghosts

    tq_client.evict(keys, "p")

    assert tq_client.list_sample_ids("p") == []
    assert _metric(mooncake_master, "master_allocated_bytes") == 0
    tq_client.put_samples(["a"], "p", rows(1))


def test_a_silent_master_costs_its_callers_no_more_than_their_deadline(
    tq_client: DataPlaneClient, mooncake_master: MasterProcess
) -> None:
    tq_client.put_samples(["a"], "p", rows(1))
    with frozen(mooncake_master.pid):
        for call in (
            lambda: tq_client.get_samples(["a"], "p", ["tokens"]),
            lambda: tq_client.put_samples(["b"], "p", rows(1)),
            lambda: tq_client.evict(["a"], "p"),
        ):
            began = time.monotonic()
            with pytest.raises(DataPlaneTimeout, match="no answer within 5 s"):
                call()
            assert time.monotonic() - began < 25  # of 120 that the store takes
            assert tq_client.list_partitions() == ["p"]  # the loop is free
    _put_when_possible(tq_client)


def test_a_master_that_dies_takes_the_rows_along(tq_client: DataPlaneClient, mooncake_master: MasterProcess) -> None:
    tq_client.put_samples(["a"], "p", rows(1))
    mooncake_master.kill()
    try:
        for call in (
            lambda: tq_client.get_samples(["a"], "p", ["tokens"]),
            lambda: tq_client.put_samples(["b"], "p", rows(1)),
            lambda: tq_client.evict(["a"], "p"),
        ):
            with pytest.raises(DataPlaneUnavailable, match=f"the Mooncake master at tcp://{mooncake_master.address}"):
                call()
        assert tq_client.list_sample_ids("p") == ["a"]  # a clear that did not happen keeps the row
    finally:
        mooncake_master.start()
    with pytest.raises(DataPlaneReadError, match=r"lost: .*samples \['a'\], fields \['tokens'\]"):
        tq_client.get_samples(["a"], "p", ["tokens"])
    _put_when_possible(tq_client)
    tq_client.evict(["a"], "p")
    tq_client.put_samples(["a"], "p", rows(1))
    assert values(tq_client.get_samples(["a"], "p", ["tokens"])) == [[0, 0, 0]]


class _Holder:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, command: str) -> tuple[float, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        took, _, answer = self.process.stdout.readline().strip().partition(" ")
        return float(took), answer


@contextmanager
def _holder(cluster: TQCluster) -> Iterator[_Holder]:
    command = [sys.executable, "-m", "tests.mooncake.holder", cluster.ray_address, str(64 * 2**20)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _Holder(process)
        finally:
            process.kill()


def test_what_a_process_contributes_leaves_with_it(
    cluster: TQCluster, tq_client: DataPlaneClient, mooncake_master: MasterProcess
) -> None:
    (owner,) = _segments(mooncake_master)  # this process contributes none
    with _holder(cluster) as holder:
        with frozen(mooncake_master.pid):
            took, answer = holder.ask("attach")
        assert answer.startswith("DataPlaneTimeout: Mooncake's metadata server at 127.0.0.1:50050 does not answer")
        assert took < 20
        assert holder.ask("attach")[1] == "ok"
        (added,) = set(_segments(mooncake_master)) - {owner}
        assert holder.ask("close")[1] == "ok"
        assert _segments(mooncake_master) == [owner]

        assert holder.ask("attach")[1] == "ok"
        (added,) = set(_segments(mooncake_master)) - {owner}
        keys = [f"k{index}" for index in range(24)]
        assert holder.ask(f"put {' '.join(keys)}")[1] == "ok"
        holder.process.kill()
        holder.process.wait(timeout=10)
        slow: Any = tq_client
        slow._timeout_s = 30.0  # TransferQueue tries three times, which takes seconds
        with pytest.raises(DataPlaneUnavailable, match=rf"\(segment {added}\): samples \['k\d+'"):
            tq_client.get_samples(keys, "held", ["tokens"])
    wait_until(lambda: _segments(mooncake_master) == [owner], "the end of the segment")
    with pytest.raises(DataPlaneReadError, match=r"lost: .*samples \['k\d+'"):
        tq_client.get_samples(keys, "held", ["tokens"])
    tq_client.evict(keys, "held")
    assert _metric(mooncake_master, "master_key_count") == 0
