"""The exporter's metrics of a real TransferQueue, compared with what was put there."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FAST = ("--ping-interval", "500ms", "--metadata-interval", "500ms")


def test_every_figure_follows_from_what_was_put(cluster: TQCluster) -> None:
    created = time.time() - 100.0
    for version, group in ((10, "a"), (9, "b"), (9, "c"), (4, "d")):
        tag = {
            "group_id": group,
            "weight_version": version,
            "committed": group != "c",
            "expected_num_keys": 3 if group == "b" else 2,
            "created_at": created,
            "size_bytes": 50,
            "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        }
        cluster.put("train", [f"{group}-0", f"{group}-1"], tags=[tag, tag])
    with ExporterProcess("--controller", cluster.controller.address, *FAST) as exporter:
        seen = exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), "groups")
        assert seen.value("dataplane_up") == 1
        assert seen.by("dataplane_partition_groups", "state", partition="train") == {
            "ready": 2, "incomplete": 1, "uncommitted": 1, "failed": 0, "taken": 0,
        }  # fmt: skip
        assert seen.value("dataplane_partition_depth", partition="train") == 2
        assert seen.value("dataplane_partition_keys", partition="train") == 8
        assert seen.value("dataplane_partition_size_bytes", partition="train") == 400
        versions = seen.by("dataplane_partition_weight_version_groups", "weight_version", partition="train")
        assert versions == {"10": 1, "9": 2, "4": 1}
        lags = seen.by("dataplane_partition_staleness_groups", "lag", partition="train")
        assert lags == {"ahead": 0, "0": 1, "1": 2, "2": 0, "3": 0, "4": 0, "5-8": 1, "9+": 0, "unknown": 0}
        assert seen.value("dataplane_partition_staleness_max", partition="train") == 6
        assert seen.value("dataplane_partition_staleness_mean", partition="train") == pytest.approx(2.0)
        assert seen.value("dataplane_partition_staleness_reference", reference="newest_seen") == 1
        oldest = seen.value("dataplane_partition_oldest_group_created_timestamp_seconds", state="ready", basis="tag")
        assert oldest == pytest.approx(created, abs=0.01)
        assert seen.value("dataplane_errors_total", operation="ping", error_type="DataPlaneUnavailable") == 0
        assert seen.value("dataplane_partition_groups_arrived_total", partition="train") == 0

        cluster.put("train", ["e-0", "e-1"], tags=[{**tag, "group_id": "e", "weight_version": 11}] * 2)
        seen = exporter.wait_for(
            lambda seen: seen.value("dataplane_partition_groups_arrived_total", partition="train") == 1, "an arrival"
        )
        assert seen.value("dataplane_partition_staleness_max", partition="train") == 7

        status, body = exporter.get("/api/v1/groups?partition=train&sort=lag&limit=2")
        answer = json.loads(body)
        assert (status, answer["matched"]) == (200, 5)
        found = [(one["group_id"], one["state"], one["lag"], one["first_keys"]) for one in answer["groups"]]
        assert found == [("d", "ready", 7, ["d-0", "d-1"]), ("b", "incomplete", 2, ["b-0", "b-1"])]
        assert answer["groups"][0]["created_at"] == pytest.approx(created, abs=0.01)
        assert answer["groups"][0]["trace_id"] == TRACE
        cluster.clear_all()
        exporter.wait_for(lambda seen: not seen.value("dataplane_partition_keys", partition="train"), "a departure")
        left = json.loads(exporter.get("/api/v1/groups?departed=true")[1])["groups"]
        assert {one["group_id"]: one["why"] for one in left} == {
            "b": ["unfinished"], "c": ["unfinished"], "d": ["stale"],
        }  # fmt: skip


def test_a_published_version_is_what_lags_are_counted_from(cluster: TQCluster) -> None:
    cluster.put("train", ["a_g0", "a_g1"], tags=[{"weight_version": 3}] * 2)
    cluster.put(RESERVED_PARTITION, [PUBLISHED_VERSION_KEY], tags=[{"weight_version": 5}])
    with ExporterProcess("--controller", cluster.controller.address, *FAST) as exporter:
        seen = exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), "groups")
        assert seen.value("dataplane_partition_staleness_max", partition="train") == 2
        assert seen.value("dataplane_partition_staleness_reference", partition="train", reference="published") == 1
        assert not seen.samples("dataplane_partition_groups", partition=RESERVED_PARTITION)
        assert "__tq_exporter__" not in seen.text


def test_malformed_tags_and_odd_names_never_break_a_poll(cluster: TQCluster) -> None:
    odd = 'tr"a\\in\n🚀'
    cluster.put(odd, ["x_g0"], tags=[{"weight_version": 1}])
    bad = ["step-7", float("nan"), None, 2**60, [1], {"a": 1}]
    cluster.put("bad", [f"k{i}" for i in range(len(bad))], tags=[{"weight_version": value} for value in bad])
    cluster.run(
        "import numpy\n"
        "tags = [{'weight_version': numpy.int64(3)}, {'weight_version': torch.tensor(3)}]\n"
        "tq.kv_batch_put(keys=['n', 't'], partition_id='exotic', tags=tags)"
    )
    with ExporterProcess("--controller", cluster.controller.address, *FAST) as exporter:
        seen = exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), "groups")
        assert seen.value("dataplane_partition_depth", partition=odd) == 1
        assert seen.value("dataplane_partition_rows_malformed", partition="bad") == len(bad)
        assert seen.value("dataplane_partition_staleness_groups", partition="bad", lag="unknown") == len(bad)
        assert seen.value("dataplane_partition_rows_malformed", partition="exotic") == 2
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=seen.text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_partition_that_is_gone_has_no_gauge_on_the_next_scrape(cluster: TQCluster) -> None:
    cluster.put("train", ["a_g0"], tags=[{"weight_version": 1}])
    with ExporterProcess("--controller", cluster.controller.address, *FAST) as exporter:
        exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), "groups")
        cluster.clear_all()
        seen = exporter.wait_for(
            lambda seen: seen.value("dataplane_partition_groups_departed_total", partition="train", state="ready") == 1,
            "a departure",
        )
        assert not seen.value("dataplane_partition_keys", partition="train")
