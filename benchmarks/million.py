"""How the exporter's rare listings of a very large partition affect a training loop, and what is known between them.

A client puts, claims, gets and pops groups at a fixed rate, as in :mod:`benchmarks.harm`, beside a partition with a
million keys. Windows without the exporter alternate with windows in which it starts: with its default settings,
which refuse so large a partition, and with the memory that it needs to list it. So each window with the exporter has
the listings of its start. Afterwards there is one in five minutes. The rows are made in the controller's own process,
since that many puts would take long; they have a tag of one integer, and no data.

For each kind of window it prints the loop's latencies, what the exporter says of the partition, and the exporter's
share of the controller's time by its own account. It also prints how long one listing holds the controller. Judges
nothing.

    python -m benchmarks.million
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

os.environ["TQ_LOGGING_LEVEL"] = "ERROR"

from benchmarks.harm import GROUP_KEYS, QUANTILES, TrainingLoop, _connected, _quantile
from dataplane.adapters.wire import WireMetadataReader
from tests.support.cluster import RAY_ENV, TQCluster
from tests.support.exporter_process import ExporterProcess

os.environ.update(RAY_ENV)  # Ray reads them when it is imported

PARTITION: Final = "million"
DEFAULTS: Final = "exporter, defaults"
ROOMY: Final = "exporter, memory"
OFF: Final = "off"

_FILL = """
def fill(controller, name, keys, group, tag):
    controller.create_partition(name)
    partition = controller.partitions[name]
    indexes = controller.index_manager.allocate_indexes(name, count=keys - len(partition.keys_mapping))
    names = [f"r{index // group}_g{index % group}" for index in indexes]
    partition.keys_mapping.update(zip(names, indexes))
    partition.revert_keys_mapping.update(zip(indexes, names))
    partition.custom_meta.update((index, dict(tag)) for index in indexes)
    partition.global_indexes.update(indexes)
    partition.ensure_samples_capacity(max(partition.global_indexes) + 1)
    return len(partition.keys_mapping)

controller = ray.get_actor("TransferQueueController", namespace="transfer_queue")
result = ray.get(controller.__ray_call__.remote(fill, name, keys, group, tag))
"""

_WORK = """
def work(controller, name):
    import time
    from types import SimpleNamespace

    request = SimpleNamespace(body={"partition_id": name}, sender_id="benchmark")
    began = time.thread_time()
    reply = controller._handle_kv_list_request(request)
    handled = time.thread_time()
    frames = reply.serialize()
    return handled - began, time.thread_time() - handled, sum(len(bytes(frame)) for frame in frames)

controller = ray.get_actor("TransferQueueController", namespace="transfer_queue")
result = [ray.get(controller.__ray_call__.remote(work, name)) for _ in range(3)]
"""


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    options = _options(argv)
    latencies: dict[str, list[list[float]]] = {OFF: [], DEFAULTS: [], ROOMY: []}
    said: dict[str, str] = {}
    with (
        TQCluster(storage_units=2, metrics=True, timeout_s=600.0) as cluster,
        _connected(cluster) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        loop = TrainingLoop(client, options.rate)
        started = time.perf_counter()
        tag = {"weight_version": 1, **{f"field_{number}": number for number in range(1, options.fields)}}
        held = cluster.run(_FILL, name=PARTITION, keys=options.keys, group=GROUP_KEYS, tag=tag)
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        print(
            f"{held} keys in one partition, made in {time.perf_counter() - started:.1f} s; {options.rate:g} cycles/s "
            f"of put, claim, get, pop; windows of {options.window:g} s; load {load:.1f} per core"
        )
        handled, encoded, size = min(cluster.run(_WORK, name=PARTITION))
        print(
            f"the controller's work for one listing, in CPU time: {(handled + encoded) * 1e3:.0f} ms, "
            f"{handled * 1e3:.0f} ms of it in the handler; {size / 1e6:.0f} MB"
        )
        print(_one_listing(cluster.controller.address, options.keys))
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
    _report(latencies, said)
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.million", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys of the partition (default %(default)s)")
    parser.add_argument("--fields", type=int, default=1, help="integers in each tag (default %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="cycles a second (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each kind (default %(default)s)")
    parser.add_argument("--window", type=float, default=60.0, help="seconds of a window (default %(default)s)")
    parser.add_argument("--memory", default="1GiB", help="metadata.max_memory that lists it (default %(default)s)")
    return parser.parse_args(argv)


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


def _one_listing(address: str, keys: int) -> str:
    """Return how long the controller's thread is held by one listing: another connection's ping waits that long."""
    reader = WireMetadataReader(address, timeout_s=60.0, max_rows=10 * keys + 1000, max_reply_bytes=2**30)
    try:
        pings = sorted(reader.ping() for _ in range(5))
        before, cpu = reader.controller_seconds, time.process_time()
        reader.list_metadata(PARTITION)
        took = reader.controller_seconds - before
    finally:
        reader.close()
    decoded = time.process_time() - cpu
    ping_ms = pings[2] * 1e3
    return f"one listing: {took * 1e3:.0f} ms from send to reply (a ping: {ping_ms:.1f} ms), read in {decoded:.2f} s"


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


def _report(latencies: Mapping[str, Sequence[Sequence[float]]], said: Mapping[str, str]) -> None:
    print(f"\n{'ms':<22}{'cycles':>9}" + "".join(f"{name:>9}" for name in QUANTILES) + f"{'longest':>9}")
    for kind, windows in latencies.items():
        pooled = sorted(itertools.chain.from_iterable(windows))
        figures = [_quantile(pooled, share) for share in QUANTILES.values()] + [pooled[-1]]
        print(f"{kind:<22}{len(pooled):>9}" + "".join(f"{figure * 1e3:9.1f}" for figure in figures))
    for kind, text in said.items():
        print(f"{kind}: {text}")


if __name__ == "__main__":
    sys.exit(main())
