"""What reading a listing from what changed costs, against reading the whole: CPU time and memory, without Ray.

The replies are made here, as the controller makes them, and change from poll to poll: of the changed groups a third is
gone, a third is rewritten and a third is new. A poll is decoding, grouping and adding up (flow and occupancy), without
the reply itself. Both readers see the same replies in turn, so that other load on the machine affects both.

    python -m benchmarks.incremental
    python -m benchmarks.incremental --memory
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
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.rows import SHAPES
from dataplane.adapters.wire import WireMetadataReader
from dataplane.adapters.wire.protocol import Reply
from dataplane.groups import Listing
from dataplane.partitions import ByName
from exporter.clock import SystemClock
from exporter.memory import keep_memory_small
from exporter.model.partitions import Partitions
from exporter.model.results import MetadataPoll, PartitionListing

TAGS = ("recovery", "verl", "nemo-rl")
CHANGED = (0, 3, 100)
_GROUP = 16
_MB = 2**20


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.incremental", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--keys", type=int, action="append", help="repeatable (default 1000, 10000 and 100000)")
    parser.add_argument("--polls", type=int, default=9, help="polls per case (default %(default)s)")
    parser.add_argument("--memory", action="store_true", help="measure the memory of a process that does nothing else")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        return _child(Path(options.child[0]), options.child[1] == "True")
    keys = options.keys or [1000, 10_000, 100_000]
    (_memory if options.memory else _time)(keys, options.polls)
    return 0


def _time(sizes: list[int], polls: int) -> None:
    print(f"{'keys':>8} {'tags':<9} {'changed':>7} {'whole':>9} {'changed':>9} {'ratio':>6} {'adding up':>19}")
    for keys in sizes:
        for tags in TAGS:
            for percent in CHANGED:
                whole, changed = _Exporter(False), _Exporter(True)
                for frame in _replies(keys, tags, percent, polls + 2):
                    whole.poll(frame)
                    changed.poll(frame)
                columns = [statistics.median(one.read[2:]) * 1e3 for one in (whole, changed)]
                added = [statistics.median(one.added[2:]) * 1e3 for one in (whole, changed)]
                print(
                    f"{keys:>8} {tags:<9} {percent:>5} % {columns[0]:6.2f} ms {columns[1]:6.2f} ms "
                    f"{columns[1] / columns[0]:6.2f} {added[0]:6.2f} → {added[1]:5.2f} ms",
                    flush=True,
                )


def _memory(sizes: list[int], polls: int) -> None:
    print(f"{'keys':>8} {'tags':<9} {'reply':>7} {'off':>7} {'on':>7} {'more':>7} {'of the reply':>12}")
    for keys in sizes:
        for tags in TAGS:
            with tempfile.TemporaryDirectory() as folder:
                size = 0
                for number, frame in enumerate(_replies(keys, tags, 3, polls)):
                    (Path(folder) / f"{number:03}").write_bytes(frame)
                    size = len(frame)
                off, on = (_resident(folder, incremental) for incremental in (False, True))
            more = on - off
            print(
                f"{keys:>8} {tags:<9} {size / _MB:4.0f} MB {off / _MB:4.0f} MB {on / _MB:4.0f} MB {more / _MB:4.0f} MB "
                f"{more / size:12.2f}",
                flush=True,
            )


def _resident(folder: str, incremental: bool) -> int:
    command = [sys.executable, "-m", "benchmarks.incremental", "--child", folder, str(incremental)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _child(folder: Path, incremental: bool) -> int:
    keep_memory_small()
    exporter = _Exporter(incremental)
    for path in sorted(folder.iterdir()):
        exporter.poll(path.read_bytes())
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    print(int(fields[0]) * 1024)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
