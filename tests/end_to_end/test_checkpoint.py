"""A job that resumes from a TransferQueue checkpoint: its controller answers under the checkpoint's id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from dataplane.adapters.wire import WireMetadataReader
from tests.end_to_end.test_loss import FAST, discovery
from tests.end_to_end.test_not_usable import once
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess, Exposition

TAGS = [{"group_id": group, "weight_version": 3, "committed": True, "num_keys": 2} for group in "aabb"]
KEYS = ["a/0", "a/1", "b/0", "b/1"]


def controller_id(seen: Exposition) -> str | None:
    labels: list[Mapping[str, str]] = [found for found, _ in seen.samples("dataplane_controller_info")]
    return labels[0]["controller_id"] if labels else None


def is_resumed(seen: Exposition, saved: str) -> bool:
    """Whether the checkpoint's groups are shown, of a controller that is up under the checkpoint's id."""
    shown = (
        seen.value("dataplane_up"),
        discovery(seen),
        controller_id(seen),
        seen.value("dataplane_partition_depth", partition="train"),
        seen.value("dataplane_partition_keys", partition="train"),
    )
    return shown == (1, "found", saved, 2, 4)


def total(seen: Exposition, name: str) -> float | None:
    """Return a total of the groups in the partitions that train."""
    return seen.value(f"dataplane_groups_{name}_total", role="train")


@pytest.mark.timeout(600)
def test_a_job_that_resumes_is_found_under_the_checkpoints_id(cluster: TQCluster, tmp_path: Path) -> None:
    checkpoint, saved = str(tmp_path / "checkpoint"), cluster.controller.id
    by_ray = ("--ray-address", cluster.ray_address, *FAST)
    with ExporterProcess(*by_ray, env=cluster.env) as exporter:
        cluster.put("train", KEYS, tags=TAGS)
        exporter.wait_for(lambda seen: is_resumed(seen, saved), "the groups", 120.0)
        cluster.run("tq.save_checkpoint(path)", path=checkpoint)
        cluster.stop_tq()
        exporter.wait_for(lambda seen: discovery(seen) == "ended", "the end", 120.0)

        cluster.start_tq()
        first = cluster.controller.id
        assert first != saved
        empty = exporter.wait_for(
            lambda seen: seen.value("dataplane_up") == 1 and controller_id(seen) == first, "the next job", 180.0
        )
        before = [total(empty, name) for name in ("arrived", "completed")]
        cluster.run("tq.load_checkpoint(path)", path=checkpoint)
        seen = exporter.wait_for(lambda seen: is_resumed(seen, saved), "the checkpoint's groups", 120.0)
        assert seen.value("dataplane_controller_restarts_total") == 1
        # The first job's groups were lost with it. What a checkpoint brings is restored, nothing else.
        assert [total(seen, name) for name in ("lost", "restored")] == [2, 2]
        assert [total(seen, name) for name in ("arrived", "completed")] == before
        assert sum(value for _, value in seen.samples("dataplane_groups_departed_total")) == 0

    with ExporterProcess(*by_ray, env=cluster.env) as late:
        seen = late.wait_for(lambda seen: is_resumed(seen, saved), "the checkpoint's groups", 120.0)
        assert all(value == 0 for _, value in seen.samples("dataplane_errors_total"))
    answer = once("--ray-address", cluster.ray_address, env={**os.environ, **cluster.env})
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert saved in answer.stdout


def test_the_next_test_gets_a_controller_that_answers_as_itself(cluster: TQCluster, tmp_path: Path) -> None:
    checkpoint = str(tmp_path / "checkpoint")
    cluster.run("tq.save_checkpoint(path)", path=checkpoint)
    cluster.restart_tq()
    cluster.run("tq.load_checkpoint(path)", path=checkpoint)
    loaded = cluster.controller
    cluster.make_healthy()
    assert cluster.controller.id != loaded.id
    reader = WireMetadataReader(cluster.controller.address, controller_id=cluster.controller.id)
    assert reader.list_partitions() == []
    reader.close()
