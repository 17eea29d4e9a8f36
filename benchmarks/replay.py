"""A controller's replies without a controller: a process of its own that sends what it was given.

For more keys than a real controller is filled with in time, and for what needs no more of a controller than its
replies. It answers at once, so it says nothing about a controller's own work.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from tests.support.fake_router import CONTROLLER_ID, FakeRouter, reply

__all__ = ["Replay"]


class Replay:
    """A process that answers as a controller with some partitions; a context manager.

    Attributes:
        address: Its request socket.
        pid: Its process.
    """

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        self.address: str = self._pipe.recv()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def list(self, partition: str, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
        """Let *partition* have these rows from now on; return the bytes of its reply."""
        [frame] = reply("KV_LIST_RESPONSE", {"partition_info": {partition: dict(rows)}, "message": ""})
        self._pipe.send((partition, frame))
        self._pipe.recv()
        return len(frame)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._pipe.close()


def _serve(pipe: Connection) -> None:
    frames: dict[str, bytes] = {}

    def answer(request: dict[str, Any]) -> list[bytes]:
        router.requests.clear()  # a long run would keep them all
        router.identities.clear()
        if request["request_type"] == "GET_LIST_PARTITIONS":
            return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": list(frames)}, CONTROLLER_ID)
        return [frames[request["body"]["partition_id"]]]

    with FakeRouter(answer) as router:
        pipe.send(router.address)
        while True:
            try:
                partition, frame = pipe.recv()
            except EOFError:
                return
            frames[partition] = frame
            pipe.send(None)
