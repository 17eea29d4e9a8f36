"""TransferQueue's public API under the instrumentor: ``public_api.py ADDRESS``. Prints what was recorded as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import sys
import tempfile
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dataplane.observability.instrumentor import TransferQueueInstrumentor

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracers = TracerProvider(shutdown_on_exit=False)
tracers.add_span_processor(SimpleSpanProcessor(exporter))
meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
instrumentor = TransferQueueInstrumentor()
instrumentor.instrument(meter_provider=meters, tracer_provider=tracers, propagate=True)
loaded_by_instrument = "transfer_queue" in sys.modules

import ray  # noqa: E402
import torch  # noqa: E402
import transfer_queue as tq  # noqa: E402
from tensordict import TensorDict  # noqa: E402

steps: dict[str, Any] = {"loaded_by_instrument": loaded_by_instrument}


def step(name: str) -> None:
    """Record the spans since the last step."""
    steps[name] = [
        {
            "name": span.name,
            "keys": (span.attributes or {}).get("messaging.batch.message_count"),
            "error": (span.attributes or {}).get("error.type"),
            "links": len(span.links),
            "served": isinstance((span.attributes or {}).get("server.port"), int),
        }
        for span in exporter.get_finished_spans()
    ]
    exporter.clear()


def batch(rows: int) -> TensorDict:
    return TensorDict({"x": torch.ones(rows, 2)}, batch_size=[rows])


ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
tq.init()
client = tq.get_client()
keys = ["a", "b", "c"]

# "one" and "a" alone have both fields, so that a claim of both takes them, whichever indexes the rows got.
tq.kv_put(key="one", partition_id="p", fields={"x": torch.ones(2), "y": torch.ones(2)}, tag={"weight_version": 2})
step("kv_put")
meta = tq.kv_batch_put(keys=keys, partition_id="p", fields=batch(3), tags=[{"weight_version": 1}] * 3)
step("kv_batch_put")
assert meta.keys == keys
tq.kv_batch_get(keys=keys, partition_id="p", select_fields=["x"])
step("kv_batch_get")
tq.kv_batch_get("one", "p")
step("kv_batch_get of one")
tq.kv_batch_get_by_meta(meta)
step("kv_batch_get_by_meta")
listed = tq.kv_list("p")
step("kv_list")
assert set(listed["p"]) == {"one", *keys}
with contextlib.suppress(ValueError):
    tq.kv_batch_get(["unknown"], "p")
step("error")
tq.kv_put(key="a", partition_id="p", fields={"y": torch.ones(2)})
step("kv_put of another field")
claimed = client.get_meta(data_fields=["x", "y"], batch_size=2, partition_id="p", task_name="t")
step("get_meta")
client.get_data(claimed)
step("get_data")
client.put(batch(2), partition_id="q")
step("put")
client.clear_samples(claimed)
step("clear_samples")
tq.kv_clear(keys, "p")
step("kv_clear")


async def asynchronously() -> None:
    await tq.async_kv_batch_put(keys=["x1", "x2"], partition_id="p", fields=batch(2))
    await tq.async_kv_list("p")


client._run_coroutine(asynchronously())
step("async")
retrieved = client.kv_retrieve_meta(["x1", "x2"], "p")
client.kv_retrieve_keys(retrieved.global_indexes, "p")
step("metadata")
dataset = tq.StreamingDataset(
    config=ray.get(tq.interface._TQ_CONTROLLER.get_config.remote()),
    batch_size=2,
    micro_batch_size=2,
    data_fields=["x"],
    partition_id="p",
    task_name="stream",
    dp_rank=0,
)
next(iter(tq.StreamingDataLoader(dataset)))
dataset._tq_client.close()
step("streaming data loader")
with tempfile.TemporaryDirectory() as directory:
    tq.save_checkpoint(f"{directory}/checkpoint")
    tq.load_checkpoint(f"{directory}/checkpoint")
step("checkpoint")
steps["still a coroutine function"] = inspect.iscoroutinefunction(tq.async_kv_batch_put)

from dataplane.factory import build_data_plane_client  # noqa: E402
from dataplane.observability import MetricsDataPlaneClient  # noqa: E402

wrapped = MetricsDataPlaneClient(
    build_data_plane_client({"enabled": True, "claim_meta_poll_interval_s": 0.02}, bootstrap=False),
    meter_provider=meters,
    tracer_provider=tracers,
)
wrapped.put_samples(["w"], "w", batch(1), [{"weight_version": 1}])
wrapped.get_data(wrapped.claim_meta("w", "t", ["x"], 1))
wrapped.pop(["w"], "w")
step("under the wrapper")

instrumentor.uninstrument()
tq.kv_list("p")
steps["restored"] = not any(
    hasattr(getattr(owner, name), "__wrapped__")
    and getattr(owner, name).__module__ == "dataplane.observability.instrumentor"
    for owner in (tq, tq.interface, tq.TransferQueueClient)
    for name in dir(owner)
)
step("uninstrumented")
instrumentor.instrument(meter_provider=meters, tracer_provider=tracers)
tq.kv_list("p")
step("instrumented again")
instrumentor.uninstrument()

collected: Any = reader.get_metrics_data()
steps["keys"] = {
    f"{point.attributes['operation']} {point.attributes['partition']}": point.value
    for resource in collected.resource_metrics
    for scope in resource.scope_metrics
    for metric in scope.metrics
    if metric.name == "dataplane.client.keys"
    for point in metric.data.data_points
}
steps["duration points"] = sum(
    len(metric.data.data_points)
    for resource in collected.resource_metrics
    for scope in resource.scope_metrics
    for metric in scope.metrics
    if metric.name == "messaging.client.operation.duration"
)
wrapped.close()
assert asyncio.iscoroutinefunction(tq.async_kv_list)
print("\n" + json.dumps(steps))
