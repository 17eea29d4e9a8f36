"""One metadata poll over the wire against one public ``tq.kv_list`` of the same partition, on a real TransferQueue.

A poll is request, decoding and grouping. Both are measured in alternating pairs in one run, so that other load on the
machine affects both. The result is the median of the pairs' ratios. Exits with 1 when a ratio misses the bar.

The bar holds for tags of several fields, as ``recovery`` and ``verl`` have them: the public list is slow because it
decodes tags. With NeMo RL's single tag there is little to save; its ratio is shown for information. ``reply`` is the
part of a poll from request to reply, in which nothing of ours runs.

    python benchmarks/poll.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataplane.adapters.wire import WireMetadataReader
from tests.support.cluster import TQCluster

_KV_LIST = """
import time
started = time.perf_counter()
rows = tq.kv_list(partition_id=partition_id)
result = time.perf_counter() - started
assert len(rows[partition_id]) == keys
del rows
"""


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    columns = " ".join(f"{name:>10}" for name in ("reply", "poll", "kv_list"))
    print(f"{'keys':>8} {'group':>5} {'tags':<9} {columns} {'ratio':>6}   bar {options.bar:g}")
    missed = False
    with TQCluster() as cluster:
        for keys, group_size, convention in options.cases:
            # One for each case, since a reader learns how to decode a partition's tags fast.
            reader = WireMetadataReader(cluster.controller.address, timeout_s=60.0)
            cluster.clear_all()
            _fill(cluster, keys, group_size, convention)
            pairs = list(_measure(cluster, reader, keys, group_size, options.pairs))
            ratio = statistics.median(poll / public for _, poll, public in pairs)
            medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
            verdict = "no bar" if convention == "nemo-rl" else "missed" if ratio > options.bar else "ok"
            missed = missed or verdict == "missed"
            times = " ".join(f"{seconds * 1e3:7.1f} ms" for seconds in medians)
            print(f"{keys:>8} {group_size:>5} {convention:<9} {times} {ratio:6.2f}   {verdict}", flush=True)
            reader.close()
    return 1 if missed else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks/poll.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15, help="pairs of measurements per case (default %(default)s)")
    parser.add_argument("--bar", type=float, default=0.5, help="largest ratio that passes (default %(default)s)")
    parser.add_argument(
        "--case",
        dest="cases",
        action="append",
        type=_case,
        metavar="KEYS:GROUP_SIZE:TAGS",
        help=f"for example 10000:16:verl; tags are {', '.join(_TAGS)}; repeatable (default: each, both sizes)",
    )
    options = parser.parse_args(argv)
    options.cases = options.cases or [(keys, 16, convention) for keys in (10_000, 100_000) for convention in _TAGS]
    return options


def _case(text: str) -> tuple[int, int, str]:
    keys, group_size, convention = text.split(":")
    if convention not in _TAGS:
        raise argparse.ArgumentTypeError(f"tags must be one of {', '.join(_TAGS)}, not {convention!r}")
    return int(keys), int(group_size), convention


def _fill(cluster: TQCluster, keys: int, group_size: int, convention: str) -> None:
    rows = list(_rows(keys, group_size, convention))
    for start in range(0, keys, 10_000):
        chunk = rows[start : start + 10_000]
        cluster.put("bench", [key for key, _ in chunk], tags=[tag for _, tag in chunk], fields=None)


def _rows(keys: int, group_size: int, convention: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number in range(keys):
        group, index = divmod(number, group_size)
        if index == 0:
            uid = str(uuid.uuid4())
        yield _TAGS[convention](uid, index, group_size, 100 + number * 4 // keys, 1.7e9 + group)


def _recovery(uid: str, index: int, group_size: int, version: int, created_at: float) -> tuple[str, dict[str, Any]]:
    return f"{uid}_{index}", {
        "weight_version": version,
        "group_id": uid,
        "committed": True,
        "expected_num_keys": group_size,
        "created_at": created_at,
        "size_bytes": 4096,
    }


def _verl(uid: str, index: int, group_size: int, version: int, created_at: float) -> tuple[str, dict[str, Any]]:
    if index == 0:
        return uid, {"is_prompt": True, "status": "finished", "global_steps": version}
    return f"{uid}_{index}_0", {
        "status": "finished",
        "prompt_len": 512,
        "response_len": 1000 + index,
        "seq_len": 1512 + index,
        "global_steps": version,
        "min_global_steps": version - 1,
        "max_global_steps": version,
        "is_padding": False,
    }


def _nemo_rl(uid: str, index: int, group_size: int, version: int, created_at: float) -> tuple[str, dict[str, Any]]:
    return f"{uid}_g{index}", {"weight_version": version}


_TAGS = {"recovery": _recovery, "verl": _verl, "nemo-rl": _nemo_rl}


def _measure(
    cluster: TQCluster, reader: WireMetadataReader, keys: int, group_size: int, pairs: int
) -> Iterator[tuple[float, float, float]]:
    """Yield, for each pair, the seconds until the poll's reply, of the poll, and of the public list."""

    def poll() -> tuple[float, float]:
        busy, started = reader.controller_seconds, time.perf_counter()
        groups = reader.list_metadata("bench")
        took = time.perf_counter() - started
        assert len(groups) == -(-keys // group_size)
        return reader.controller_seconds - busy, took

    def kv_list() -> float:
        took: float = cluster.run(_KV_LIST, partition_id="bench", keys=keys)
        return took

    poll(), kv_list()  # warms both up
    for number in range(pairs):
        # The second one finds the controller's memory in the CPU cache, so the order alternates too.
        if number % 2:
            (reply_s, poll_s), public_s = poll(), kv_list()
        else:
            public_s, (reply_s, poll_s) = kv_list(), poll()
        yield reply_s, poll_s, public_s


if __name__ == "__main__":
    sys.exit(main())
