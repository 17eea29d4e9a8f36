"""How the exporter's rare listings of a very large partition affect a training loop, and what is known between them.

A client puts, claims, gets and pops groups at a fixed rate, as in :mod:`benchmarks.harm`, beside a partition with a
million keys. Windows without the exporter alternate with windows in which it starts: with its default settings,
which refuse so large a partition, and with the memory that it needs to list it. So each window with the exporter has
the listings of its start. Afterwards there is one in five minutes. The rows are made in the controller's own process,
since that many puts would take long; they have a tag of one integer, and no data.

The tables have the latencies of the loop, what the exporter says of the partition in each kind of window, and
how long one listing holds the controller. No figure is judged.

    python -m benchmarks.million
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.harm import GROUP_KEYS, QUANTILES, TrainingLoop, quantile
from benchmarks.runner import Benchmark, Column, Report
from dataplane.adapters.wire import WireMetadataReader
from tests.support.exporter_process import ExporterProcess

PARTITION: Final = "million"
DEFAULTS: Final = "exporter, defaults"
ROOMY: Final = "exporter, memory"
OFF: Final = "off"

_FILL = """
def fill(controller, name, keys, group):
    controller.create_partition(name)
    partition = controller.partitions[name]
    indexes = controller.index_manager.allocate_indexes(name, count=keys - len(partition.keys_mapping))
    names = [f"r{index // group}_g{index % group}" for index in indexes]
    partition.keys_mapping.update(zip(names, indexes))
    partition.revert_keys_mapping.update(zip(indexes, names))
    partition.custom_meta.update((index, {"weight_version": 1}) for index in indexes)
    partition.global_indexes.update(indexes)
    partition.ensure_samples_capacity(max(partition.global_indexes) + 1)
    return len(partition.keys_mapping)

controller = ray.get_actor("TransferQueueController", namespace="transfer_queue")
result = ray.get(controller.__ray_call__.remote(fill, name, keys, group))
"""


_LISTING = (
    *(Column("keys", "keys", ",d"), Column("reply_ms", "one listing, send to reply, ms", ".0f")),
    *(Column("ping_ms", "a ping, ms", ".1f"), Column("cpu_s", "reading it, CPU s", ".2f")),
)
_WINDOWS = (
    *(Column("what", "beside it", width=18), Column("cycles", "cycles", ",d")),
    *(Column(name, f"{name}, ms", ".1f") for name in (*QUANTILES, "longest")),
    Column("said", "what the exporter says at the end", width=60),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Fill the partition, list it once, and run the windows in turns."""
    latencies: dict[str, list[list[float]]] = {OFF: [], DEFAULTS: [], ROOMY: []}
    said: dict[str, str] = {}
    cluster = report.cluster
    cluster.clear_all()
    loop = TrainingLoop(report.client, options.rate)
    held = cluster.run(_FILL, name=PARTITION, keys=options.keys, group=GROUP_KEYS)
    report.table("million_listing", "One listing of a very large partition", _LISTING).row(
        keys=held, **_one_listing(cluster.controller.address, options.keys)
    )
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "endpoint.json")
        _publish(record)
        loop.run(min(2.0, options.window))  # warms up
        kinds = list(latencies)
        for number in range(options.rounds):
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                if kind == OFF:
                    latencies[kind].append(loop.run(options.window))
                    continue
                env = {"TQ_EXPORTER_METADATA_MAX_MEMORY": options.memory} if kind == ROOMY else {}
                with ExporterProcess("--discovery-file", str(record), env=env) as exporter:
                    latencies[kind].append(loop.run(options.window))
                    said[kind] = _said(exporter)
    table = report.table("million", f"A training loop beside it; windows of {options.window:g} s", _WINDOWS)
    for kind, windows in latencies.items():
        pooled = sorted(itertools.chain.from_iterable(windows))
        figures = {name: quantile(pooled, share) * 1e3 for name, share in QUANTILES.items()}
        table.row(what=kind, cycles=len(pooled), **figures, longest=pooled[-1] * 1e3, said=said.get(kind))
    cluster.clear_all()


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys of the partition (default %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="cycles a second (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="windows of each kind (default %(default)s)")
    parser.add_argument("--window", type=float, default=20.0, help="seconds of a window (default %(default)s)")
    parser.add_argument("--memory", default="1GiB", help="metadata.max_memory that lists it (default %(default)s)")


def _publish(record: Path) -> None:
    """Write the discovery record once: this process is connected to Ray."""
    from dataplane.discovery.publish import publish_endpoint

    publisher = publish_endpoint(record)
    deadline = time.monotonic() + 60
    while not record.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    content = record.read_bytes()
    publisher.close()
    record.write_bytes(content)


def _one_listing(address: str, keys: int) -> dict[str, float]:
    """Return how long the controller's thread is held by one listing: another connection's ping waits that long."""
    reader = WireMetadataReader(address, timeout_s=60.0, max_rows=10 * keys + 1000, max_reply_bytes=2**30)
    try:
        pings = sorted(reader.ping() for _ in range(5))
        before, cpu = reader.controller_seconds, time.process_time()
        reader.list_metadata(PARTITION)
        took = reader.controller_seconds - before
    finally:
        reader.close()
    return {"reply_ms": took * 1e3, "ping_ms": pings[2] * 1e3, "cpu_s": time.process_time() - cpu}


def _said(exporter: ExporterProcess) -> str:
    """Return what the exporter says of the partition."""
    snapshot = exporter.snapshot()
    status: Mapping[str, Any] = next((one for one in snapshot["statuses"] if one["partition"] == PARTITION), {})
    listed = next((one for one in snapshot["partitions"] if one["partition"] == PARTITION), None)
    estimate = next((one for one in snapshot["estimates"] if one["partition"] == PARTITION), None)
    words = [f"readable {status.get('readable')} ({status.get('reason') or 'ok'})"]
    if listed is not None:
        words.append(f"listed {listed['rows']} rows {snapshot['taken_at'] - listed['listed_at']:.0f} s ago")
    if estimate is not None:
        age = snapshot["taken_at"] - estimate["at"]
        words.append(f"about {estimate['keys']} keys from {estimate['basis']}, {age:.0f} s ago")
    busy = snapshot["controller_busy_ratio"]
    words.append(f"busy ratio {'unknown' if busy is None else f'{busy:.2%}'}")
    words.append(f"{exporter.process.memory_info().rss / 1e6:.0f} MB")
    return ", ".join(words)


BENCHMARK = Benchmark("million", __doc__, measure, "--keys 1000 --rounds 1 --window 0.5", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
