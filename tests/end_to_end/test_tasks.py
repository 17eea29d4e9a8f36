"""A real streaming-loader program with two tasks, one of them slow: the exporter's figures are TransferQueue's.

The program puts samples without keys, so no listing shows anything of it.
"""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dataplane.discovery.record import Endpoint, StorageUnitEndpoint, encode_endpoint
from tests.support.cluster import TQCluster, frozen, kill
from tests.support.exporter_process import ExporterProcess, Exposition

FAST = ("--ping-interval", "500ms", "--metadata-interval", "500ms")
OFTEN = {
    "TQ_EXPORTER_STORAGE_INTERVAL": "500ms",
    "TQ_EXPORTER_STORAGE_TIMEOUT": "500ms",
    "TQ_EXPORTER_TQ_METRICS_INTERVAL": "500ms",
}
REFRESHED_S = 60.0
"""TransferQueue refreshes its metrics every 10 s, in two steps; a busy machine takes longer."""

SAMPLES = 32

PRODUCE = """
tokens = torch.arange(samples * 4).reshape(samples, 4)
tq.get_client().put(data=TensorDict({"tokens": tokens}, batch_size=[samples]), partition_id="stream")
result = None
"""

CONSUME = """
from transfer_queue import StreamingDataLoader, StreamingDataset
loaders = tq.__dict__.setdefault("loaders_of_the_test", {})
if task not in loaders:
    dataset = StreamingDataset(
        config=ray.get(ray.get_actor("TransferQueueController", namespace="transfer_queue").get_config.remote()),
        batch_size=4,
        micro_batch_size=2,
        data_fields=["tokens"],
        partition_id="stream",
        task_name=task,
        dp_rank=0,
    )
    loaders[task] = iter(StreamingDataLoader(dataset, num_workers=0))
result = sum(next(loaders[task])[1].size for _ in range(micro_batches))
"""

CONSUMED = """
index, status = tq.get_client().get_consumption_status(task_name=task, partition_id="stream")
result = [len(index), int(status.sum())]
"""


def record(cluster: TQCluster, folder: Path) -> str:
    """Write the discovery record of the present data plane; return its path."""
    units = tuple(StorageUnitEndpoint(unit.index, unit.id, unit.address) for unit in cluster.storage_units)
    at = cluster.controller
    file = folder / "endpoint.json"
    file.write_bytes(
        encode_endpoint(
            Endpoint(at.address, at.id, at.actor_id, "SimpleStorage", None, units, cluster.metrics_endpoint)
        )
    )
    return str(file)


def own(cluster: TQCluster) -> dict[tuple[str, str, str], float]:
    """Return the values on TransferQueue's own page, by name and the values of its two labels."""
    with urllib.request.urlopen(f"http://{cluster.metrics_endpoint}/metrics", timeout=10) as page:
        families = text_string_to_metric_families(page.read().decode())
    found = {}
    for sample in (one for family in families for one in family.samples):
        first = sample.labels.get("partition_id") or sample.labels.get("storage_unit_id", "")
        second = sample.labels.get("task_name") or sample.labels.get("op_type", "")
        found[sample.name, first, second] = sample.value
    return found


def consumed(seen: Exposition) -> dict[str, float]:
    return seen.by("dataplane_partition_task_consumed_ratio", "task")


@pytest.fixture
def streaming(ray_alone: TQCluster) -> TQCluster:
    ray_alone.start_tq(metrics=True, sampler="RankAwareSampler", capacity=None)
    ray_alone.run("tq.__dict__.pop('loaders_of_the_test', None)")
    ray_alone.run(PRODUCE, samples=SAMPLES)
    return ray_alone


