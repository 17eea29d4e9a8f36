"""Replies of many frames: ZMQ limits the size of a frame, and not how many there are."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from dataplane.adapters.wire import WireMetadataReader
from dataplane.adapters.wire.limits import ReplyLimitExceeded
from tests.support.fake_router import FakeRouter, reply


def test_a_reply_of_ever_more_frames_is_cut_off_before_it_fills_the_memory() -> None:
    frame = b"x" * (4 * 2**20)
    names = reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["p"]})
    lies = [True]

    def answer(request: dict[str, Any]) -> list[bytes]:
        return names + [frame] * 150 if lies else names

    with FakeRouter(answer) as router, _Reader(router.address) as reader:
        first, second = reader.ask(), reader.ask()
        lies.clear()
        third = reader.ask()
    assert "larger than 33554432 bytes" in first
    assert "larger than 33554432 bytes" in second
    assert third.startswith("['p']")
    # MB; 86 without load. The reply has 600, of which a busy machine may receive some before it notices.
    assert int(third.split()[-1]) < 300


def test_frames_that_are_too_large_together_are_refused() -> None:
    parts = reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["p"]}) + [b"x" * 400] * 3
    with FakeRouter(lambda request: parts) as router:
        reader = WireMetadataReader(router.address, max_reply_bytes=1000)
        with pytest.raises(ReplyLimitExceeded, match="larger than 1000 bytes"):
            reader.list_partitions()
        reader.close()


class _Reader:
    """A reader in a process of its own, whose memory is that of the reader alone."""

    _PROGRAM = """if True:
        import pathlib, re, sys
        from dataplane.adapters.wire import WireMetadataReader
        reader = WireMetadataReader(sys.argv[1], timeout_s=30.0)
        for _ in sys.stdin:
            try:
                said = reader.list_partitions()
            except Exception as error:
                said = str(error)
            # Not getrusage, whose peak is at first that of the process which started this one.
            peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
            print(said, int(peak[1]) // 1024, flush=True)
    """

    def __init__(self, address: str) -> None:
        command = [sys.executable, "-c", self._PROGRAM, address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=30)
