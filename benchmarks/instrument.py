"""Cost of the instrumented client, as ratios measured in one run. Exits with 1 when one misses its bar.

The batch has 64 rows and 8 fields: two jagged and one strided nested tensor, three plain tensors, two columns of
Python objects. A put writes it, a get reads it, a clear removes its 64 keys, a ping has no payload. *By hand* is the
minimal instrumentation: record one duration and start one span that is not sampled. Each bar is a multiple of that, on
top of the byte count, which both sides need. What ``propagate`` adds to a put is a copy of each of its 64 tags.

Variants alternate within each round, so that a busy machine slows all of them. The result compares the best round of
each, in CPU time of the thread: what other programs do to the caches only adds. A reader collects between the rounds,
as an exporter's thread does; what the wrapper has left for it to record is a line of its own.

    python -m benchmarks.instrument          # a client in memory, half a minute; needs torch and tensordict
    python -m benchmarks.instrument --tq     # and puts on a real TransferQueue on a local Ray
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import threading
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

from dataplane.interfaces import KVBatchMeta
from dataplane.metrics import CLIENT_OPERATION_DURATION
from dataplane.observability import MetricsDataPlaneClient
from dataplane.observability.payload import count_bytes

Times = dict[str, list[float]]
"""Microseconds per call of each variant, one for each round."""

BARS = {
    ("put", "with SDK"): 1.3,
    ("put", "without SDK"): 0.4,
    ("get", "with SDK"): 1.3,
    ("get", "without SDK"): 0.3,
    ("clear", "with SDK"): 1.3,
    ("clear", "without SDK"): 0.35,
    ("ping", "with SDK"): 0.8,
    ("ping", "without SDK"): 0.2,
}
"""What a call may cost, in multiples of the minimal instrumentation."""

PROPAGATE_BAR = 1.1

COLLECTING = "collected later, per call"

ROWS = 64
TAGS = [{"weight_version": 7} for _ in range(ROWS)]


def keys_of_group(group: int) -> list[str]:
    """Return the keys of a group of rollouts as NeMo RL names them."""
    return [f"0f3b2c5e-7a41-4d5e-9c1d-{group:012d}_g{i}" for i in range(ROWS)]


KEYS = keys_of_group(0)


class InMemory:
    """A client that does nothing, as fast as a method call."""

    def __init__(self, batch: TensorDict | None = None) -> None:
        self._meta = KVBatchMeta("train", None, list(KEYS), ["input_ids"], tags=[dict(tag) for tag in TAGS])
        self._batch = batch

    def get_samples(self, sample_ids: Any, partition_id: str, select_fields: Any) -> TensorDict | None:
        return self._batch

    def clear_samples(self, sample_ids: Any, partition_id: str) -> None:
        return None

    def put_samples(self, sample_ids: Any, partition_id: str, fields: Any = None, tags: Any = None) -> KVBatchMeta:
        return self._meta

    def ping(self, timeout_s: float | None = None) -> float:
        return 0.0


def rollout_batch() -> TensorDict:
    """Return one batch as a rollout writes it."""
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


def sdk() -> tuple[InMemoryMetricReader, MeterProvider, TracerProvider]:
    """Return a reader, and providers with that reader and a sampler that drops every span."""
    reader = InMemoryMetricReader()
    meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    return reader, meters, TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)


def cost_per_call(rounds: int, calls: int) -> Times:
    """Return microseconds per call for each round: bare, by hand, wrapped without an SDK and with one."""
    batch = rollout_batch()
    inner = InMemory(batch)
    reader, meters, tracers = sdk()
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

    observed = MetricsDataPlaneClient(inner, meter_provider=meters, tracer_provider=tracers)
    clients: dict[str, Any] = {"bare": inner, "without SDK": MetricsDataPlaneClient(inner), "with SDK": observed}
    propagating = MetricsDataPlaneClient(inner, meter_provider=meters, tracer_provider=tracers, propagate=True)
    calls_of: dict[str, Callable[[Any], Callable[[], object]]] = {
        "put": lambda client: lambda: client.put_samples(KEYS, "train", batch, TAGS),
        "get": lambda client: lambda: client.get_samples(KEYS, "train", ["input_ids"]),
        "clear": lambda client: lambda: client.clear_samples(KEYS, "train"),
        "ping": lambda client: client.ping,
    }
    return _measure(
        {
            "by hand": by_hand,
            "bytes": lambda: count_bytes(batch),
            "bytes, the usual walk": lambda: sum(
                leaf.numel() * leaf.element_size()
                for leaf in batch.values(include_nested=True, leaves_only=True)
                if isinstance(leaf, torch.Tensor)
            ),
            **{f"{call} {variant}": of(clients[variant]) for call, of in calls_of.items() for variant in clients},
            "put propagating": calls_of["put"](propagating),
        },
        rounds,
        calls,
        reader,
    )


def _measure(
    variants: Mapping[str, Callable[[], object]], rounds: int, calls: int, reader: InMemoryMetricReader
) -> Times:
    reader.collect()
    times: Times = {name: [] for name in [*variants, COLLECTING]}
    for _ in range(rounds):
        for name, call in variants.items():
            started = time.thread_time()
            for _ in range(calls):
                call()
            times[name].append((time.thread_time() - started) / calls * 1e6)
        started = time.thread_time()
        reader.collect()
        collected = sum(name.endswith(("with SDK", "propagating")) for name in variants) * calls
        times[COLLECTING].append((time.thread_time() - started) / collected * 1e6)
    return times


def report_cost(times: Times) -> bool:
    """Print the table and the ratios to the bars; return whether all are met."""
    for name, values in times.items():
        print(f"{name:26s} median {statistics.median(values):8.2f} us, best {min(values):8.2f} us")
    best = {name: min(values) for name, values in times.items()}
    met = True
    for (call, variant), multiple in BARS.items():
        added = best[f"{call} {variant}"] - best[f"{call} bare"]
        besides = added - (best["bytes"] if call in ("put", "get") else 0.0)
        met &= besides <= multiple * best["by hand"]
        print(
            f"{call + ' ' + variant:26s} adds {added:6.2f} us: besides the byte count "
            f"{besides / best['by hand']:.2f} times the cost by hand, at most {multiple:.2f}"
        )
    added = best["put propagating"] - best["put with SDK"]
    print(
        f"{'propagate':26s} adds {added:6.2f} us to a put: {added / best['by hand']:.2f}, at most {PROPAGATE_BAR:.2f}"
    )
    return met and added <= PROPAGATE_BAR * best["by hand"]


class Remote(InMemory):
    """A client that waits for its answer without the interpreter lock, as a network client does."""

    def put_samples(self, sample_ids: Any, partition_id: str, fields: Any = None, tags: Any = None) -> KVBatchMeta:
        time.sleep(0.003)
        return self._meta


def report_threads(threads: int, puts: int) -> bool:
    """Time a call of 3 ms from several threads, bare and wrapped in turn; return whether the bar is met."""
    inner = Remote()
    _, meters, tracers = sdk()
    wrapped = MetricsDataPlaneClient(inner, meter_provider=meters, tracer_provider=tracers)
    samples = _take_turns(inner, wrapped, puts, threads)
    p99 = {name: statistics.median(map(_p99_ms, turns)) for name, turns in samples.items()}
    ratio = p99["wrapped"] / p99["bare"]
    counted, made = wrapped.snapshot()["ops"]["put"]["count"], sum(map(len, samples["wrapped"]))
    print(
        f"{threads} threads, a call of 3 ms: p99 {p99['bare']:.2f} -> {p99['wrapped']:.2f} ms ({ratio:.2f}), "
        f"{counted} of {made} calls counted"
    )
    return ratio <= 1.3 and counted == made


def report_tq(added_us: float, puts: int) -> bool:
    """Time puts on a real TransferQueue, bare and wrapped in turn; return whether the bar is met."""
    os.environ["TQ_LOGGING_LEVEL"] = "ERROR"
    from tests.support.cluster import RAY_ENV, TQCluster

    os.environ.update(RAY_ENV)
    import ray

    from dataplane.factory import build_data_plane_client

    _, meters, tracers = sdk()
    with TQCluster() as cluster:
        ray.init(address=cluster.ray_address, log_to_driver=False, configure_logging=False)
        bare = build_data_plane_client({"enabled": True}, bootstrap=False)
        wrapped = MetricsDataPlaneClient(bare, meter_provider=meters, tracer_provider=tracers)
        samples = _take_turns(bare, wrapped, puts, 1)
        bare.close()
        ray.shutdown()
    p50 = {name: statistics.median(itertools.chain.from_iterable(turns)) * 1e3 for name, turns in samples.items()}
    share = added_us / 1e3 / p50["bare"]
    print(f"a put on TransferQueue: p50 {p50['bare']:.2f} -> {p50['wrapped']:.2f} ms; the wrapper adds {share:.2%}")
    return share <= 0.01


def _take_turns(bare: Any, wrapped: Any, puts: int, threads: int) -> dict[str, list[list[float]]]:
    """Return the durations of each turn. Other load on the machine affects some turns, but not their median."""
    turns: dict[str, list[list[float]]] = {"bare": [], "wrapped": []}
    pair = [("bare", bare), ("wrapped", wrapped)]
    for _ in range(10):
        for name, client in pair:
            turns[name].append(_timed_puts(client, puts // 10, threads))
        pair.reverse()
    return turns


def _p99_ms(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] * 1e3


def _timed_puts(client: Any, puts: int, threads: int) -> list[float]:
    times: list[float] = []

    def work(thread: int) -> None:
        batch = rollout_batch()
        for i in range(puts // threads):
            keys = keys_of_group(1000 * thread + i)
            started = time.perf_counter()
            client.put_samples(keys, "train", batch, TAGS)
            times.append(time.perf_counter() - started)

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return times


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instrument", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=75, help="rounds of the in-memory part (default %(default)s)")
    parser.add_argument("--calls", type=int, default=500, help="calls per round (default %(default)s)")
    parser.add_argument("--puts", type=int, default=16_000, help="puts of the threads together (default %(default)s)")
    parser.add_argument("--tq", action="store_true", help="also measure on a real TransferQueue")
    options = parser.parse_args(argv)
    times = cost_per_call(options.rounds, options.calls)
    met = report_cost(times)
    met &= report_threads(threads=8, puts=options.puts)
    if options.tq:
        added = statistics.median(times["put with SDK"]) - statistics.median(times["put bare"])
        met &= report_tq(added, puts=options.puts // 40)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
