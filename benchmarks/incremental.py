"""What reading a listing from what changed costs, against reading the whole: CPU time and memory, without Ray.

The replies are made here, as the controller makes them, and change from poll to poll: of the changed groups a third is
gone, a third is rewritten and a third is new. A poll is decoding, grouping and adding up (flow and occupancy), without
the reply itself. Both readers see the same replies in turn, so that other load on the machine affects both.

    python -m benchmarks.incremental
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.rows import SHAPES
from benchmarks.runner import Benchmark, Column, Report
from dataplane.adapters.wire import WireMetadataReader
from dataplane.adapters.wire.protocol import Reply
from dataplane.groups import Listing
from dataplane.partitions import ByName
from exporter.clock import SystemClock
from exporter.memory import keep_memory_small
from exporter.model.partitions import Partitions
from exporter.model.results import MetadataPoll, PartitionListing

_GROUP = 16
_COLUMNS = (
    *(Column("keys", "keys", ",d"), Column("tags", "tags"), Column("changed", "changed, %", "d")),
    *(Column("whole_ms", "whole, ms", ".2f"), Column("changed_ms", "incremental, ms", ".2f")),
    *(Column("ratio", "ratio", ".2f"), Column("added_whole_ms", "adding up: whole, ms", ".2f")),
    Column("added_changed_ms", "incremental, ms", ".2f"),
)
_MEMORY = (
    *(Column("keys", "keys", ",d"), Column("tags", "tags"), Column("reply_mb", "reply, MB", ".1f")),
    *(Column("off_mb", "RSS off, MB", ".1f"), Column("on_mb", "RSS on, MB", ".1f")),
    Column("more", "more, of the reply", ".2f"),
)


def measure(report: Report, options: argparse.Namespace) -> None:
    """Measure CPU time, then the memory of a process that does nothing else."""
    table = report.table("incremental", "A listing read as a whole and from what changed", _COLUMNS)
    for keys, tags, percent in product(options.keys, SHAPES, options.changed):
        whole, changed = _Exporter(False), _Exporter(True)
        for frame in _replies(keys, tags, percent, options.polls + 2):
            whole.poll(frame)
            changed.poll(frame)
        read = [statistics.median(one.read[2:]) * 1e3 for one in (whole, changed)]
        added = [statistics.median(one.added[2:]) * 1e3 for one in (whole, changed)]
        table.row(
            keys=keys,
            tags=tags,
            changed=percent,
            whole_ms=read[0],
            changed_ms=read[1],
            ratio=read[1] / read[0],
            added_whole_ms=added[0],
            added_changed_ms=added[1],
        )
    memory = report.table("incremental_memory", "Memory with and without the last reply", _MEMORY)
    for tags in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            size = 0
            for number, frame in enumerate(_replies(options.keys[-1], tags, 3, options.polls)):
                (Path(folder) / f"{number:03}").write_bytes(frame)
                size = len(frame)
            off, on = (_resident(folder, incremental) for incremental in (False, True))
        figures = {"reply_mb": size / 1e6, "off_mb": off / 1e6, "on_mb": on / 1e6}
        memory.row(keys=options.keys[-1], tags=tags, **figures, more=(on - off) / size)


def _resident(folder: str, incremental: bool) -> int:
    program = "import sys; from benchmarks.incremental import show_memory; show_memory(*sys.argv[1:])"
    command = [sys.executable, "-c", program, folder, str(incremental)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def show_memory(folder: str, incremental: str) -> None:
    """Read the replies in *folder*, and print how many bytes of memory this process has then."""
    keep_memory_small()
    exporter = _Exporter(incremental == "True")
    for path in sorted(Path(folder).iterdir()):
        exporter.poll(path.read_bytes())
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    print(int(fields[0]) * 1024)


class _Exporter:
    """A reader and what adds up its listings, without a socket. ``read`` and ``added`` are seconds of CPU time."""

    def __init__(self, incremental: bool) -> None:
        self._reader = WireMetadataReader("tcp://127.0.0.1:1", incremental=incremental)
        vars(self._reader)["_connection"] = self
        self._frame = b""
        self._partitions = Partitions(SystemClock(), settings=ByName({}), max_partitions=100, max_versions=16)
        self.read: list[float] = []
        self.added: list[float] = []

    def call(self, kind: str, body: Mapping[str, Any], decode: Any, **where: object) -> Any:
        reply: Reply[Any] = decode(memoryview(self._frame))
        return reply.body

    def poll(self, frame: bytes) -> None:
        self._frame = frame
        started = time.process_time()
        groups = self._reader.list_metadata("bench")
        read = time.process_time()
        assert isinstance(groups, Listing)
        listing = PartitionListing("bench", groups, 0.0, groups.convention, groups.rows, groups.stated_version)
        self._partitions.take_in(MetadataPoll(("bench",), (listing,), (), None, 0.0, None), keep_s=60.0)
        self.added.append(time.process_time() - read)
        self.read.append(read - started)
        self._frame = b""


def _replies(keys: int, tags: str, percent: int, polls: int) -> Iterator[bytes]:
    """Yield replies, of whose groups that share changed since the one before."""
    numbers = random.Random(1)
    groups = [_group(tags, 100) for _ in range(-(-keys // _GROUP))]
    changed = len(groups) * percent // 300
    for poll in range(polls):
        yield _reply(groups)
        del groups[:changed]
        for number in numbers.sample(range(len(groups)), changed):
            groups[number] = _group(tags, 101 + poll, groups[number][0])
        groups += [_group(tags, 101 + poll) for _ in range(changed)]


def _group(tags: str, version: int, uid: str = "") -> tuple[str, bytes]:
    """Return a group's id and the bytes of its rows."""
    uid = uid or str(uuid.uuid4())
    rows = (SHAPES[tags](uid, index, _GROUP, version, 1.7e9 + version) for index in range(_GROUP))
    return uid, b"".join(msgspec.msgpack.encode(key) + msgspec.msgpack.encode(tag) for key, tag in rows)


def _reply(groups: list[tuple[str, bytes]]) -> bytes:
    head = b"\xdf" + (len(groups) * _GROUP).to_bytes(4, "big")
    rows = msgspec.Raw(b"".join((head, *(encoded for _, encoded in groups))))
    message = {
        "request_type": "KV_LIST_RESPONSE",
        "sender_id": "TQ_CONTROLLER_bench",
        "receiver_id": "bench",
        "request_id": uuid.uuid4().hex[:8],
        "timestamp": time.time(),
        "body": {"partition_info": {"bench": rows}, "message": "success"},
    }
    return msgspec.msgpack.encode(message)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keys", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--changed", type=int, nargs="+", default=[0, 3, 100], help="per cent of the groups")
    parser.add_argument("--polls", type=int, default=9, help="polls per case (default %(default)s)")


BENCHMARK = Benchmark("incremental", __doc__, measure, "--keys 1000 --changed 3 --polls 3", _options)

if __name__ == "__main__":
    sys.exit(BENCHMARK.main())