def test_what_two_tasks_have_consumed(streaming: TQCluster, tmp_path: Path) -> None:
    assert streaming.run(CONSUME, task="train", micro_batches=12) == 24
    assert streaming.run(CONSUME, task="slow", micro_batches=4) == 8
    with ExporterProcess("--discovery-file", record(streaming, tmp_path), *FAST, env=OFTEN) as exporter:
        seen = exporter.wait_for(lambda seen: len(consumed(seen)) == 2, "both tasks", REFRESHED_S)
        assert consumed(seen) == {"train": 0.75, "slow": 0.25}
        for task, ratio in consumed(seen).items():
            samples, count = streaming.run(CONSUMED, task=task)
            assert (samples, count / samples) == (SAMPLES, ratio)
        assert seen.by("dataplane_partition_samples", "partition") == {"stream": SAMPLES}
        assert seen.by("dataplane_partition_task_produced_ratio", "task") == {"all": 1, "train": 1, "slow": 1}
        assert seen.value("dataplane_source_up", source="tq_metrics") == 1
        assert sum(value for _, value in seen.samples("dataplane_storage_keys")) == SAMPLES
        # Samples without keys are in no listing, so the number of keys is unknown, not 0.
        assert seen.value("dataplane_partition_readable", partition="stream", reason="not_listable") == 0
        assert seen.by("dataplane_partition_keys", "partition") == {}

        assert streaming.run(CONSUME, task="slow", micro_batches=8) == 16
        seen = exporter.wait_for(lambda seen: consumed(seen)["slow"] == 0.75, "the slow task's progress", REFRESHED_S)

        # The loaders rest: what both pages say of their requests is the same.
        page = own(streaming)
        for operation in ("GET_META", "NOTIFY_DATA_UPDATE"):
            for name, theirs in (
                ("dataplane_controller_requests_arrived_total", "tq_controller_request_total"),
                (
                    "dataplane_controller_requests_duration_seconds_count",
                    "tq_controller_request_duration_seconds_count",
                ),
                ("dataplane_controller_requests_duration_seconds_sum", "tq_controller_request_duration_seconds_sum"),
            ):
                assert seen.value(name, operation=operation) == page[theirs, "", operation], name
        assert (seen.value("dataplane_controller_memory_bytes") or 0) > 2**20
        for unit in streaming.storage_units:
            for operation in ("PUT_DATA", "GET_DATA"):
                labels = {"storage_unit": str(unit.index), "operation": operation}
                arrived = page["tq_storage_arrivals_by_op", unit.id, operation]
                assert seen.value("dataplane_storage_requests_arrived_total", **labels) == arrived
                # TransferQueue does not measure the requests of its first second.
                count = page["tq_storage_request_ops", unit.id, operation]
                assert count <= arrived
                assert seen.value("dataplane_storage_requests_completed_total", **labels) == count
                spent = page["tq_storage_request_latency_avg", unit.id, operation] * count
                assert seen.value("dataplane_storage_requests_duration_seconds_total", **labels) == pytest.approx(spent)
        assert not seen.samples("dataplane_storage_ssd_size_bytes")
        assert not seen.samples("dataplane_storage_socket_drops")


def errors(seen: Exposition, kind: str) -> float:
    return seen.value("dataplane_errors_total", operation="storage_metrics", error_type=kind) or 0.0


def why(exporter: ExporterProcess) -> list[Any]:
    return [unit["error_type"] for unit in exporter.snapshot()["storage"]]


def test_a_silent_unit_is_told_from_one_that_is_gone(streaming: TQCluster, tmp_path: Path) -> None:
    def up(seen: Exposition) -> list[float]:
        return list(seen.by("dataplane_storage_up", "storage_unit").values())

    with ExporterProcess("--discovery-file", record(streaming, tmp_path), *FAST, env=OFTEN) as exporter:
        exporter.wait_for(lambda seen: up(seen) == [1, 1], "both units")
        with frozen(streaming.storage_units[1].pid):
            seen = exporter.wait_for(lambda seen: up(seen) == [1, 0], "the silent unit")
            assert seen.by("dataplane_storage_keys", "storage_unit").keys() == {"0"}
            assert why(exporter) == [None, "DataPlaneTimeout"]
            assert errors(seen, "DataPlaneUnavailable") == 0
        exporter.wait_for(lambda seen: up(seen) == [1, 1], "recovery")
        kill(streaming.storage_units[1].pid)
        seen = exporter.wait_for(
            lambda seen: up(seen) == [1, 0] and errors(seen, "DataPlaneUnavailable") > 0, "the loss"
        )
        assert why(exporter) == [None, "DataPlaneUnavailable"]


def test_without_transferqueues_metrics_the_configured_task_is_asked_for_and_no_other(
    ray_alone: TQCluster, tmp_path: Path
) -> None:
    ray_alone.start_tq(sampler="RankAwareSampler", capacity=None)
    ray_alone.run("tq.__dict__.pop('loaders_of_the_test', None)")
    ray_alone.run(PRODUCE, samples=SAMPLES)
    assert ray_alone.run(CONSUME, task="train", micro_batches=4) == 8
    assert ray_alone.run(CONSUME, task="slow", micro_batches=2) == 4
    config = tmp_path / "exporter.yaml"
    config.write_text("partitions: {stream: {tasks: [slow]}}\n")
    arguments = ("--config", str(config), "--controller", ray_alone.controller.address, *FAST)
    with ExporterProcess(*arguments) as exporter:
        seen = exporter.wait_for(lambda seen: bool(consumed(seen)), "the task")
        assert consumed(seen) == {"slow": 0.125}
        assert seen.by("dataplane_partition_samples", "partition") == {"stream": SAMPLES}
        assert seen.value("dataplane_source_state", source="tq_metrics", reason="disabled") == 1
        assert seen.value("dataplane_source_up", source="tq_metrics") is None
        assert ray_alone.run(CONSUME, task="slow", micro_batches=2) == 4
        exporter.wait_for(lambda seen: consumed(seen) == {"slow": 0.25}, "its progress")
        time.sleep(1.0)
    tasks = (
        "controller = ray.get_actor('TransferQueueController', namespace='transfer_queue')\n"
        "read = lambda self: sorted(self.partitions['stream'].consumption_status)\n"
        "result = ray.get(controller.__ray_call__.remote(read))"
    )
    assert ray_alone.run(tasks) == ["slow", "train"]
