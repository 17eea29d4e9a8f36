"""What the instrumented client costs, as ratios measured in one run.

    python benchmarks/instrument.py            # a client in memory: a minute, needs torch and tensordict
    python benchmarks/instrument.py --tq       # and puts on a real TransferQueue on a local Ray

The batch has 64 rows and 8 fields: two jagged and one strided nested tensor, three plain tensors, two columns of
Python objects. *By hand* is what anybody pays who records one duration and starts one span that is not sampled.
Variants are timed in turn, round by round, so that a busy machine slows all of them; the median round counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind
from tensordict import NonTensorStack, TensorDict

from dataplane._payload import count_bytes
from dataplane.interfaces import KVBatchMeta
from dataplane.metrics import CLIENT_OPERATION_DURATION
from dataplane.observability import MetricsDataPlaneClient

ROWS = 64
KEYS = [f"0f3b2c5e-7a41-4d5e-9c1d-{i // 8:012d}_g{i % 8}" for i in range(ROWS)]
TAGS = [{"weight_version": 7} for _ in range(ROWS)]


class InMemory:
    """A client that does nothing, at the speed of a method call."""

    def __init__(self) -> None:
        self._meta = KVBatchMeta("train", None, list(KEYS), ["input_ids"], tags=[dict(tag) for tag in TAGS])

    def put_samples(self, sample_ids: Any, partition_id: str, fields: Any = None, tags: Any = None) -> KVBatchMeta:
        return self._meta

    def ping(self, timeout_s: float | None = None) -> float:
        return 0.0

    def pop(self, keys: Any, partition_id: str) -> None:
        return None


def rollout_batch() -> TensorDict:
    """Return one batch as generators write it."""
    lengths = [100 + 3 * i for i in range(ROWS)]

    def jagged(dtype: torch.dtype) -> torch.Tensor:
        return torch.nested.as_nested_tensor([torch.zeros(n, dtype=dtype) for n in lengths], layout=torch.jagged)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strided = torch.nested.as_nested_tensor([torch.zeros(n) for n in lengths], layout=torch.strided)
    return TensorDict(
        {
            "input_ids": jagged(torch.int64),
            "logprobs": jagged(torch.float32),
            "mask": strided,
            "reward": torch.zeros(ROWS, 1),
            "advantage": torch.zeros(ROWS, 1),
            "length": torch.zeros(ROWS, 1, dtype=torch.int64),
            "prompt": NonTensorStack(*[f"prompt {i}" for i in range(ROWS)]),
            "info": NonTensorStack(*[{"source": i} for i in range(ROWS)]),
        },
        batch_size=[ROWS],
    )


def measure(variants: Mapping[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, float]:
    """Return microseconds per call of each variant: the median of *rounds* rounds that take turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            started = time.thread_time()
            for _ in range(calls):
                call()
            times[name].append((time.thread_time() - started) / calls * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def sdk() -> tuple[MeterProvider, TracerProvider]:
    """Return providers with a reader and a sampler that drops every span."""
    return MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False), TracerProvider(
        sampler=ALWAYS_OFF, shutdown_on_exit=False
    )


def cost_per_call(rounds: int, calls: int) -> dict[str, float]:
    """Time calls with and without payload: bare, by hand, wrapped without an SDK and with one."""
    batch, inner = rollout_batch(), InMemory()
    meters, tracers = sdk()
    histogram = meters.get_meter("by hand").create_histogram(
        "by.hand", explicit_bucket_boundaries_advisory=CLIENT_OPERATION_DURATION.boundaries
    )
    tracer = tracers.get_tracer("by hand")
    attributes = {
        "messaging.system": "transfer_queue",
        "messaging.operation.name": "put_samples",
        "messaging.destination.name": "train",
    }

    def by_hand() -> None:
        started = time.perf_counter()
        span = tracer.start_span("put_samples train", kind=SpanKind.PRODUCER, attributes=attributes)
        span.end()
        histogram.record(time.perf_counter() - started, attributes)

    plain = MetricsDataPlaneClient(inner)
    observed = MetricsDataPlaneClient(inner, meter_provider=meters, tracer_provider=tracers)
    return measure(
        {
            "by hand": by_hand,
            "bytes": lambda: count_bytes(batch),
            "put bare": lambda: inner.put_samples(KEYS, "train", batch, TAGS),
            "put without SDK": lambda: plain.put_samples(KEYS, "train", batch, TAGS),
            "put with SDK": lambda: observed.put_samples(KEYS, "train", batch, TAGS),
            "pop bare": lambda: inner.pop(KEYS, "train"),
            "pop without SDK": lambda: plain.pop(KEYS, "train"),
            "pop with SDK": lambda: observed.pop(KEYS, "train"),
            "ping bare": inner.ping,
            "ping without SDK": plain.ping,
            "ping with SDK": observed.ping,
        },
        rounds,
        calls,
    )


def report_cost(times: Mapping[str, float]) -> bool:
    """Print the table and the ratios; return whether all of them are within their limits."""
    for name, value in times.items():
        print(f"{name:18s} {value:8.2f} us")
    budget = 1.5 * times["by hand"]
    ok = True
    for call in ("put", "ping"):
        bytes_us = times["bytes"] if call == "put" else 0.0
        for variant, limit in (("with SDK", budget), ("without SDK", budget / 5)):
            added = times[f"{call} {variant}"] - times[f"{call} bare"] - bytes_us
            ok &= added <= limit
            print(
                f"{call} {variant}: adds {added:.2f} us besides bytes, {added / limit:.2f} of the limit {limit:.2f} us"
            )
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    return 0 if report_cost(cost_per_call(options.rounds, options.calls)) else 1


if __name__ == "__main__":
    sys.exit(main())
