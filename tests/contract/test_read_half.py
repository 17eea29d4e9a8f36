"""The contract of every MetadataReader, on rows as real frameworks write them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataplane.errors import DataPlaneReadError, DataPlaneUnavailable
from dataplane.interfaces import MetadataReader
from tests.contract.conftest import Plane
from tests.contract.rows import rows
from tests.situations.frameworks import Tagged, nemo_rl_model_calls, nemo_rl_newer


def test_satisfies_the_protocol(plane: Plane) -> None:
    assert isinstance(plane.reader, MetadataReader)


def test_ping_gives_seconds(plane: Plane) -> None:
    assert 0.0 <= plane.reader.ping() < 5.0
    assert 0.0 <= plane.reader.ping(timeout_s=4.0) < 4.0


def test_empty_plane_has_no_partitions(plane: Plane) -> None:
    assert plane.reader.list_partitions() == []


def test_unknown_partition_lists_as_empty(plane: Plane) -> None:
    assert plane.reader.list_metadata("nowhere") == []
    assert plane.reader.depth("nowhere") == 0
    assert plane.reader.list_partitions() == []


def test_partitions_are_listed_in_the_order_of_their_making(plane: Plane) -> None:
    for name in ("b", "a", "c"):
        plane.writer.put_samples(["k"], name, tags=[{}])
    assert plane.reader.list_partitions() == ["b", "a", "c"]


@pytest.mark.parametrize("name", ['say "hi"', "two\nlines", "späte Gruppe ✓", "back\\slash", "{curly}", ""])
def test_any_partition_name_goes_through(plane: Plane, name: str) -> None:
    plane.writer.put_samples(["k_g0"], name, tags=[{"weight_version": 1}])
    assert plane.reader.list_partitions() == [name]
    (group,) = plane.reader.list_metadata(name)
    assert (group.partition_id, group.group_id, group.weight_version) == (name, "k", 1)


def test_recovery_tags(plane: Plane) -> None:
    tag = {"group_id": 0, "committed": True, "expected_num_keys": 2, "created_at": 1.5, "size_bytes": 10}
    plane.writer.put_samples(["b", "a"], "p", tags=[{**tag, "weight_version": 4}, {**tag, "weight_version": 3}])
    plane.writer.put_samples(["c"], "p", tags=[{**tag, "group_id": "half", "weight_version": 5}])
    plane.writer.put_samples(["d"], "p", tags=[{"group_id": "open", "committed": "no", "weight_version": 5}])

    whole, half, still_open = plane.reader.list_metadata("p")

    assert (whole.group_id, whole.keys, whole.weight_version, whole.created_at) == ("0", ["a", "b"], 3, 1.5)
    assert (whole.size_bytes, whole.state) == (20, "ready")
    assert (half.group_id, half.state, still_open.state) == ("half", "incomplete", "uncommitted")
    assert plane.reader.depth("p") == 1


def test_nemo_rl_rows(plane: Plane) -> None:
    keys = [f"{uid}_g{i}" for uid in ("u1", "u2") for i in range(2)]
    plane.writer.put_samples(keys, "rollout_data", tags=[{"weight_version": v} for v in (7, 7, 8, 8)])
    plane.writer.put_samples(["u3_g0"], "rollout_data", tags=[{}])

    groups = plane.reader.list_metadata("rollout_data")

    assert [(g.group_id, len(g.keys), g.weight_version, g.state) for g in groups] == [
        ("u1", 2, 7, "ready"),
        ("u2", 2, 8, "ready"),
        ("u3", 1, None, "uncommitted"),
    ]
    assert plane.reader.depth("rollout_data") == 2


def _put(plane: Plane, partition_id: str, tagged: Tagged) -> None:
    plane.writer.put_samples(list(tagged), partition_id, tags=list(tagged.values()))


def test_rows_of_newer_nemo_rl(plane: Plane) -> None:
    """The group's id is on every row, and none is ever tagged as committed."""
    _put(plane, "rollout_data", nemo_rl_newer("u1", 7, size=4) | nemo_rl_newer("u2", 8, size=4))
    groups = plane.reader.list_metadata("rollout_data")
    assert [(g.group_id, len(g.keys), g.weight_version, g.state) for g in groups] == [
        ("u1", 4, 7, "ready"),
        ("u2", 4, 8, "ready"),
    ]
    assert plane.reader.depth("rollout_data") == 2

    plane.writer.clear_samples(groups[0].keys, "rollout_data")
    assert [g.group_id for g in plane.reader.list_metadata("rollout_data")] == ["u2"]


