"""Cost of the instrumented client, as ratios measured in one run.

The batch has 64 rows and 8 fields: two jagged and one strided nested tensor, three plain tensors, two columns of
Python objects. A put writes it, a get reads it, a clear removes its 64 keys, a ping has no payload. *By hand* is the
minimal instrumentation: record one duration and start one span that is not sampled. Each bar is a multiple of that, on
top of the byte count, which both sides need. What ``propagate`` adds to a put is a copy of each of its 64 tags.

Variants alternate within each round, so that a busy machine slows all of them. The result compares the best round of
each, in CPU time of the thread: what other programs do to the caches only adds. A reader collects between the rounds,
as an exporter's thread does; what the wrapper has left for it to record is a line of its own.

    python -m benchmarks.instrument
"""

from __future__ import annotations

import argparse
import itertools
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

from benchmarks.runner import Benchmark, Column, Report, Table
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

_CALLS = (
    *(Column("what", "what", width=25), Column("median_us", "median, us", ".2f"), Column("best_us", "best, us", ".2f")),
)
_ADDED = (
    *(Column("what", "what", width=27), Column("added_us", "adds, us", ".2f"), Column("ratio", "added/by hand", ".2f")),
    Column("bar", "at most", ".2f"),
)
_THREADS = (
    *(Column("bare_ms", "bare p99, ms", ".2f"), Column("wrapped_ms", "wrapped p99, ms", ".2f")),
    *(Column("ratio", "wrapped/bare", ".2f"), Column("made", "calls", ",d"), Column("counted", "counted", ",d")),
)
_PUT = (
    *(Column("bare_ms", "bare p50, ms", ".2f"), Column("wrapped_ms", "wrapped p50, ms", ".2f")),
    Column("share", "wrapper's CPU, % of the put", ".2f"),
)

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


def report_cost(report: Report, times: Times) -> None:
    """Fill the tables of what calls take, and of what the wrapper adds to them."""
    table = report.table("calls", f"A call with {ROWS} rows, CPU time of its thread", _CALLS)
    for name, values in times.items():
        table.row(what=name, median_us=statistics.median(values), best_us=min(values))
    best = {name: min(values) for name, values in times.items()}
    table = report.table("wrapper", "What the wrapper adds, besides the byte count", _ADDED)
    for (call, variant), multiple in BARS.items():
        added = best[f"{call} {variant}"] - best[f"{call} bare"] - (best["bytes"] if call in ("put", "get") else 0.0)
        _add(report, table, f"{call} {variant}", added, best["by hand"], multiple)
    propagating = best["put propagating"] - best["put with SDK"]
    _add(report, table, "propagate, on top of a put", propagating, best["by hand"], PROPAGATE_BAR)


def _add(report: Report, table: Table, what: str, added_us: float, by_hand_us: float, bar: float) -> None:
    table.row(what=what, added_us=added_us, ratio=added_us / by_hand_us, bar=bar)
    report.bar(f"{what} / by hand", added_us / by_hand_us, bar)


class Remote(InMemory):
    """A client that waits for its answer without the interpreter lock, as a network client does."""

    def put_samples(self, sample_ids: Any, partition_id: str, fields: Any = None, tags: Any = None) -> KVBatchMeta:
        time.sleep(0.003)
        return self._meta


def report_threads(report: Report, threads: int, puts: int) -> None:
    """Time a call of 3 ms from several threads, bare and wrapped in turn."""
    inner = Remote()
    _, meters, tracers = sdk()
    wrapped = MetricsDataPlaneClient(inner, meter_provider=meters, tracer_provider=tracers)
    samples = _take_turns(inner, wrapped, puts, threads)
    p99 = {name: statistics.median(map(_p99_ms, turns)) for name, turns in samples.items()}
    ratio = p99["wrapped"] / p99["bare"]
    counted, made = wrapped.snapshot()["ops"]["put"]["count"], sum(map(len, samples["wrapped"]))
    table = report.table("wrapper_threads", f"A call of 3 ms from {threads} threads", _THREADS)
    table.row(bare_ms=p99["bare"], wrapped_ms=p99["wrapped"], ratio=ratio, counted=counted, made=made)
    report.bar("p99 from threads, wrapped / bare", ratio, 1.3)
    assert counted == made


def report_tq(report: Report, added_us: float, puts: int) -> None:
    """Time puts on a real TransferQueue, bare and wrapped in turn."""
    _, meters, tracers = sdk()
    bare = report.client
    report.cluster.clear_all()
    wrapped = MetricsDataPlaneClient(bare, meter_provider=meters, tracer_provider=tracers)
    samples = _take_turns(bare, wrapped, puts, 1)
    report.cluster.clear_all()
    p50 = {name: statistics.median(itertools.chain.from_iterable(turns)) * 1e3 for name, turns in samples.items()}
    share = added_us / 1e3 / p50["bare"]
    table = report.table("wrapper_put", f"A put of {ROWS} rows on TransferQueue", _PUT)
    table.row(bare_ms=p50["bare"], wrapped_ms=p50["wrapped"], share=share * 100)
    report.bar("share of the wrapper in a put on TransferQueue, %", share * 100, 1.0)


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


def measure(report: Report, options: argparse.Namespace) -> None:
    """Measure in memory, from threads, and on TransferQueue."""
    times = cost_per_call(options.rounds, options.calls)
    report_cost(report, times)
    report_threads(report, threads=8, puts=options.puts)
    added = statistics.median(times["put with SDK"]) - statistics.median(times["put bare"])
    report_tq(report, added, puts=options.puts // 40)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=75, help="rounds of the in-memory part (default %(default)s)")
    parser.add_argument("--calls", type=int, default=500, help="calls per round (default %(default)s)")
    parser.add_argument("--puts", type=int, default=16_000, help="puts of the threads together (default %(default)s)")


BENCHMARK = Benchmark("instrument", __doc__, measure, "--rounds 2 --calls 20 --puts 1600", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
