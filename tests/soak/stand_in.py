"""An accelerated training run on fake controllers.

Hundreds of real controllers cannot be replaced within minutes, and a real run cannot pass ten thousand weight versions.
So a ROUTER socket in a thread answers as TransferQueue's controller does on the wire (``FakeRouter``): list of
partitions, rows of a partition, its own id as sender. Its answers depend on the time alone. It stores and validates
nothing and is always fast, so the soak test says something about the exporter's process only.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dataplane.discovery.record import Endpoint, encode_endpoint
from tests.support.fake_router import FakeRouter, reply

__all__ = ["Controllers", "Run"]

Clock = Callable[[], float]

_DIGITS: Final = "0123456789"
_LETTERS: Final = "abcdefghij"


def short_name(number: int) -> str:
    """Return the name of a short partition: every second one with its number, the others with letters in its place.

    Those with a number are counted together, as a family; each of the others has a label of its own until there are too
    many.
    """
    text = str(number)
    return f"step_{text if number % 2 else text.translate(str.maketrans(_DIGITS, _LETTERS))}"


def number_of(name: str) -> int:
    """Return the number of a short partition."""
    return int(name.removeprefix("step_").translate(str.maketrans(_LETTERS, _DIGITS)))


class Run:
    """The content of a run at each moment: one permanent partition, and short ones that come and go.

    Args:
        duration_s: How long it lasts.
        versions: Weight versions that pass in that time.
        partitions: Short partitions that come and go in that time.
    """

    LONG = "train"
    RESIDENT_VERSIONS = 40
    RESIDENT_PARTITIONS = 20
    GROUPS_PER_VERSION = 10

    def __init__(self, duration_s: float, versions: int, partitions: int) -> None:
        self._duration_s = duration_s
        self._versions = versions
        self._partitions = partitions
        self.started = time.monotonic()
        self.over = False

    def version(self, at: float) -> int:
        """Return the newest weight version at a monotonic time."""
        return int(self._progress(at) * self._versions)

    def partitions(self, at: float) -> list[str]:
        """Return the names of all partitions at a monotonic time."""
        if self.over:
            return []
        return [self.LONG, *map(short_name, self.steps(at))]

    def steps(self, at: float) -> range:
        """Return the numbers of the short partitions at a monotonic time."""
        newest = int(self._progress(at) * self._partitions)
        return range(max(newest - self.RESIDENT_PARTITIONS, 0), newest)

    def rows(self, partition: str, at: float) -> dict[str, dict[str, Any]]:
        """Return key to tag of a partition at a monotonic time, in one of three tag conventions."""
        if partition not in self.partitions(at):
            return {}
        newest = self.version(at)
        if partition == self.LONG:
            versions = range(max(newest - self.RESIDENT_VERSIONS, 0), newest + 1)
            groups = [(f"v{version}-{n}", version) for version in versions for n in range(self.GROUPS_PER_VERSION)]
        else:
            groups = [(f"{partition}-{n}", newest) for n in range(3)]
        tags = (_nemo_rl, _recovery, _verl)[0 if partition == self.LONG else number_of(partition) % 3]
        return {key: tag for group, version in groups for key, tag in tags(group, version)}

    def _progress(self, at: float) -> float:
        return min(max((at - self.started) / self._duration_s, 0.0), 1.0)


def _nemo_rl(group: str, version: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{group}_g{row}", {"weight_version": version}) for row in range(2)]


def _recovery(group: str, version: int) -> list[tuple[str, dict[str, Any]]]:
    tag = {"group_id": group, "weight_version": version, "committed": True, "expected_num_keys": 2, "size_bytes": 8}
    return [(f"{group}/{row}", {**tag, "created_at": time.time()}) for row in range(2)]


def _verl(group: str, version: int) -> list[tuple[str, dict[str, Any]]]:
    prompt = {"is_prompt": True, "status": "finished", "global_steps": version}
    return [(group, prompt), (f"{group}_0_0", {"min_global_steps": version, "max_global_steps": version})]


class Controllers:
    """One controller after the other, announced to the exporter by a discovery file. A context manager.

    Args:
        run: Their content.
        file: The discovery file.
    """

    def __init__(self, run: Run, file: Path) -> None:
        self._run = run
        self._file = file
        self._number = 0
        self._random = random.Random(7)
        self._router = self._start("tcp://127.0.0.1:*")
        self._announce()

    @property
    def restarts(self) -> int:
        """How many controllers replaced another one."""
        return self._number - 1

    def is_known(self) -> bool:
        """Whether the exporter has finished a round on the present controller and begun another."""
        asked = [request["request_type"] for request in self._router.requests if request["sender_id"]]
        listed = asked.index("KV_LIST") if "KV_LIST" in asked else len(asked)
        return asked[listed:].count("GET_LIST_PARTITIONS") >= 3

    def replace(self) -> None:
        """Replace the present controller by a new one, in one of three ways."""
        way = self._random.choice(("gone for a while", "overlapping", "same address"))
        old = self._router
        if way == "overlapping":
            self._router = self._start("tcp://127.0.0.1:*")
            self._announce()
            old.close()
            return
        old.close()
        if way == "gone for a while":
            time.sleep(self._random.uniform(0.0, 0.5))
        self._router = self._start(old.address if way == "same address" else "tcp://127.0.0.1:*")
        self._announce()

    def end(self) -> None:
        """Remove the discovery file: the run has ended on purpose."""
        self._file.unlink()

    def __enter__(self) -> Controllers:
        return self

    def __exit__(self, *_: object) -> None:
        self._router.close()

    def _start(self, address: str) -> FakeRouter:
        self._number += 1
        name = f"TQ_CONTROLLER_{self._number:08x}"

        def answer(request: dict[str, Any]) -> list[bytes]:
            now = time.monotonic()
            if request["request_type"] == "GET_LIST_PARTITIONS":
                return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": self._run.partitions(now)}, name)
            partition = request["body"]["partition_id"]
            listed = {partition: self._run.rows(partition, now)}
            return reply("KV_LIST_RESPONSE", {"partition_info": listed, "message": "success"}, name)

        return FakeRouter(answer, address)

    def _announce(self) -> None:
        name = f"{self._number:08x}"
        endpoint = Endpoint(self._router.address, controller_id=f"TQ_CONTROLLER_{name}", actor_id=name)
        partial = self._file.with_suffix(".part")
        partial.write_bytes(encode_endpoint(endpoint))
        os.replace(partial, self._file)
