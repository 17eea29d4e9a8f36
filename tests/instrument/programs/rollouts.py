"""Producer or consumer of a rollout: ``rollouts.py ADDRESS produce|consume``. Prints its spans and lags as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import ray
import torch
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tensordict import TensorDict

from dataplane.factory import build_data_plane_client
from dataplane.observability import MetricsDataPlaneClient

ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracers = TracerProvider(shutdown_on_exit=False)
tracers.add_span_processor(SimpleSpanProcessor(exporter))
client = MetricsDataPlaneClient(
    build_data_plane_client({"enabled": True, "claim_meta_poll_interval_s": 0.02}, bootstrap=False),
    meter_provider=MeterProvider(metric_readers=[reader], shutdown_on_exit=False),
    tracer_provider=tracers,
    propagate=sys.argv[2] == "produce",
)
if sys.argv[2] == "produce":
    with tracers.get_tracer("generator").start_as_current_span("generate"):
        # Only p0 has both fields, so that a claim of both takes p0: samplers take the lowest index first, and
        # TransferQueue hands freed indexes out again, so on a used controller the order of puts decides nothing.
        for version, group, names in ((3, "p0", ("x", "y")), (5, "p1", ("x",))):
            keys = [f"{group}_g{i}" for i in range(4)]
            fields = TensorDict({name: torch.ones(4, 2) for name in names}, batch_size=[4])
            client.put_samples(keys, "train", fields, [{"weight_version": version}] * 4)
    client.put_samples(["p2_g0"], "train", TensorDict({"x": torch.ones(1, 2)}, batch_size=[1]))
else:
    client.publish_weight_version(6)
    client.get_data(client.claim_meta("train", "trainer", ["x", "y"], 4))
    client.list_metadata("train")
    client.get_samples(["p1_g0"], "train", ["x"])
    client.pop([f"p0_g{i}" for i in range(4)], "train")
    client.evict([f"p1_g{i}" for i in range(4)], "train")
    client.pop(["p2_g0"], "train")

collected: Any = reader.get_metrics_data()
lags = [
    {"operation": point.attributes["operation"], "count": point.count, "sum": point.sum}
    for resource in collected.resource_metrics
    for scope in resource.scope_metrics
    for metric in scope.metrics
    if metric.name == "dataplane.client.consumed.lag"
    for point in metric.data.data_points
]
spans = [
    {
        "name": span.name,
        "trace": span.context.trace_id,
        "span": span.context.span_id,
        "links": [[link.context.trace_id, link.context.span_id] for link in span.links],
    }
    for span in exporter.get_finished_spans()
]
failures = client.snapshot()["observer_failures"]
client.close()
print("\n" + json.dumps({"spans": spans, "lags": lags, "observer_failures": failures}))