def test_staged_model_calls_of_newer_nemo_rl(plane: Plane) -> None:
    """One row per call of the model, whose version says nothing about a group."""
    _put(plane, "rollout_staging", nemo_rl_model_calls("u1", 7, calls=3))
    _put(plane, "rollout_data", nemo_rl_newer("u1", 7))
    staged = plane.reader.list_metadata("rollout_staging")
    assert [(len(g.keys), g.weight_version, g.malformed_keys) for g in staged] == [(1, 7, 0)] * 3
    assert plane.reader.depth("rollout_data") == 1


def test_verl_rows(plane: Plane) -> None:
    prompts = [{"is_prompt": True, "status": status, "global_steps": 3} for status in ("running", "failure")]
    plane.writer.put_samples(["u1", "u2"], "train", tags=prompts)
    rollouts = [{"status": "finished", "min_global_steps": v, "max_global_steps": 3, "seq_len": 9} for v in (3, 2)]
    plane.writer.put_samples(["u1_0_0", "u1_1_0"], "train", tags=rollouts)
    running, failed = plane.reader.list_metadata("train")
    assert (running.group_id, running.keys, running.weight_version) == ("u1", ["u1", "u1_0_0", "u1_1_0"], 2)
    assert (running.state, failed.state) == ("uncommitted", "failed")

    plane.writer.put_samples(["u1"], "train", tags=[{"status": "finished"}])

    assert plane.reader.list_metadata("train")[0].state == "ready"
    assert plane.reader.depth("train") == 1


def test_placeholder_keys_are_no_groups(plane: Plane) -> None:
    plane.writer.put_samples(["__schema__:x", "a_g0"], "train", tags=[{}, {"weight_version": 1}])
    assert [group.group_id for group in plane.reader.list_metadata("train")] == ["a"]


@pytest.mark.parametrize(
    "version", [None, float("nan"), float("inf"), "step-3", 2.5, [1], {"a": 1}, torch.tensor([3]), 2**60], ids=repr
)
def test_a_malformed_version_is_unknown_and_counted(plane: Plane, version: object) -> None:
    good = {"weight_version": 1, "committed": True}
    plane.writer.put_samples(["a", "b"], "p", tags=[{**good, "weight_version": version}, good])

    bad_group, good_group = plane.reader.list_metadata("p")

    assert (bad_group.weight_version, bad_group.malformed_keys, bad_group.state) == (None, 1, "ready")
    assert (good_group.weight_version, good_group.malformed_keys) == (1, 0)


@pytest.mark.parametrize("version", ["3", np.int64(3), np.float32(3.0), np.array(3), torch.tensor(3)], ids=repr)
def test_numbers_as_text_and_scalars_of_numpy_and_torch_are_versions(plane: Plane, version: object) -> None:
    plane.writer.put_samples(["a"], "p", tags=[{"weight_version": version, "committed": True}])
    (group,) = plane.reader.list_metadata("p")
    # TransferQueue sends such scalars as a pickle, which the wire reader never loads.
    unreadable = plane.name == "wire" and not isinstance(version, str)
    assert (group.weight_version, group.malformed_keys) == ((None, 1) if unreadable else (3, 0))


def test_an_integer_beyond_64_bits(plane: Plane) -> None:
    """TransferQueue answers with a pickle in this case, which only its own client may load."""
    plane.writer.put_samples(["a_g0", "b_g0"], "p", tags=[{"weight_version": 2**70}, {"weight_version": 1}])
    if plane.name == "wire":
        with pytest.raises(DataPlaneReadError):
            plane.reader.list_metadata("p")
    else:
        assert [group.weight_version for group in plane.reader.list_metadata("p")] == [None, 1]
    assert plane.reader.list_partitions() == ["p"]


def test_listing_moves_no_cursor(plane: Plane) -> None:
    plane.writer.put_samples(["a", "b"], "p", rows(2), [{}, {}])
    for _ in range(3):
        plane.reader.list_metadata("p")
        plane.reader.depth("p")
    assert plane.writer.claim_meta("p", "train", ["tokens"], 2, blocking=False).size == 2


def test_closed_reader_is_unavailable(plane: Plane) -> None:
    plane.reader.close()
    plane.reader.close()
    for operation, arguments in {"ping": (), "list_partitions": (), "list_metadata": ("p",), "depth": ("p",)}.items():
        with pytest.raises(DataPlaneUnavailable) as caught:
            getattr(plane.reader, operation)(*arguments)
        assert caught.value.operation == operation
