"""Checkpoints of every client: all data comes back in a new data plane, with the metadata of whoever saved it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import DataPlaneBadRequest, DataPlaneError, DataPlaneReadError, DataPlaneWriteError
from dataplane.interfaces import DataPlaneClient
from tests.contract.conftest import CLIENTS, tiered
from tests.contract.rows import rows, values


@pytest.fixture(params=tiered(*CLIENTS))
def renewed(request: pytest.FixtureRequest) -> tuple[DataPlaneClient, Callable[[], DataPlaneClient]]:
    """A client, and what empties its data plane and makes the next client."""
    adapter = CLIENTS[request.param]
    return adapter.make(request), lambda: adapter.renew(request)


def test_everything_comes_back_with_its_metadata(
    renewed: tuple[DataPlaneClient, Callable[[], DataPlaneClient]], tmp_path: Path
) -> None:
    client, renew = renewed
    client.register_partition("p", ["tokens"], 3, ["train"])
    client.put_samples(["a_g0", "b_g0", "c_g0"], "p", rows(3), [{"weight_version": version} for version in (1, 2, 3)])
    taken = client.claim_meta("p", "train", ["tokens"], 2).sample_ids
    for step in (6, 7):  # the second replaces the first
        client.save_checkpoint(tmp_path / "new" / "checkpoint", metadata={"step": step, "seen": ["a"]})

    client = renew()
    assert client.list_sample_ids("p") == []
    assert client.load_checkpoint(str(tmp_path / "new" / "checkpoint")) == {"step": 7, "seen": ["a"]}

    assert client.list_sample_ids("p") == ["a_g0", "b_g0", "c_g0"]
    assert [group.weight_version for group in client.list_metadata("p")] == [1, 2, 3]
    assert values(client.get_samples(["c_g0", "a_g0"], "p", ["tokens"])) == [[2, 2, 2], [0, 0, 0]]
    left = client.claim_meta("p", "train", ["tokens"], 1, blocking=False).sample_ids
    assert sorted(taken + left) == ["a_g0", "b_g0", "c_g0"]


@pytest.mark.simple_storage
def test_a_client_that_was_used_loads_nothing(client: DataPlaneClient, tmp_path: Path) -> None:
    client.save_checkpoint(tmp_path / "checkpoint")
    assert client.load_checkpoint(tmp_path / "checkpoint") == {}
    client.put_samples(["a"], "p", rows(1))
    with pytest.raises(DataPlaneBadRequest, match="load it first") as caught:
        client.load_checkpoint(tmp_path / "checkpoint")
    assert caught.value.operation == "load_checkpoint"
    assert client.list_sample_ids("p") == ["a"]


def test_where_no_checkpoint_is(client: DataPlaneClient, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataPlaneBadRequest, match="no checkpoint in"):
            client.load_checkpoint(folder)


@pytest.mark.parametrize("metadata", [{"x": object()}, ["step"], {"x": float}], ids=["object", "list", "class"])
def test_metadata_is_json(client: DataPlaneClient, metadata: Any, tmp_path: Path) -> None:
    with pytest.raises(DataPlaneBadRequest, match="metadata is not JSON") as caught:
        client.save_checkpoint(tmp_path / "checkpoint", metadata=metadata)
    assert caught.value.operation == "save_checkpoint"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [None, 7, ""], ids=repr)
def test_a_folder_is_a_path(client: DataPlaneClient, folder: Any) -> None:
    for call in (client.save_checkpoint, client.load_checkpoint):
        with pytest.raises(DataPlaneBadRequest, match="checkpoint_dir must be a path"):
            call(folder)


def test_a_folder_that_cannot_be_made(client: DataPlaneClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataPlaneError) as caught:
        client.save_checkpoint(tmp_path / "file" / "checkpoint")
    assert caught.value.operation == "save_checkpoint"
    assert pickle.loads(pickle.dumps(caught.value)).operation == "save_checkpoint"


def test_a_damaged_checkpoint_of_the_client_in_memory(tmp_path: Path) -> None:
    (tmp_path / "noop_checkpoint.pkl").write_bytes(b"no pickle")
    with pytest.raises(DataPlaneReadError, match="cannot be read"):
        NoOpDataPlaneClient().load_checkpoint(tmp_path)
    unsaved = NoOpDataPlaneClient()
    unsaved.put_samples(["a"], "p", tags=[{"f": lambda: 1}])
    with pytest.raises(DataPlaneWriteError):
        unsaved.save_checkpoint(tmp_path)
    assert (tmp_path / "noop_checkpoint.pkl").read_bytes() == b"no pickle"
